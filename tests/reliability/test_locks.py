"""F6 and E3: who waits for whom, and what dead commands leave."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, leftovers, write
from tests.support import Repo
from theta import _fs
from theta.errors import BusyError, NoSpaceError
from theta.git.backends.index import IndexEdit
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Session


def dead_pid() -> int:
    """The id of a process that was."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_f6_a_command_waits_a_little_for_another(repo: Repo) -> None:
    lock = _fs.Lock(repo.path / ".git" / "theta" / "lock")
    threading.Timer(0.4, lock.release).start()
    repo.theta("add", FILE)


def test_f6_and_then_says_so(repo: Repo) -> None:
    lock = _fs.Lock(repo.path / ".git" / "theta" / "lock")
    begun = time.monotonic()
    done = repo.theta("add", FILE, code=21)
    assert time.monotonic() - begun > 0.9
    assert "still running in this repository after 1 s" in done.stderr
    lock.release()


def test_f6_worktrees_do_not_exclude_each_other(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", str(tmp_path / "second"), "other")
    second = Repo(tmp_path / "second", repo.ticks)
    lock = _fs.Lock(repo.path / ".git" / "theta" / "lock")
    write(second, {"emb": 9})
    second.theta("commit", "-q", "-a", "-m", "in the second")
    lock.release()
    assert second.git("log", "-1", "--format=%s") == "in the second"


def test_f6_locks_of_a_dead_git_go_only_when_no_other_theta_runs(repo: Repo) -> None:
    private = repo.path / ".git" / "theta"
    shared = repo.path / ".git" / "refs" / "heads" / "main.lock"

    def die() -> None:
        note = {"token": "dead", "started": time.time() - 1, "owner": f"{dead_pid()} 1"}
        (private / "journal").write_text(json.dumps(note))
        (repo.path / ".git" / "index.lock").touch()
        shared.touch()

    die()
    other = _fs.Lock(private / "users", shared=True)
    repo.theta("add", FILE)
    assert shared.exists()
    other.release()
    repo.theta("add", FILE)
    assert not shared.exists()
    assert leftovers(repo) == []


@pytest.mark.parametrize("name", ["journal", "driving-dead"])
def test_e1_locks_beside_the_journal_of_another_machine_stay(repo: Repo, name: str) -> None:
    """A git of there, which may live, is not seen from here; git tells the path and what to do."""
    note = {"token": "dead", "started": time.time() - 100_000, "owner": "77 1 aaaaaaaa bbbbbbbb cccccccc"}
    (repo.path / ".git" / "theta" / name).write_text(json.dumps(note))
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    write(repo, {"emb": 9})
    told = repo.theta("add", FILE, code=None)
    assert lock.exists()
    assert told.returncode != 0
    assert "index.lock" in told.stderr
    lock.unlink()
    repo.theta("add", FILE)
    assert leftovers(repo) == []


def locks_after(repo: Repo, *, fails: bool) -> set[str]:
    """Let locks come up while a command is at work; return those that it leaves."""
    gitdir = repo.path / ".git"
    left = {name: gitdir / name for name in ("index.lock", "HEAD.lock", "refs/heads/main.lock")}
    with contextlib.suppress(BusyError), Session(Repository.discover(repo.path)).journal.exclusive():
        for place in left.values():
            place.touch()
        if fails:
            raise BusyError("another git process holds the index lock")
    found = {name for name, place in left.items() if place.exists()}
    for name in found:
        left[name].unlink()
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_e1_a_lock_whose_owner_nobody_knows_stays(repo: Repo, *, fails: bool) -> None:
    """A theta in a container saw no process of its host: it removed the lock of a commit in its editor."""
    assert len(locks_after(repo, fails=fails)) == 3


def test_e1_a_lock_that_is_older_than_the_command_stays(repo: Repo) -> None:
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 1, time.time() - 1))
    repo.theta("add", FILE, code=21)
    assert lock.exists()


def test_e1_a_dead_command_is_not_unlocked_while_a_git_is_at_work(repo: Repo) -> None:
    note = {"token": "dead", "started": time.time() - 1, "owner": f"{dead_pid()} 1"}
    (repo.path / ".git" / "theta" / "journal").write_text(json.dumps(note))
    (repo.path / ".git" / "index.lock").touch()
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.path, stdin=subprocess.PIPE) as living:
        repo.theta("add", FILE, code=21)
        assert living.stdin is not None
        living.stdin.close()
    assert (repo.path / ".git" / "index.lock").exists()
    repo.theta("add", FILE)
    assert leftovers(repo) == []


def test_e1_a_lock_that_came_after_a_dead_command_was_looked_at_stays(repo: Repo) -> None:
    note = {"token": "dead", "started": time.time() - 1, "owner": f"{dead_pid()} 1"}
    (repo.path / ".git" / "theta" / "journal").write_text(json.dumps(note))
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.path, stdin=subprocess.PIPE) as living:
        repo.theta("add", FILE, code=21)
        assert living.stdin is not None
        living.stdin.close()
    lock.unlink()
    lock.touch()
    repo.theta("add", FILE, code=21)
    assert lock.exists()


def test_e1_a_lock_goes_that_is_older_than_the_last_note_of_a_torn_journal(repo: Repo) -> None:
    """The power failed as a long merge, which had held the lock for minutes, wrote what it does next."""
    lock = repo.path / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 600, time.time() - 600))
    (repo.path / ".git" / "theta" / "journal").write_bytes(bytes(195))
    repo.theta("add", FILE)
    assert leftovers(repo) == []


def test_e3_half_a_pack_goes_that_is_older_than_the_last_note_of_a_torn_journal(repo: Repo) -> None:
    half = repo.path / ".git" / "objects" / "pack" / f"pack-{'7' * 40}.pack"
    half.write_bytes(b"PACK")
    os.utime(half, (time.time() - 600, time.time() - 600))
    (repo.path / ".git" / "theta" / "journal").write_bytes(bytes(195))
    repo.theta("add", FILE)
    assert not half.exists()


def test_e1_locks_go_where_theta_itself_asks_git(tmp_path: Path) -> None:
    """Libgit2 cannot open a repository of SHA-256: gits of this theta work there all the time."""
    repo = Repo(tmp_path / "of-sha256")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--object-format=sha256")
    repo.theta("track", "*.safetensors")
    write(repo, {"emb": 9})
    note = {"token": "dead", "started": time.time() - 1, "owner": f"{dead_pid()} 1"}
    (repo.path / ".git" / "theta" / "journal").write_text(json.dumps(note))
    (repo.path / ".git" / "index.lock").touch()
    repo.theta("add", FILE)
    assert leftovers(repo) == []


def test_e3_temporaries_of_the_dead_are_removed(repo: Repo) -> None:
    scratch = repo.path / ".git" / "theta" / "tmp"
    scratch.mkdir(exist_ok=True)
    for name in ("index", "index.lock", "favour_ours", "abcd"):
        (scratch / f"tmp_theta_{dead_pid()}_{_fs.machine()}_{name}").touch()
    repo.theta("add", FILE)
    assert leftovers(repo) == []


@pytest.mark.parametrize("tag", ["0123abcd_", ""])
def test_temporaries_of_other_machines_stay_for_a_day(repo: Repo, tag: str) -> None:
    """Processes of several machines may write to one repository; the ids of one say nothing on another."""
    packs, now = repo.path / ".git" / "objects" / "pack", time.time()
    for name, age in (("new", 80_000), ("old", 90_000)):
        place = packs / f"tmp_theta_{dead_pid()}_{tag}{name}"
        place.touch()
        os.utime(place, (now - age, now - age))
    repo.theta("add", FILE)
    assert [path.name.rpartition("_")[2] for path in packs.glob("tmp_theta_*")] == ["new"]


def test_e3_a_full_disk_leaves_no_copy_of_the_index(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise NoSpaceError("no space")

    monkeypatch.setattr(_fs, "copy", full)
    with pytest.raises(NoSpaceError), IndexEdit(repo.path / ".git" / "index", tmp_path / "scratch"):
        pass
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (repo.path / ".git" / "index.lock").exists()


def test_a_lock_excludes(tmp_path: Path) -> None:
    one = _fs.Lock(tmp_path / "lock", shared=True)
    two = _fs.Lock(tmp_path / "lock", shared=True)
    with pytest.raises(BusyError):
        _fs.Lock(tmp_path / "lock", patience=0)
    one.release()
    two.release()
    _fs.Lock(tmp_path / "lock", patience=0).release()


def test_e1_a_second_merge_says_how_to_go_on(repo: Repo) -> None:
    repo.theta("merge", "--no-commit", "other")
    done = repo.theta("merge", "other", code=128)
    assert (
        "You have not concluded your merge (MERGE_HEAD exists): nothing in it is in conflict." in done.stderr
    )
    assert "'theta merge --continue' concludes it" in done.stderr
    repo.theta("merge", "--continue")
    assert repo.git("status", "--porcelain") == ""
