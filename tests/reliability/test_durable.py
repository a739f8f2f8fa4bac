"""A2: no ref is made durable before what it needs.

The recorded writes, syncs and renames of a command are replayed: a file must be synced before it gets
its name, and a ref may get its name only when every object that it newly reaches has one.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.reliability.harness import FILE, write
from tests.reliability.tracing import Event, trace
from tests.support import Repo

_REF = re.compile(r"/(refs/(heads|tags|remotes)/.+|packed-refs|HEAD)$")
_SYMBOLIC = "ref: "  # git has no way to sync a symbolic HEAD; its commit is synced long before
_OBJECT = re.compile(r"/objects/(pack/pack-\w+\.(pack|idx)|\w\w/\w{38})$")
_ID = re.compile(r"\b[0-9a-f]{40}\b")


def objects(gitdir: Path) -> dict[str, str]:
    """Object id -> the file that holds it."""
    found = {}
    for path in (gitdir / "objects").rglob("*"):
        if _OBJECT.search(str(path)) and path.suffix == "":
            found[path.parent.name + path.name] = str(path)
        elif path.suffix == ".idx":
            with path.open("rb") as index:
                rows = subprocess.run(
                    ["git", "show-index"], stdin=index, capture_output=True, text=True, check=True
                )
            found |= {row.split()[1]: str(path) for row in rows.stdout.splitlines()}
    return found


def replay(events: list[Event], gitdir: Path, known: set[str]) -> int:
    """Check ``events`` against what lies in ``gitdir``; ``known``: the objects from before.

    Returns how many times a ref was given a name.
    """
    place = objects(gitdir)
    dirty: set[str] = set()
    named: set[str] = set()
    pending: set[str] = set()  # directories in which theta named a file
    text: dict[str, str] = {}
    refs = 0
    for event in events:
        if event.what == "write":
            dirty.add(event.path)
            text[event.path] = event.text
        elif event.what == "sync":
            dirty.discard(event.path)
            pending.discard(event.path)
        elif event.what == "name" and event.path.startswith(f"{gitdir}/"):
            content = text.pop(event.source, "")
            text[event.path] = content
            if event.source in dirty:
                dirty.discard(event.source)
                dirty.add(event.path)
            is_ref = _REF.search(event.path) and not content.startswith(_SYMBOLIC)
            if _OBJECT.search(event.path) or is_ref:
                assert event.path not in dirty, f"{event.path} got its name before it was synced"
            if "tmp_theta" in event.source and "/objects/" in event.path:
                pending.add(str(Path(event.path).parent))
            if is_ref:
                refs += 1
                assert not pending, f"{event.path} is named and {pending} not synced"
                for tip in _ID.findall(content):
                    needs(gitdir, tip, event.path, known, named, place)
            named.add(event.path)
    return refs


def needs(gitdir: Path, tip: str, ref: str, known: set[str], named: set[str], place: dict[str, str]) -> None:
    """Assert that all objects of commit ``tip`` were there before ``ref`` was."""
    command = ["git", "--git-dir", str(gitdir), "rev-list", "--objects", tip, "--"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for oid in {row.split()[0] for row in done.stdout.splitlines()} - known:
        assert place[oid] in named, f"{ref} names {tip}, which needs {oid}: not there yet"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Main and other diverged, beside a remote that has what they start from."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    write(repo, {})
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base")
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    repo.theta("push", "-q", "-u", "origin", "main")
    repo.theta("switch", "-q", "-c", "other")
    write(repo, {"layers.0.w": 1})
    repo.theta("commit", "-q", "-a", "-m", "other")
    repo.theta("switch", "-q", "main")
    write(repo, {"layers.1.w": 2})
    return repo


def run(repo: Repo, *command: str, gitdir: Path | None = None) -> int:
    """Trace ``command`` and replay what it did to ``gitdir`` (the repository's own)."""
    gitdir = gitdir or repo.path / ".git"
    known = set(objects(gitdir))
    return replay(trace(repo, repo.path.parent, *command), gitdir, known)


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a2_a_commit_is_durable(repo: Repo, program: str) -> None:
    assert run(repo, program, "commit", "-q", "-a", "-m", "two") == 1


def test_a2_merge_push_and_gc_are_durable(repo: Repo) -> None:
    repo.theta("commit", "-q", "-a", "-m", "two")
    assert run(repo, "theta", "merge", "-q", "other") == 1
    remote = repo.path.parent / "remote.git"
    assert run(repo, "theta", "push", "-q", "origin", "main", gitdir=remote) == 1
    refs = repo.git("rev-parse", "main", "other")
    before = trace(repo, repo.path.parent, "theta", "gc", "--prune=now", "--quiet")
    assert removed_last(before)
    assert replay(before, repo.path / ".git", set()) >= 0
    assert repo.git("rev-parse", "main", "other") == refs


def test_a2_rebase_and_fetch_are_durable(repo: Repo, tmp_path: Path) -> None:
    clone = repo.clone(tmp_path / "clone")
    repo.theta("commit", "-q", "-a", "-m", "two")
    assert run(repo, "theta", "rebase", "-q", "other") >= 1
    repo.theta("push", "-q", "origin", "main")
    clone.git("remote", "set-url", "origin", str(tmp_path / "remote.git"))
    assert run(clone, "theta", "fetch", "-q") == 1


@pytest.mark.parametrize("words", [(), ("-q", "0"), ("--index", "stash@{0}")])
def test_a2_an_entry_of_the_stash_goes_when_its_files_are_durable(repo: Repo, words: tuple[str, ...]) -> None:
    (repo.path / "code.py").unlink()
    repo.write("folder/new.py", "print('new')\n")
    repo.theta("stash", "-q", "--include-untracked")
    events = trace(repo, repo.path.parent, "theta", "stash", "pop", *words)
    gone = next(n for n, e in enumerate(events) if e.what == "unlink" and e.path.endswith("/refs/stash"))
    synced = {event.path for event in events[:gone] if event.what == "sync"}
    assert {str(repo.path / name) for name in (FILE, "folder/new.py", "folder", "")} <= synced
    assert repo.git("stash", "list") == ""


KILLED_IN_THE_END = """
import os, signal
from theta.porcelain.drive import running
run = running.run
def dying(git, *args, **options):
    done = run(git, *args, **options)
    if {"drop", "pop"} & {*args}:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
running.run = dying
"""
"""Run before ``theta stash pop``: theta is killed when git has removed the entry."""


def test_what_came_from_the_stash_stays_when_theta_is_killed_then(repo: Repo) -> None:
    repo.write("code.py", "print('stashed')\n")
    repo.theta("stash", "-q")
    repo.theta("stash", "pop", env={"THETA_TEST_FIRST": KILLED_IN_THE_END}, code=-9)
    repo.theta("status")
    assert repo.git("stash", "list") == ""
    assert (repo.path / "code.py").read_text() == "print('stashed')\n"


def removed_last(events: list[Event]) -> bool:
    """Return whether old objects and refs are removed only when the new ones have their names."""
    names = [n for n, e in enumerate(events) if e.what == "name" and _OBJECT.search(e.path)]
    gone = [n for n, e in enumerate(events) if e.what == "unlink" and _OBJECT.search("/" + e.path)]
    return not gone or max(names) < min(gone)


def test_the_check_can_fail(repo: Repo) -> None:
    repo.git("config", "core.fsync", "none")
    with pytest.raises(AssertionError, match="before it was synced"):
        run(repo, "git", "commit", "-q", "-a", "-m", "two")
