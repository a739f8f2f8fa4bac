"""Room on the disk for the checkpoints that a git command brings, looked at before git does anything."""

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
    """Raise :class:`NoSpaceError` where the checkpoints that one of ``steps`` brings do not fit."""
    coming = [dict(step.written()) for step in steps if not step.guessed]
    tracked = set(only_tracked(session.repo, {path for files in coming for path in files}))
    sizes = {path: _size(session, path) for path in tracked}
    session.repo.promised.expect(files[path] for files in coming for path in tracked & files.keys())
    for files in coming:
        new = {path: oid for path, oid in sorted(files.items()) if path in tracked}
        wanted = _peak((_bytes(session, path, oid), sizes[path]) for path, oid in new.items())
        _room.require(session.repo.worktree, wanted, hint="make room; nothing was changed")


def _peak(files: Iterable[tuple[int, int]]) -> int:
    """The bytes that files (new size, old size) need: each is written beside the old one, one by one."""
    taken = most = 0
    for new, old in files:
        if new:
            most = max(most, taken + new)
            taken += new - old
    return most


def _bytes(session: Session, path: str, oid: str) -> int:
    """The bytes to write for manifest ``oid``; none where the file is there, or its objects are not."""
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
