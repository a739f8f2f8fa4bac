"""Clearing what a killed theta left: git's lock files, index copies, temporaries, half a merge.

A command writes down when it began and by which token its children are known.  Who finds that
journal, holding the lock, knows that its writer is dead; a git that it had started may still run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from theta import _fs, _notes
from theta.errors import BusyError, ThetaError
from theta.git import processes
from theta.git.repository import Repository
from theta.git.state_files import AUTO_MERGE, MERGE_HEAD, MERGE_MODE, MERGE_MSG
from theta.porcelain.workspace import rollback

JOURNAL: Final = "journal"
DRIVING: Final = "driving-"
PARKED: Final = MERGE_HEAD
"""The MERGE_HEAD of a merge that git is asked to commit, until git has begun (:mod:`concluding`)."""
USERS: Final = "users"
"""Every changing command of any worktree holds this lock together with others."""
_SHARED: Final = ("packed-refs.lock", "config.lock", "shallow.lock")


def heal(repo: Repository) -> None:
    """Clear what dead commands left; runs under the lock of this worktree."""
    dead = list(_dead(repo))
    for _, note in dead:
        _wait_for(note["token"])
    for place in _places(repo):
        _remove_temporaries(place)
    for journal, note in dead:
        _unlock(repo, note["started"])
        _put_back(repo, note.get("applying"))
        if isinstance(moving := note.get("moving"), dict):
            rollback.roll_back(repo, moving)
        _take_out(repo, note.get("applying"))
        _end_merge(repo)
        _notes.drop(journal)


def notes(repo: Repository) -> list[Path]:
    """The journals of commands that run or are dead."""
    journal = repo.private / JOURNAL
    return [*([journal] if journal.exists() else []), *repo.private.glob(f"{DRIVING}*")]


def _dead(repo: Repository) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The journals of dead commands with what they say; one that cannot be read goes."""
    for journal in notes(repo):
        note = _read(journal)
        if note is None:
            _notes.drop(journal)
        elif journal.name == JOURNAL or not processes.is_alive(str(note.get("owner", ""))):
            yield journal, note


def give_up(repo: Repository, journal: Path) -> None:
    """Leave nothing half done when a command fails: a full disk, say, in the middle of a merge."""
    with contextlib.suppress(ThetaError):
        note = _read(journal)
        done = note is None or _take_out(repo, note.get("applying"))
        if done and journal.exists():
            _notes.drop(journal)


def _places(repo: Repository) -> list[Path]:
    """Where temporaries may be."""
    found = [
        repo.private,
        repo.shared,
        repo.private / "tmp",
        repo.commondir / "objects" / "pack",
        repo.gitdir,
    ]
    found += [repo.shared / "staged", repo.commondir / "hooks", repo.commondir / "info", repo.gitdir / "info"]
    return [*found, repo.worktree] if not repo.is_bare else found


def _read(journal: Path) -> dict[str, Any] | None:
    try:
        note = _notes.read_json(journal)
        return {**note, "token": str(note["token"]), "started": float(note["started"])}
    except (ValueError, KeyError, TypeError):
        return None


def _unlock(repo: Repository, started: float) -> None:
    """Remove the lock files of a dead git; those that worktrees share only if no other theta runs."""
    for stale in [*repo.gitdir.glob("*.lock"), *repo.gitdir.glob("index.stash.*")]:
        if stale.name not in _SHARED:
            _remove_stale(stale, started)
    try:
        alone = _notes.lock(repo.shared / USERS, patience=0)
    except BusyError:
        return
    try:
        for stale in [
            *(repo.commondir / "refs").rglob("*.lock"),
            *(repo.commondir / name for name in _SHARED),
        ]:
            _remove_stale(stale, started)
    finally:
        alone.release()


def _put_back(repo: Repository, applying: object) -> None:
    """Let a merge be under way again whose commit was killed before git had begun with it."""
    parked, head = repo.private / PARKED, repo.gitdir / MERGE_HEAD
    if not isinstance(applying, dict) or not parked.exists():
        return
    if repo.head() == applying.get("head") and not head.exists():
        _fs.rename(parked, head)
    _fs.remove(parked)


def _take_out(repo: Repository, applying: object) -> bool:
    """Undo a merge that is in the index while git does not know of it; False where it is still there."""
    if not isinstance(applying, dict):
        return True
    return rollback.take_out(repo, str(applying.get("head")), str(applying.get("tree")))


def _end_merge(repo: Repository) -> None:
    """Forget a merge that HEAD has already: git was killed between its last two steps."""
    place, head = repo.gitdir / MERGE_HEAD, repo.head()
    if head is None or not place.exists():
        return
    parents = repo.git().run("rev-list", "--parents", "-n1", head).text.split()[1:]
    if set(repo.merge_heads()) <= set(parents):
        for name in (MERGE_HEAD, MERGE_MODE, MERGE_MSG, AUTO_MERGE):
            _fs.remove(repo.gitdir / name)


def _remove_temporaries(place: Path) -> None:
    """Remove the temporaries of dead processes: their names tell whose they were."""
    for path in place.glob(f"{_fs.TEMPORARY}*"):
        pid = path.name.removeprefix(_fs.TEMPORARY).partition("_")[0]
        if pid.isdigit() and not processes.exists(int(pid)) and path.is_file():
            _fs.remove(path)


def _wait_for(token: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while children := processes.children_of(token):
        if time.monotonic() > deadline:
            raise BusyError(f"git (process {children[0]}) of an earlier theta command is still running")
        time.sleep(0.05)


def _remove_stale(lock: Path, started: float) -> None:
    if _is_late(lock, started):
        _fs.remove(lock)


def _is_late(lock: Path, started: float) -> bool:
    """Whether ``lock`` is there and was made since ``started``."""
    try:
        return os.stat(lock).st_mtime >= started - 2
    except FileNotFoundError:
        return False
