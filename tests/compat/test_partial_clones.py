"""B3: in a partial clone "not here yet" is not "not there", and what is wanted comes in batches.

Every fetch is counted: the file of ``GIT_TRACE2_EVENT`` tells each ``git fetch`` that theta, or a git that
it started, ran.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.checks import never_a_bug
from tests.compat.inprocess import branched, committed, started, theta
from tests.compat.story import MODEL, SHAPES, digest, edit, new_model
from tests.support import Repo, make_model, random_tensors, sha256
from tests.support.repos import Done, describe
from theta.errors import ExitCode

KINDS = ("blob:none", "tree:0")
BIG = "big.safetensors"
TENSOR = "layer.1.weight"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Main has four commits on the first model; side and other changed tensors of it."""
    repo = started(tmp_path_factory.mktemp("partial") / "origin")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    make_model(repo.path / BIG, random_tensors({"w": (128, 64)}))
    theta(repo, "add", BIG)
    theta(repo, "commit", "-q", "-m", "a large one")
    every = [(name, 0.5) for name in SHAPES]
    branched(repo, side=[(TENSOR, 2.0), ("layer.2.weight", 2.0)], other=[("embed.weight", 3.0)])
    for by in (1.0, 1.5, 2.5):
        committed(repo, *[(name, by * change) for name, change in every])
    return repo


@dataclass
class Clone(Repo):
    """A partial clone that counts its fetches."""

    path: Path
    ticks: int = 0
    afresh: bool = False
    trace: Path = field(init=False)

    def __post_init__(self) -> None:
        self.trace = self.path.with_name(f"{self.path.name}.trace")

    def counted(self, *args: str, code: int | None = 0) -> tuple[Done, int]:
        """Run ``theta ARGS``; return how it ended and the number of its fetches."""
        self.trace.write_text("")
        done = self.theta(*args, code=code, env={"GIT_TRACE2_EVENT": str(self.trace)})
        never_a_bug(done)
        events = (json.loads(line) for line in self.trace.read_text().splitlines())
        return done, sum(e["event"] == "cmd_name" and e["name"] == "fetch" for e in events)


def cloned(origin: Repo, place: Path, kind: str, *options: str) -> Clone:
    """A partial clone by plain git, which theta was then told of."""
    origin.git("clone", "-q", f"--filter={kind}", *options, origin.path.as_uri(), str(place))
    clone = Clone(place, origin.ticks)
    clone.theta("install")
    return clone


@pytest.fixture(params=KINDS)
def clone(request: pytest.FixtureRequest, origin: Repo, tmp_path: Path) -> Iterator[Clone]:
    """A partial clone of each kind."""
    yield cloned(origin, tmp_path / "clone", request.param)


READING = {
    "cat": (["cat", f"HEAD~2:{MODEL}#{TENSOR}"], "[["),
    "show a commit": (["show", "HEAD~1"], f"{MODEL}: 5 changed of 5 tensors"),
    "show codecs": (["show", "--codecs", f"HEAD~2:{MODEL}"], "5 tensors"),
    "show a checkpoint": (["show", f"HEAD~2:{MODEL}"], "5 tensors"),
    "show a tensor": (["show", f"origin/side:{MODEL}#{TENSOR}"], "sha256:"),
    "diff": (["diff", "HEAD~3", "origin/side"], "2 changed of 5 tensors"),
    "diff stats": (["diff", "--stats", "HEAD~3", "origin/side"], "cosine"),
    "log": (["log", "--stat"], "5 changed of 5 tensors"),
    "status": (["status"], "nothing to commit"),
    "scan": (["scan", "HEAD~2"], ""),
    "fsck": (["fsck"], "not checked, since it is not here yet"),
    "fsck with data": (["fsck", "--read-data"], "not checked, since it is not here yet"),
}


@pytest.mark.parametrize("command", READING)
def test_b3_commands_that_read(clone: Clone, command: str) -> None:
    args, said = READING[command]
    done, fetches = clone.counted(*args)
    assert said in done.stdout, describe(done)
    assert "theta checkpoint 1" not in done.stdout
    assert fetches <= (0 if command.startswith("fsck") else 4), f"{fetches} fetches"
    again, more = clone.counted(*args)
    assert (again.stdout, more) == (done.stdout, 0)


REPORTS = {
    "a diff": (["diff", "--md", "HEAD~3", "origin/side"], 2),
    "its data": (["diff", "--stats", "--json", "HEAD~3", "origin/side"], 2),
    "a commit": (["show", "--html", "-", "HEAD~1"], 2),
    "a commit beside another": (["show", "--md", "HEAD", "--against", "HEAD~3"], 2),
    "a checkpoint": (["show", "--md", f"HEAD~2:{MODEL}"], 2),
    "a history": (["log", "--md"], 1),
    "a check": (["check", "HEAD~2"], 2),
    "a check with budgets": (["check", "HEAD~2", "--max-change", "*=1e9", "--max-size", "1GB"], 2),
    "a check of what is here": (["check", "--against", "HEAD~2", "--max-change", "*=1e9"], 2),
    "a merge": (["merge", "--dry-run", "--md", "-X", "average", "origin/side"], 4),
}
"""Reports, and their fetches: one for manifests, one for values; the merge that is rehearsed has its own."""


@pytest.mark.parametrize("report", REPORTS)
def test_b3_reports_fetch_manifests_and_then_all_values_together(clone: Clone, report: str) -> None:
    args, most = REPORTS[report]
    done, fetches = clone.counted(*args)
    assert done.stdout or done.stderr
    trees = 0 if clone.path.parent.name.count("blob_none") else 3 if report == "a merge" else 1
    assert fetches <= most + trees, f"{fetches} fetches\n{describe(done)}"
    assert clone.counted(*args)[1] == 0


def test_b3_trees_that_end_below_the_root(origin: Repo, tmp_path: Path) -> None:
    clone = cloned(origin, tmp_path / "clone", "tree:1")
    for command in ("diff stats", "log", "cat"):
        args, said = READING[command]
        done, fetches = clone.counted(*args)
        assert said in done.stdout, describe(done)
        assert fetches <= 4, f"{fetches} fetches of {command}"


MOVING = {
    "switch": ["switch", "-q", "-c", "side", "origin/side"],
    "checkout": ["checkout", "-q", "HEAD~2"],
    "restore": ["restore", "-s", "HEAD~2", "."],
    "reset": ["reset", "--hard", "HEAD~2"],
    "merge": ["merge", "-q", "-X", "average", "origin/side"],
    "merge a side": ["merge", "-q", "--no-edit", "-X", "theirs", "origin/other"],
    "cherry-pick": ["cherry-pick", "-X", "theirs", "origin/side"],
    "revert": ["revert", "--no-edit", "-X", "theirs", "HEAD~1"],
    "rebase": ["rebase", "-X", "theirs", "--onto", "origin/other", "HEAD~2"],
}


@pytest.fixture(scope="module")
def results(origin: Repo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The result of each command in a full clone."""
    full = origin.clone(tmp_path_factory.mktemp("full") / "clone")
    full.theta("install")
    full.theta("restore", ".")
    start, found = full.git("rev-parse", "HEAD"), {}
    for name, args in MOVING.items():
        full.theta(*args)
        found[name] = digest(full)
        full.theta("switch", "-q", "-f", "-C", "main", start)
    return found


@pytest.mark.parametrize("command", MOVING)
def test_b3_commands_that_change(clone: Clone, results: dict[str, str], command: str) -> None:
    done, fetches = clone.counted(*MOVING[command])
    assert digest(clone) == results[command], describe(done)
    assert fetches <= (6 if command == "rebase" else 4), f"{fetches} fetches"


def test_b3_commands_that_write_elsewhere(clone: Clone, origin: Repo, tmp_path: Path) -> None:
    lora = ["extract-lora", "origin/other..origin/side", MODEL, "--rank", "2", "-o", str(tmp_path / "lora")]
    for args in (
        ["export", f"HEAD~2:{MODEL}", "-o", str(tmp_path / "out.npz")],
        ["convert", f"origin/side:{MODEL}", "-o", str(tmp_path / "out.pt")],
        lora,
        ["cat", f"HEAD~1:{MODEL}#{TENSOR}", "-o", str(tmp_path / "out.npy")],
    ):
        done, fetches = clone.counted(*args)
        assert fetches <= 6, f"{fetches} fetches\n{describe(done)}"
    assert {path.name for path in tmp_path.glob("out.*")} == {"out.npz", "out.pt", "out.npy"}
    assert (tmp_path / "lora" / "adapter_model.safetensors").exists()


def test_b3_commits_on_top_of_what_is_not_here(origin: Repo, tmp_path: Path) -> None:
    """Without a checkout the base of the new version is not here either; it is fetched for the delta."""
    clone = cloned(origin, tmp_path / "clone", "blob:none", "--no-checkout")
    clone.git("reset", "-q")
    shutil.copy(origin.path / BIG, clone.path / BIG)
    want = edit(clone, "w", 1e-4, BIG)
    done, fetches = clone.counted("add", BIG)
    # of git the attributes, for want of a worktree; manifests, skeleton, base
    assert fetches <= 5, f"{fetches} fetches"
    clone.counted("commit", "-q", "-m", "on top")
    layers = json.loads(clone.theta("show", "--json", f"HEAD:{BIG}#w").stdout)["theta.codecs/v1"]
    assert len(layers[0]["layers"]) > 1, "the base was not used"
    clone.theta("gc", "-q")
    clone.theta("fsck")
    done, fetches = clone.counted("push", "-q", "origin", "HEAD:refs/heads/on-top")
    assert fetches <= 2, describe(done)
    origin.theta("restore", "-s", "on-top", "-W", BIG)
    assert digest(origin, BIG) == want
    origin.theta("restore", BIG)
    origin.git("branch", "-D", "-q", "on-top")


OFFLINE = ["cat", "show codecs", "diff stats", "log"]


@pytest.mark.parametrize("command", OFFLINE)
def test_b3_what_is_missing_is_said_where_the_remote_is_gone(clone: Clone, command: str) -> None:
    clone.git("remote", "set-url", "origin", f"file://{clone.path}-gone")
    done, _ = clone.counted(*READING[command][0], code=int(ExitCode.MISSING_OBJECTS))
    assert "not here yet" in done.stderr, describe(done)
    assert "origin" in done.stderr, describe(done)
    assert clone.counted("status")[0].returncode == 0
    done, fetches = clone.counted("fsck")
    assert "not checked" in done.stdout
    assert fetches == 0


def test_b3_how_much_is_missing_is_said(clone: Clone) -> None:
    clone.theta("show", f"HEAD~2:{MODEL}")
    clone.git("remote", "set-url", "origin", f"file://{clone.path}-gone")
    done, _ = clone.counted("restore", "-s", "HEAD~2", MODEL, code=int(ExitCode.MISSING_OBJECTS))
    assert "(of 28.7 kB)" in done.stderr, describe(done)
    assert digest(clone) == sha256(clone.path / MODEL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_that_git_itself_reads_fetches_together_too(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libgit2 does not open it, and git would fetch each missing object when it is asked for it."""
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    origin = Repo.create(tmp_path / "origin")
    origin.theta("track", "*.safetensors")
    for seed in range(3):
        new_model(origin, seed=seed)
        origin.theta("add", ".")
        origin.theta("commit", "-qm", f"version {seed}")
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        origin.git("config", key, "true")
    clone = cloned(origin, tmp_path / "clone", kind)
    for name, most in (("fsck", 0), ("diff stats", 4), ("cat", 4)):
        words = [
            word.replace("HEAD~3", "HEAD~2").replace("origin/side", "HEAD~1") for word in READING[name][0]
        ]
        done, fetches = clone.counted(*words)
        assert READING[name][1] in done.stdout and fetches <= most, (name, fetches)
    assert clone.git("status", "--porcelain") == ""
