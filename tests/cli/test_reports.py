"""``--json``: each command that prints a report has it, in one form, which ``theta help output`` lists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import theta
from tests.cli.checks import refused
from tests.compat.story import MODEL, edit, new_model
from tests.support import Repo
from theta.cli import catalogue, option_names

WITHOUT = {
    **dict.fromkeys(
        ("init", "clone", "demo", "install", "uninstall", "follow"), "sets something up, or runs"
    ),
    **dict.fromkeys(("rm", "mv", "restore", "branch", "tag", "fetch"), "what they print is git's"),
    **dict.fromkeys(("help", "completion"), "a text"),
    "untrack": "says nothing but that it is done",
}
"""Commands that print no report of theta's."""
ROOT = Path(theta.__file__).parent
KEY = re.compile(r"theta\.([a-z-]+)/v1")
LINES = {
    "average": ["average", "HEAD~", "HEAD", "--dry-run"],
    "blame": ["blame", MODEL],
    "cascade": ["cascade", "HEAD~..main", "side", "--dry-run"],
    "cat": ["cat", f"HEAD:{MODEL}#layer.1.weight"],
    "check": ["check"],
    "diff": ["diff", "HEAD~", "HEAD"],
    "doctor": ["doctor"],
    "du": ["du"],
    "fsck": ["fsck"],
    "gc": ["gc", "--dry-run"],
    "lineage": ["lineage"],
    "log": ["log"],
    "ls-files": ["ls-files"],
    "merge": ["merge", "--dry-run", "side"],
    "runs": ["runs"],
    "scan": ["scan"],
    "show": ["show"],
    "codecs": ["show", f"HEAD:{MODEL}"],
    "status": ["status"],
    "track": ["track"],
    "undo": ["undo"],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions of a checkpoint, and a side branch."""
    repo = Repo.create(tmp_path_factory.mktemp("reports") / "repo")
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "first")
    repo.git("branch", "side")
    edit(repo, "layer.1.weight")
    repo.theta("commit", "-am", "second")
    return repo


def report(repo: Repo, name: str) -> Any:
    """The report of a command, which is all that it prints on standard output."""
    done = repo.theta(*LINES[name], "--json")
    assert done.stdout.count("\n") == 1
    (item,) = json.loads(done.stdout).items()
    assert item[0] == f"theta.{name}/v1"
    return item[1]


def test_each_command_that_prints_a_report_has_json() -> None:
    names = [name for group in catalogue.COMMANDS.values() for name in group]
    modules = {name: catalogue.module_of(name) for name in names}
    has = {
        name
        for name, module in modules.items()
        if module and "--json" in option_names.of_module(module).takes
    }
    assert {*names} - has == {*WITHOUT}


def test_the_page_lists_each_report() -> None:
    called = re.compile(r'(?:as_json|reports\.files)\(\s*"([a-z-]+)"')
    sources = "".join(path.read_text() for path in (ROOT / "cli").glob("*.py"))
    assert {*called.findall(sources)} == {*KEY.findall((ROOT / "docs" / "output.md").read_text())}


@pytest.mark.parametrize("name", [name for name in LINES if name != "undo"])
def test_a_report_is_one_line(told: Repo, name: str) -> None:
    assert report(told, name) is not None


def test_what_reports_say(told: Repo) -> None:
    assert report(told, "ls-files") == [MODEL]
    assert report(told, "track") == ["*.safetensors"]
    assert report(told, "fsck") == {
        "git": [],
        "problems": [],
        "not_here": {"commits": 0, "tensors": 0, "nbytes": 0},
        "plain": [],
    }
    shown = report(told, "show")
    assert shown["subject"] == "second"
    assert shown["checkpoints"] == {MODEL: [["M", "layer.1.weight"]]}
    assert shown == report(told, "log")[0]
    other = json.loads(told.theta("show", "--json", "side").stdout)
    assert other["theta.show/v1"]["subject"] == "first"


def test_what_is_no_report_of_theta_is_refused(told: Repo, tmp_path: Path) -> None:
    told = told.copy(tmp_path / "twin")
    refused(told.theta("ls-files", "--json", "-o", code=None), 2, "--json")
    refused(told.theta("track", "--json", "*.pt", code=None), 2, "--json")
    refused(told.theta("show", "--json", "HEAD", "side", code=None), 2, "--json")
    refused(told.theta("show", "--json", "nowhere", code=None), 13, "nowhere")


def test_fsck_tells_programs_what_is_wrong(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    entries = repo.git("ls-tree", tree).splitlines()
    bare = repo.run("git", "mktree", stdin="".join(f"{row}\n" for row in entries if ".theta" not in row))
    commit = repo.git("commit-tree", bare.stdout.strip(), "-p", "HEAD", "-m", "without its tensors")
    repo.git("update-ref", "refs/heads/side", commit)
    done = repo.theta("fsck", "--json", code=None)
    assert done.returncode != 0
    assert json.loads(done.stdout)["theta.fsck/v1"]["problems"]


def test_an_undo_is_told(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    found = report(repo, "undo")
    assert found["line"].startswith("theta commit")
    assert [*found["refs"]] == ["refs/heads/main"]


def told_by(repo: Repo, name: str, *line: str, code: int = 0) -> Any:
    """The report of a command that changes something; for people it speaks on standard error."""
    done = repo.theta(*line, "--json", code=code)
    assert done.stdout.count("\n") == 1, done
    return json.loads(done.stdout)[f"theta.{name}/v1"]


def test_what_commands_that_move_head_say(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    main = repo.git("rev-parse", "main")
    moved = told_by(repo, "moved", "switch", "side")
    assert (moved["before"], moved["after"], moved["branch"]) == (main, repo.git("rev-parse", "side"), "side")
    assert moved["checkpoints"] == {MODEL: [["M", "layer.1.weight"]]}
    edit(repo, "layer.1.weight", 3.0)
    added = told_by(repo, "add", "add", ".")
    assert [(one["path"], one["tensors"], one["new"]) for one in added["checkpoints"]] == [
        (MODEL, 5, ["layer.1.weight"])
    ]
    repo.theta("commit", "-qm", "side")
    stopped = told_by(repo, "moved", "merge", "main", "--no-prompt", code=1)
    assert (stopped["operation"], stopped["conflicts"]) == ("merge", {MODEL: ["layer.1.weight"]})
    assert stopped["before"] == stopped["after"]
    assert told_by(repo, "moved", "resolve", "-X", "ours")["conflicts"] == {}
    done = told_by(repo, "moved", "merge", "--continue")
    assert (done["operation"], done["after"]) == ("", repo.git("rev-parse", "HEAD"))
    assert done["after"] != done["before"]
    back = told_by(repo, "moved", "reset", "--hard", "HEAD~1")
    assert back["after"] == done["before"]
    repo.theta("merge", "main", "--no-prompt", "-X", "ours")
    again = told_by(repo, "merge", "merge", "--replay", "HEAD")
    merged = repo.git("rev-parse", "HEAD")
    assert again == {"replayed": merged, "same": True, "differing": [], "by_hand": []}
    repo.theta("reset", "-q", "--hard", "HEAD~1")
    picked = told_by(repo, "moved", "cherry-pick", "main", "-X", "theirs", "--allow-empty")
    assert picked["before"] == back["after"] != picked["after"]
    repo.theta("merge", "nowhere", "--json", code=None)


def test_text_conflicts_of_a_plain_repository_are_told(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.git("switch", "-qc", "side")
    for branch in ("side", "main"):
        repo.git("switch", "-q", branch)
        repo.write("code.py", f"{branch}\n")
        repo.git("commit", "-qam", branch)
    found = told_by(repo, "moved", "merge", "side", code=1)
    assert (found["operation"], found["conflicts"]) == ("merge", {"code.py": []})


def test_what_commands_that_write_files_say(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    for name in ("export", "convert"):
        made = told_by(repo, name, name, f"HEAD:{MODEL}", "-o", f"{name}.npz")
        assert made["files"] == [
            {"path": str(repo.path / f"{name}.npz"), "bytes": (repo.path / f"{name}.npz").stat().st_size}
        ]
        assert made["tensors"] == 5
    whole = told_by(repo, "export", "export", f"HEAD:{MODEL}", "-o", "twin.safetensors")
    assert whole["files"][0]["bytes"] == (repo.path / MODEL).stat().st_size
    lora = told_by(repo, "extract-lora", "extract-lora", "HEAD~..HEAD", "-r", "2", "-o", "adapter")
    assert lora["path"] == "adapter" and lora["bytes"] and lora["error"] is not None
    bundle = told_by(repo, "bundle", "bundle", "create", "new.bundle", "main~1..main")
    assert bundle["heads"] == {"refs/heads/main": repo.git("rev-parse", "main")}
    assert bundle["bytes"] == (repo.path / "new.bundle").stat().st_size
    refused(repo.theta("bundle", "verify", "new.bundle", "--json", code=None), 2, "--json")
    mean = told_by(repo, "average", "average", "HEAD~", "HEAD", "-o", "mean.safetensors")
    assert mean["file"] == "mean.safetensors" and [one["factor"] for one in mean["versions"]] == [0.5, 0.5]


def test_what_a_push_would_send(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    repo.git("init", "-q", "--bare", str(tmp_path / "up.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "up.git"))
    plan = told_by(repo, "push", "push", "--dry-run", "origin", "main")
    assert plan["parts"] == 1 and 0 < plan["bytes"] <= repo.stored_bytes()
    refused(repo.theta("push", "--json", "origin", "main", code=None), 2, "--json")


def test_what_becomes_of_a_history(told: Repo, tmp_path: Path) -> None:
    repo = told.copy(tmp_path / "twin")
    out = told_by(repo, "export-history", "export-history", "--as", "raw")
    assert out["files"] == {MODEL: 2} and len(out["rewritten"]) >= 2
    survey = told_by(repo, "migrate", "migrate", "raw", "--dry-run", "--all-history")
    assert survey["files"] == {MODEL: 2} and survey["lacking"] == []
