"""E1: small things that a killed command leaves, and that the next theta command ends."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, Runner, State, fsck, killed, leftovers
from tests.reliability.killing import look
from tests.support import Repo

DEFER = {"THETA_SMUDGE": "defer", "THETA_HOOKS": "off"}
AT_TOUCH = """
import os
from theta import _fs
_fs.on_step = lambda operation, path: os.kill(os.getpid(), 9) if operation == "touch" else None
"""
AT_RENAME = """
import os
from theta import _fs
_fs.on_step = lambda operation, path: os.kill(os.getpid(), 9) if path.endswith(".git/index") else None
"""
AFTER_SWITCH = """
import os
from pathlib import Path
from theta import _fs
def end(operation, path):  # the index may be written before git's switch, too
    if path.endswith(".git/index") and "other" in Path(path).with_name("HEAD").read_text():
        os.kill(os.getpid(), 9)
_fs.on_step = end
"""
DIES = """#!/bin/sh
case " $* " in
*" --help-all "*) ;;
*" {name} "*) touch .git/index.lock && kill -9 {victims} ;;
esac
exec {git} "$@"
"""


@pytest.mark.parametrize("command", ["fetch", "push"])
def test_e1_a_killed_fetch_leaves_no_temporary_file(
    runner: Runner, completed: Repo, tmp_path: Path, command: str
) -> None:
    """``status`` removes even the draft of a journal, of which no journal tells."""
    repo, seen = completed.copy(tmp_path / "repo"), set[str]()
    for at in itertools.count(1):
        code = runner.run(repo, command, "origin", crash_at=at)
        seen |= {Path(name).parent.name for name in leftovers(repo)}
        runner.ok(repo, "status")
        assert leftovers(repo) == [], f"step {at}"
        if code != -9:
            break
    assert "theta" in seen


@pytest.mark.parametrize("command", ["log -1", "show --stat", "status", "diff"])
def test_e1_a_file_that_was_filled_in_is_none_that_changed(repo: Repo, command: str) -> None:
    """The index had the size of the manifest, and git compares sizes before it asks the filter."""
    done = repo.theta("switch", "other", env={"THETA_TEST_FIRST": AFTER_SWITCH}, code=None)
    assert done.returncode == -9
    time.sleep(1.1)  # the stat cache trusts no file of this second
    repo.theta(*command.split())
    assert repo.git("status", "--porcelain") == ""
    assert repo.git("branch", "--show-current") == "other"
    assert not (repo.path / FILE).read_bytes().startswith(b"theta checkpoint")


def test_e1_a_file_dated_back_is_of_now_after_the_next_command(repo: Repo) -> None:
    """Git would not see a rewrite in this second that keeps size and time."""
    done = repo.theta("merge", "other", env={"THETA_TEST_FIRST": AT_TOUCH}, code=None)
    assert done.returncode == -9
    info = (repo.path / FILE).stat()
    assert info.st_ctime - info.st_mtime > 0.9
    begun = time.time() - 0.1
    repo.theta("status")
    assert (repo.path / FILE).stat().st_mtime >= begun
    assert repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize("text", ["", "manifest"])
def test_e1_a_checkpoint_whose_stat_data_git_did_not_know_is_put_back(repo: Repo, text: str) -> None:
    """Git reads such a file, finds it unchanged and overwrites it: it is not a change of the user's."""
    before = State.of(repo)
    later = time.time() + 5
    os.utime(repo.path / FILE, (later, later))
    killed(repo)
    manifest = repo.git("show", f"other:{FILE}") + "\n"
    (repo.path / FILE).write_text(manifest if text else "")
    look(repo)
    assert State.of(repo) == before
    assert repo.git("status", "--porcelain") == ""


def test_e1_a_change_of_the_users_that_git_did_not_overwrite_stays(repo: Repo) -> None:
    (repo.path / FILE).write_bytes(b"of the user")
    killed(repo)
    repo.theta("status")
    assert (repo.path / FILE).read_bytes() == b"of the user"


@pytest.mark.parametrize("name", ["logs/refs/stash", "logs/HEAD", "index"])
def test_e1_a_lock_of_a_dead_git_is_removed(repo: Repo, name: str) -> None:
    killed(repo)
    (repo.path / ".git" / "logs" / "refs").mkdir(exist_ok=True)
    (repo.path / ".git" / f"{name}.lock").write_text("")
    repo.theta("status")
    assert leftovers(repo) == []


@pytest.mark.parametrize("name", ["journal", "driving-0"])
def test_e1_a_lock_is_removed_though_the_power_failed_before_the_journal_was_on_the_disk(
    repo: Repo, name: str
) -> None:
    """A journal of no bytes was taken for none, and the next command that writes refused."""
    (repo.path / ".git" / "theta" / name).write_text("")
    (repo.path / ".git" / "index.lock").write_text("")
    repo.theta("status")
    assert leftovers(repo) == []
    repo.theta("restore", FILE)


def dying(place: Path, name: str, victims: str) -> dict[str, str]:
    """Return the environment in which ``git NAME`` locks the index and kills ``victims``."""
    program = place / "git"
    program.write_text(DIES.format(git=shutil.which("git"), name=name, victims=victims))
    program.chmod(0o755)
    return {"PATH": f"{place}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "args", [("status",), ("add", "a.py"), ("commit", "-a", "-m", "c"), ("restore", "code.py")]
)
def test_e1_a_git_that_is_killed_alone_leaves_no_lock(
    repo: Repo, tmp_path: Path, args: tuple[str, ...]
) -> None:
    for name in ("a.py", "code.py"):
        repo.write(name, "print('new')\n")
    done = repo.theta(*args, env=dying(tmp_path, args[0], "$$"), code=None)
    assert done.returncode
    assert leftovers(repo) == []


@pytest.mark.parametrize("args", [("status",), ("status", "-uno"), ("diff",), ("diff", "--name-only")])
def test_e1_a_command_that_reads_leaves_no_lock(repo: Repo, tmp_path: Path, args: tuple[str, ...]) -> None:
    """Git refreshes the index as it compares, and is killed then."""
    done = repo.theta(*args, env=dying(tmp_path, args[0], "$PPID $$"), code=None)
    assert done.returncode == -9
    assert leftovers(repo) == [".git/index.lock"]
    repo.theta("status")
    assert leftovers(repo) == []


def test_e1_a_command_that_refreshes_the_index_leaves_no_lock(repo: Repo) -> None:
    (repo.path / FILE).touch()
    time.sleep(0.1)
    done = repo.theta("status", env={"THETA_TEST_FIRST": AT_RENAME}, code=None)
    assert done.returncode == -9
    assert ".git/index.lock" in leftovers(repo)
    repo.theta("status")
    assert leftovers(repo) == []


CONFLICTS = {
    "cherry-pick": ("CHERRY_PICK_HEAD", "cherry-pick"),
    "revert": ("REVERT_HEAD", "revert", "--no-edit"),
    "merge": ("MERGE_HEAD", "merge", "--no-commit"),
}


def in_conflict(repo: Repo, name: str) -> State:
    """Be killed as git has written a conflict to files and index only; return what was before."""
    sign, *words = CONFLICTS[name]
    repo.git("switch", "-q", "-c", "clash", "main~")
    repo.write("text.py", "print('theirs')\n")
    repo.write("clean.py", "print('clean')\n")
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "clash")
    if name == "revert":
        repo.write("text.py", "print('later')\n")
        repo.git("commit", "-q", "-a", "-m", "later")
    else:
        repo.theta("switch", "main")
        repo.write("text.py", "print('ours')\n")
        repo.git("add", ".")
        repo.git("commit", "-q", "-m", "ours")
    before = State.of(repo)
    repo.theta("status")
    killed(repo)
    assert repo.try_git(*words, "HEAD~" if name == "revert" else "clash", env=DEFER).returncode
    for left in (sign, "MERGE_MSG", "MERGE_MODE"):
        (repo.path / ".git" / left).unlink(missing_ok=True)
    assert repo.git("ls-files", "-u")
    return before


@pytest.mark.parametrize("name", CONFLICTS)
def test_e1_conflicts_of_nothing_in_progress_are_undone(repo: Repo, name: str) -> None:
    before = in_conflict(repo, name)
    repo.theta("status")
    assert State.of(repo) == before
    assert repo.git("status", "--porcelain") == ""
    assert (repo.path / "clean.py").exists() == (name == "revert")
    fsck(repo)


def test_e1_conflicts_that_the_user_began_to_settle_stay(repo: Repo) -> None:
    in_conflict(repo, "cherry-pick")
    repo.write("text.py", "print('both')\n")
    index = repo.git("ls-files", "-s")
    repo.theta("status")
    assert (repo.path / "text.py").read_text() == "print('both')\n"
    assert repo.git("ls-files", "-s") == index


@pytest.mark.parametrize("name", ["cherry-pick", "merge", "merge, begun to be noted"])
def test_e1_conflicts_of_a_checkpoint_with_nothing_in_progress_are_undone(
    completed: Repo, tmp_path: Path, name: str
) -> None:
    name, _, begun = name.partition(",")
    repo = completed.copy(tmp_path / "repo")
    sign, *words = CONFLICTS[name]
    repo.theta("status")
    before = State.of(repo)
    killed(repo)
    assert repo.try_git(*words, "clash", env=DEFER).returncode
    for left in (sign, "MERGE_MSG", "MERGE_MODE"):
        (repo.path / ".git" / left).unlink(missing_ok=True)
    if begun:
        (repo.path / ".git" / sign).touch()
    look(repo)
    assert State.of(repo) == before
    assert repo.git("status", "--porcelain") == ""
