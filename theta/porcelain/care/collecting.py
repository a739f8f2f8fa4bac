"""``theta gc``: remove what nothing needs any more, and tell what that freed.

git keeps objects that nothing names for two weeks, which protects writers that are about to name them.  With
``--prune=now`` it does not: then no other theta may be at work in any worktree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import BusyError, NoSpaceError, ThetaError
from theta.git import processes
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.git.run import GitFailedError, Result
from theta.porcelain.care import costs
from theta.porcelain.workspace import abandoned
from theta.porcelain.workspace.session import Session
from theta.store import held_packs
from theta.store.odb import pack_keeps, stored_marks

_AT_ONCE: Final = ("now", "all")
_PRUNE: Final = "--prune"
_SHORTEST: Final = len("--p")
_JOURNALS: Final = (
    "theta/journal",
    "theta/driving-*",
    "worktrees/*/theta/journal",
    "worktrees/*/theta/driving-*",
)


_FULL: Final = b"No space left on device"


@dataclass(frozen=True)
class Collected:
    """Bytes of the files of all objects, before and after."""

    before: int
    after: int


def collect(session: Session, args: Sequence[str]) -> Collected:
    """Remove what git's clean filter left and nothing names, then run ``git gc ARGS``.

    Raises :class:`BusyError` if objects that nothing names are to go at once and another theta is at work.
    """
    repo = session.repo
    at_once = _is_at_once(repo, args)
    with session.journal.exclusive(alone=at_once):
        if at_once and _is_busy(repo):
            raise BusyError("another theta is at work here", hint="wait for it, or leave out --prune=now")
        before = _bytes(repo)
        stored_marks.forget(repo, age=0 if at_once else stored_marks.LAPSE)
        pack_keeps.remove_stale(session.objects.directory)
        held_packs.sweep(repo)
        abandoned.remove()
        done = repo.git().run("gc", "--quiet", *args, check=False)
        if at_once and _FULL in done.stderr and _fs.is_full(repo.commondir) and remove_packs(repo):
            done = repo.git().run("gc", "--quiet", *args, check=False)
        if done.code:
            raise _failed(repo, done, at_once)
        repo.again().write_staged_trees()
    return Collected(before, _bytes(repo))


def remove_packs(repo: Repository) -> int:
    """Remove the packs of which no object is reachable, without writing anything; return how many.

    Git writes the objects that stay before it removes the others, for which a full disk has no room.  In a
    partial clone, where what is reachable need not be here, none is removed.  Raises
    :class:`GitFailedError` if a reachable object is missing: what it names may be all that is left.
    """
    if repo.promised.is_partial:
        return 0
    reached = costs.reached(repo, may_lack=False)
    garbage = [
        index
        for index in sorted((repo.commondir / "objects" / "pack").glob("pack-*.idx"))
        if not index.with_suffix(".keep").exists() and reached.isdisjoint(_listed(repo, index))
    ]
    for index in garbage:
        for place in (index, *index.parent.glob(f"{index.stem}.*")):  # without its index nobody reads a pack
            _fs.remove(place)
    return len(garbage)


def _listed(repo: Repository, index: Path) -> list[str]:
    """Return the ids of the objects of a pack."""
    form = f"--object-format={repo.format.name}"
    rows = repo.git().run("show-index", form, stdin=index.read_bytes()).text
    return [row.split()[1] for row in split_lines(rows)]


def _failed(repo: Repository, done: Result, at_once: bool) -> ThetaError:
    error = GitFailedError("gc", done.code, done.stderr.decode("utf-8", "replace"))
    if not _fs.is_full(repo.commondir):
        return error
    more = "free some space and repeat the command"
    return NoSpaceError(
        str(error), hint=more if at_once else "'theta gc --prune=now' removes first what nothing names"
    )


def rehearse(session: Session) -> int:
    """Return the bytes of the objects that nothing names, of which git keeps the young ones for two weeks."""
    return costs.unreachable(session.repo)


def _is_at_once(repo: Repository, args: Sequence[str]) -> bool:
    """Return whether git's gc removes young objects too, as its last ``--prune=TIME`` or the setting says."""
    options = (arg.partition("=") for arg in args)
    times = [value for name, _, value in options if len(name) >= _SHORTEST and _PRUNE.startswith(name)]
    return (times[-1] if times else repo.config.get("gc.pruneexpire")) in _AT_ONCE


def _is_busy(repo: Repository) -> bool:
    """Return whether another living theta has a journal, in any worktree, or stored what is to be committed.

    The caller holds the lock of this worktree, so that its ``journal`` is the caller's.
    """
    places = {place for pattern in _JOURNALS for place in repo.commondir.glob(pattern)}
    return stored_marks.are_left(repo) or any(
        processes.is_alive(str(_notes.read_json(place).get("owner", "")), _notes.written(place))
        for place in places - {repo.private / "journal"}
    )


def _bytes(repo: Repository) -> int:
    folders = os.walk(repo.commondir / "objects")
    files = (Path(folder) / name for folder, _, names in folders for name in names)
    return sum(file.stat().st_size for file in files if file.exists())
