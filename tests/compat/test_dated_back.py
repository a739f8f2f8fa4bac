"""Git trusts a large file that theta wrote or stored, and sees a change of this second and the same size."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.compat.inprocess import branched, copied, started, theta
from tests.compat.story import MODEL, TENSOR, edit
from tests.support import Repo
from theta._fs import AtomicFile
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session

SWITCH = ("switch", "-q", "side")
WRITERS = [SWITCH, ("restore", "--source", "side", "--staged", "--worktree", MODEL), ("merge", "-q", "side")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branch side has one commit more than main, which is checked out."""
    repo = started(tmp_path_factory.mktemp("both") / "repo")
    branched(repo, side=[(TENSOR, 2.0)])
    return repo


@pytest.fixture
def repo(both: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A copy in which every file counts as a large one."""
    monkeypatch.setattr(worktree, "_WORTH_DATING_BACK", 1)
    return copied(both, tmp_path / "repo")


def flip(repo: Repo) -> None:
    """Change the last byte in place, right after the file was written."""
    with (repo.path / MODEL).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def is_trusted(repo: Repo) -> bool:
    """Return whether git needs no filter to tell that the file is unchanged."""
    trace = repo.path.with_suffix(".trace")
    repo.git("status", env={"GIT_TRACE": str(trace)})
    return "filter-process" not in trace.read_text()


@pytest.mark.parametrize("command", WRITERS, ids=lambda words: words[0])
def test_git_reads_no_large_file_that_was_just_written(repo: Repo, command: Sequence[str]) -> None:
    theta(repo, *command)
    assert is_trusted(repo)


def test_a_small_file_is_read_by_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart, which shows that the trace tells."""
    monkeypatch.setattr(worktree, "_WORTH_DATING_BACK", 1 << 30)
    theta(repo, *SWITCH)
    assert not is_trusted(repo)


@pytest.mark.parametrize(
    ("command", "look"),
    [
        *(
            (SWITCH, look)
            for look in ("git status", "theta status", "git diff", "git commit", "theta commit")
        ),
        *((words, "git status") for words in WRITERS[1:]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_change_right_after_it_is_seen(repo: Repo, command: Sequence[str], look: str) -> None:
    theta(repo, *command)
    flip(repo)
    program, name = look.split()
    if name == "commit":
        before = repo.git("rev-parse", f"HEAD:{MODEL}", f"side:{MODEL}").split()
        (repo.git if program == "git" else repo.theta)("commit", "-q", "-a", "-m", "changed")
        assert repo.git("rev-parse", f"HEAD:{MODEL}") not in before
    else:
        run = repo.try_git(name) if program == "git" else repo.theta(name)
        assert MODEL in run.stdout


@pytest.mark.parametrize("command", WRITERS, ids=lambda words: words[0])
def test_what_was_made_of_the_file_before_is_older(repo: Repo, command: Sequence[str]) -> None:
    """As for make: a file that is checked out now is newer than all that was there."""
    for _ in range(3):
        repo.theta("switch", "-q", "-f", "main")
        made = repo.path / "made"
        made.write_text("of the old one")
        os.utime(made)
        theta(repo, *command)
        assert (repo.path / MODEL).stat().st_mtime_ns >= made.stat().st_mtime_ns
        if command[0] == "merge":
            break


def test_theta_sees_a_change_that_puts_the_time_back(repo: Repo) -> None:
    """Git, which compares whole seconds, may not."""
    theta(repo, *SWITCH)
    before = repo.git("rev-parse", f"HEAD:{MODEL}")
    info = (repo.path / MODEL).stat()
    flip(repo)
    os.utime(repo.path / MODEL, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert MODEL in repo.theta("status").stdout
    repo.theta("commit", "-q", "-am", "changed")
    assert repo.git("rev-parse", f"HEAD:{MODEL}") != before


def test_where_files_have_no_times_git_reads_them(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: AtomicFile) -> None:
        """As where the system refuses to set times."""

    monkeypatch.setattr(AtomicFile, "_date_back", refused)
    theta(repo, *SWITCH)
    monkeypatch.undo()
    flip(repo)
    assert MODEL in repo.git("diff", "--name-only")


@pytest.mark.parametrize("everything", [False, True])
def test_adding_and_committing_within_a_second_runs_no_filter(repo: Repo, everything: bool) -> None:
    steps = [["commit", "-qam", "changed"]] if everything else [["add", MODEL], ["commit", "-qm", "changed"]]
    trace = repo.path.with_suffix(".trace")
    for count in range(1, 6):
        time.sleep(1.02 - time.time() % 1)  # the clock of files may be a tick behind
        edit(repo, TENSOR, float(count))
        time.sleep(0.1)  # what theta notes of a file of this tick it does not trust itself
        theta(repo, *steps[0], env={"GIT_TRACE": str(trace)})
        if everything or _in_one_second(repo):
            break
    for words in steps[1:]:
        theta(repo, *words, env={"GIT_TRACE": str(trace)})
    assert "filter-process" not in trace.read_text()
    assert is_trusted(repo)


def test_a_second_may_pass_before_git_commits(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is of the second of the file then, and git looks at it in the next one."""

    def late(session: Session) -> None:
        time.sleep(1.02 - time.time() % 1)
        outlast(session)

    outlast = worktree.outlast
    monkeypatch.setattr(worktree, "outlast", late)
    trace = repo.path.with_suffix(".trace")
    time.sleep(1.02 - time.time() % 1)
    edit(repo, TENSOR, 5.0)
    time.sleep(0.1)
    theta(repo, "commit", "-qam", "changed", env={"GIT_TRACE": str(trace)})
    assert "filter-process" not in trace.read_text()


def _in_one_second(repo: Repo) -> bool:
    """Return whether the index was written in the second in which the file was."""
    return int((repo.path / ".git/index").stat().st_mtime) == int((repo.path / MODEL).stat().st_mtime)
