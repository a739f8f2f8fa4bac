"""The conditions for letting git write to the worktree: no untracked file is lost, and the disk has room.

In a sparse checkout git only warns before it overwrites an untracked file (unpack-trees.c,
WARNING_SPARSE_ORPHANED_NOT_OVERWRITTEN), and every clone with a checkpoint is one because of ``.theta/``.
With :data:`CHECKED` git checks as in any other clone and refuses with its own message, but also writes
changed files below ``.theta/`` to the worktree.  So the option is given only if an untracked file is at,
above or below a path that git may write.  The set of these paths may be too large: git decides.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from theta import _room
from theta.errors import DamagedRepositoryError, MissingObjectsError, RefusedError
from theta.git import options as command_lines
from theta.git.attributes import only_tracked
from theta.git.repository import STORES
from theta.porcelain.drive.incoming import TreeChange, changes, command, has
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session

CHECKED: Final = ("-c", "core.sparseCheckout=false")
"""Options with which git also checks untracked files in a sparse checkout."""

_FORCE: Final = ("-f", "--force", "--discard-changes", "--hard")
_DO: Final = {"checkout": "switch branches", "switch": "switch branches"}
_AT_ONCE: Final = 500
"""The largest number of paths in one command line."""


def options(session: Session, args: Sequence[str]) -> tuple[str, ...]:
    """Return the options that ``git ARGS`` needs so that no untracked file is lost.

    Raises :class:`RefusedError` if an ignored checkpoint would be lost: git overwrites ignored files.
    """
    return checked(session, changes(session.repo, args), args)


def checked(session: Session, coming: Iterable[TreeChange], args: Sequence[str]) -> tuple[str, ...]:
    """Like :func:`options`, for ``git ARGS`` that makes the changes ``coming``.

    Raises :class:`NoSpaceError` if their checkpoints do not fit on the disk.
    """
    steps = list(coming)
    try:
        if any(STORES in step.after for step in steps):
            sparse_patterns.require(session.repo)
        standing = _standing(session, steps)
    except (MissingObjectsError, DamagedRepositoryError):  # a missing tree: git fetches it, and checks
        return CHECKED
    if session.repo.head():
        _check_room(session, steps)
    if standing and not ("--" in args or has(session.repo, args, *_FORCE)):
        asked = _standing(session, [step for step in steps if not step.guessed])
        _refuse_ignored(session, asked, command(args))
    return CHECKED if _others(session, standing) or _elsewhere(session, steps, args) else ()


def in_the_way(session: Session, args: Sequence[str]) -> bool:
    """Return whether an untracked, not ignored file is in the way of ``git ARGS``."""
    steps = changes(session.repo, args)
    return bool(_others(session, _standing(session, steps))) or _elsewhere(session, steps, args)


def _elsewhere(session: Session, steps: Iterable[TreeChange], args: Sequence[str]) -> bool:
    """Return whether git may write at paths not in ``steps``, and there are untracked files.

    Git follows renamed directories, and ``git am`` applies any patch.
    """
    head = session.repo.head()
    tree = session.repo.tree_of(head) if head else None
    untold = tree is not None and any(step.may_move(tree) for step in steps)
    return (untold or command(args) == "am") and bool(_others(session, [""]))


def _standing(session: Session, steps: Iterable[TreeChange]) -> list[str]:
    """Return what exists at or above the paths that ``steps`` write and is not a tracked file."""
    found = obstacles(session.repo.worktree, {path for step in steps for path, _ in step.written()})
    if not found:
        return []
    return sorted(found.difference(entry.path for entry in session.repo.entries()))


def obstacles(root: Path, paths: Iterable[str]) -> set[str]:
    """Return the files and directories that exist at ``paths``, and the files at their parents."""
    modes: dict[str, int] = {}
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            place = "/".join(parts[:end])
            if place not in modes:
                modes[place] = _mode(root / place)
            if modes[place] and (end == len(parts) or not stat.S_ISDIR(modes[place])):
                found.add(place)
            if not stat.S_ISDIR(modes[place]):
                break
    return found


def _mode(place: Path) -> int:
    try:
        return os.lstat(place).st_mode
    except OSError:
        return 0


def _refuse_ignored(session: Session, standing: Sequence[str], action: str) -> None:
    lost = only_tracked(session.repo, _others(session, standing, "-i"))
    if lost:
        before = _DO.get(action, action)
        listed = "".join(f"\n\t{path}" for path in sorted(lost))
        raise RefusedError(
            f"The following ignored checkpoints would be overwritten by {action}:{listed}\n"
            f"Please move or remove them before you {before}.\nAborting"
        )


def _others(session: Session, standing: Sequence[str], *kind: str) -> list[str]:
    """Return the untracked files at and below ``standing``; with ``-i`` the ignored ones."""
    magic = ":(top,literal,icase)" if session.repo.config.flag("core.ignorecase") else ":(top,literal)"
    found: list[str] = []
    for start in range(0, len(standing), _AT_ONCE):
        specs = [magic + path for path in standing[start : start + _AT_ONCE]]
        found += session.repo.git().lines("ls-files", "-o", "-z", *kind, "--exclude-standard", "--", *specs)
    return found


def fetch(session: Session, args: Sequence[str]) -> None:
    """Fetch what ``git pull ARGS`` would, for the checks; errors are left to ``git pull``."""
    remote = command_lines.read(session.repo.git(), "pull", args).words
    session.repo.git().in_directory(session.cwd).show("fetch", "--", *remote)


# -- space on the disk -------------------------------------------------------------------


def _check_room(session: Session, steps: Sequence[TreeChange]) -> None:
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
