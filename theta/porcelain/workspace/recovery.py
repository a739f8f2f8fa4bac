"""Cleaning up after a killed theta: git's lock files, index copies, temporaries, half a merge.

The journal of a command has the time it started and the token of its child processes.  A process that
holds the lock and finds a journal knows that its writer is dead; a git started by it may still run.
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
from theta.git import processes, state_files
from theta.git.repository import Repository
from theta.porcelain.workspace import rollback

JOURNAL: Final = "journal"
DRIVING: Final = "driving-"
USERS: Final = "users"
"""A shared lock that every changing command of any worktree holds."""
_LOCKS: Final = (
    *("*.lock", "logs/*.lock", "index.stash.*"),
    *(f"{name}/*.lock" for name in state_files.FOLDERS),
)
"""Locks of one worktree, and the temporary indexes of a stash."""
_SHARED: Final = ("packed-refs.lock", "config.lock", "shallow.lock")


def heal(repo: Repository) -> None:
    """Undo dead commands; the caller holds the lock of this worktree.

    Raises :class:`NoSpaceError` on a full disk.  A journal stays until its command is undone.
    """
    dead = list(_dead(repo))
    for _, note in dead:
        _wait_for(note["token"])
    for temporary in [path for place in _places(repo) for path in _temporaries(place)]:
        _fs.remove(temporary)
    for journal, note in dead:
        unlock(repo, note["started"])
        rollback.undo(repo, note)
        _notes.drop(journal)


def is_needed(repo: Repository) -> bool:
    """Return whether a dead command may have left something.

    A command that was killed as it wrote its journal has left only the temporary file of it.
    """
    return bool(notes(repo)) or any(True for place in _own_places(repo) for _ in _temporaries(place))


def notes(repo: Repository) -> list[Path]:
    """Return the journals of running and dead commands."""
    journal = repo.private / JOURNAL
    return [*([journal] if journal.exists() else []), *repo.private.glob(f"{DRIVING}*")]


def _dead(repo: Repository) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the journals of dead commands and their content; delete those that cannot be read."""
    for journal in notes(repo):
        note = read(journal)
        if note is None:
            _notes.drop(journal)
        elif journal.name == JOURNAL or not processes.is_alive(str(note.get("owner", ""))):
            yield journal, note


def give_up(repo: Repository, journal: Path, *, killed: bool = False) -> None:
    """Undo a command that failed, of a full disk during a merge for example, or of a ``killed`` git."""
    with contextlib.suppress(ThetaError):
        if (note := read(journal)) is not None:
            if killed:
                unlock(repo, note["started"])
            rollback.undo(repo, note)
        if journal.exists():
            _notes.drop(journal)


def _places(repo: Repository) -> list[Path]:
    """Return the directories that may contain temporary files."""
    found = [*_own_places(repo), repo.private / "bin", repo.commondir / "objects" / "pack", repo.gitdir]
    found += [repo.commondir / "hooks", repo.commondir / "info", repo.gitdir / "info"]
    return [*found, repo.worktree] if not repo.is_bare else found


def _own_places(repo: Repository) -> list[Path]:
    """Return those of them in which theta keeps its notes and drafts."""
    return [repo.private, repo.shared, repo.private / "tmp", repo.shared / "staged"]


def read(journal: Path) -> dict[str, Any] | None:
    """Return the content of ``journal``; None when it cannot be read."""
    try:
        note = _notes.read_json(journal)
        return {**note, "token": str(note["token"]), "started": float(note["started"])}
    except (ValueError, KeyError, TypeError):
        return None


def unlock(repo: Repository, started: float) -> None:
    """Remove the lock files of a dead git; those shared by worktrees only if no other theta runs."""
    for stale in (path for pattern in _LOCKS for path in repo.gitdir.glob(pattern)):
        if stale.name not in _SHARED:
            _remove_stale(stale, started)
    try:
        alone = _notes.lock(repo.shared / USERS, patience=0)
    except BusyError:
        return
    try:
        for stale in [
            *(repo.commondir / "refs").rglob("*.lock"),
            *(repo.commondir / "logs").rglob("*.lock"),
            *(repo.commondir / name for name in _SHARED),
        ]:
            _remove_stale(stale, started)
    finally:
        alone.release()


def _temporaries(place: Path) -> Iterator[Path]:
    """Yield the temporary files of dead processes, whose ids are in their names."""
    for path in place.glob(f"{_fs.TEMPORARY}*"):
        pid = path.name.removeprefix(_fs.TEMPORARY).partition("_")[0]
        if pid.isdigit() and not processes.exists(int(pid)) and path.is_file():
            yield path


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
    """Return whether ``lock`` exists and was created after ``started``."""
    try:
        return os.stat(lock).st_mtime >= started - 2
    except FileNotFoundError:
        return False
