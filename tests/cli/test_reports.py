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
from tests.porcelain.test_undo import READERS
from tests.support import Repo
from theta.cli import catalogue, option_names

WITHOUT = {
    **dict.fromkeys(
        ("init", "clone", "demo", "install", "uninstall", "follow"), "sets something up, or runs"
    ),
    **dict.fromkeys(("export", "cat", "extract-lora"), "writes files: the values are the result"),
    **dict.fromkeys(("fetch", "push"), "git's output; push has --porcelain"),
    **dict.fromkeys(("help", "completion"), "a text"),
}
"""Readers that print no report."""
ROOT = Path(theta.__file__).parent
KEY = re.compile(r"theta\.([a-z-]+)/v1")
LINES = {
    "blame": ["blame", MODEL],
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
    modules = {name: catalogue.module_of(name) for name in READERS}
    has = {
        name
        for name, module in modules.items()
        if module and "--json" in option_names.of_module(module).takes
    }
    assert {*READERS} - has == {*WITHOUT}


def test_the_page_lists_each_report() -> None:
    called = re.compile(r'reports\.as_json\(\s*"([a-z-]+)"')
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
