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
from theta.porcelain.workspace import rollback

JOURNAL: Final = "journal"
DRIVING: Final = "driving-"
USERS: Final = "users"
"""Every changing command of any worktree holds this lock together with others."""
_SHARED: Final = ("packed-refs.lock", "config.lock", "shallow.lock")


def heal(repo: Repository) -> None:
    """Clear what dead commands left; runs under the lock of this worktree.

    Raises :class:`NoSpaceError` on a full disk.  A journal stays until what it notes is undone.
    """
    dead = list(_dead(repo))
    for _, note in dead:
        _wait_for(note["token"])
    for place in _places(repo):
        _remove_temporaries(place)
    for journal, note in dead:
        unlock(repo, note["started"])
        rollback.undo(repo, note)
        _notes.drop(journal)


def notes(repo: Repository) -> list[Path]:
    """The journals of commands that run or are dead."""
    journal = repo.private / JOURNAL
    return [*([journal] if journal.exists() else []), *repo.private.glob(f"{DRIVING}*")]


def _dead(repo: Repository) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The journals of dead commands with what they say; one that cannot be read goes."""
    for journal in notes(repo):
        note = read(journal)
        if note is None:
            _notes.drop(journal)
        elif journal.name == JOURNAL or not processes.is_alive(str(note.get("owner", ""))):
            yield journal, note


def give_up(repo: Repository, journal: Path) -> None:
    """Leave nothing half done when a command fails: a full disk, say, in the middle of a merge."""
    with contextlib.suppress(ThetaError):
        if (note := read(journal)) is not None:
            rollback.undo(repo, note)
        if journal.exists():
            _notes.drop(journal)


def _places(repo: Repository) -> list[Path]:
    """Where temporaries may be."""
    found = [
        repo.private,
        repo.shared,
        repo.private / "tmp",
        repo.private / "bin",
        repo.commondir / "objects" / "pack",
        repo.gitdir,
    ]
    found += [repo.shared / "staged", repo.commondir / "hooks", repo.commondir / "info", repo.gitdir / "info"]
    return [*found, repo.worktree] if not repo.is_bare else found


def read(journal: Path) -> dict[str, Any] | None:
    """What ``journal`` says; None where it cannot be read."""
    try:
        note = _notes.read_json(journal)
        return {**note, "token": str(note["token"]), "started": float(note["started"])}
    except (ValueError, KeyError, TypeError):
        return None


def unlock(repo: Repository, started: float) -> None:
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
