"""Checking the disk space for the checkpoints that a git command writes, before git runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from theta import _room
from theta.errors import MissingObjectsError
from theta.git.attributes import only_tracked
from theta.porcelain.drive.incoming import TreeChange
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session


def check(session: Session, steps: Sequence[TreeChange]) -> None:
    """Raise :class:`NoSpaceError` if the checkpoints of one of ``steps`` do not fit on the disk."""
    coming = [dict(step.written()) for step in steps if not step.guessed]
    tracked = set(only_tracked(session.repo, {path for files in coming for path in files}))
    sizes = {path: _size(session, path) for path in tracked}
    session.repo.promised.expect(files[path] for files in coming for path in tracked & files.keys())
    for files in coming:
        new = {path: oid for path, oid in sorted(files.items()) if path in tracked}
        wanted = _peak((_bytes(session, path, oid), sizes[path]) for path, oid in new.items())
        _room.require(session.repo.worktree, wanted, hint="make room; nothing was changed")


def _peak(files: Iterable[tuple[int, int]]) -> int:
    """Return the peak of bytes for files (new size, old size) that are replaced one after the other.

    Each new file is complete before the old one is deleted.
    """
    taken = most = 0
    for new, old in files:
        if new:
            most = max(most, taken + new)
            taken += new - old
    return most


def _bytes(session: Session, path: str, oid: str) -> int:
    """Return the bytes to write for manifest ``oid``; 0 if the file exists or objects are missing."""
    if worktree.known_stat(session, path, oid) is not None:
        return 0
    try:
        manifest = session.manifest_or_none(oid)
    except MissingObjectsError:
        return 0
    return manifest.nbytes if manifest else 0


def _size(session: Session, path: str) -> int:
    try:
        return os.lstat(session.repo.worktree / path).st_size
    except OSError:
        return 0
