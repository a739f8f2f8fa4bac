"""Untracked files that git would overwrite: git's own check is switched on where any is at stake.

In a sparse checkout git only warns before it overwrites an untracked file (unpack-trees.c,
WARNING_SPARSE_ORPHANED_NOT_OVERWRITTEN), and ``.theta/`` makes every clone with a checkpoint one.
With :data:`CHECKED` git checks as in any other clone and refuses in its own words, but writes what
changed below ``.theta/`` into the worktree too.  So theta looks first whether an untracked file
stands at a path that git may write, on the way to it, or below it.  What git may write is taken
too large rather than too small: git has the last word.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from theta.errors import DamagedRepositoryError, RefusedError
from theta.git import options as command_lines
from theta.git.attributes import only_tracked
from theta.git.repository import STORES
from theta.porcelain.drive import disk_room
from theta.porcelain.drive.incoming import TreeChange, changes, command, has
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.workspace.session import Session

CHECKED: Final = ("-c", "core.sparseCheckout=false")
"""Options of a git that shall check untracked files in a sparse checkout too."""

_FORCE: Final = ("-f", "--force", "--discard-changes", "--hard")
_DO: Final = {"checkout": "switch branches", "switch": "switch branches"}
_AT_ONCE: Final = 500
"""Paths in one command line."""


def options(session: Session, args: Sequence[str]) -> tuple[str, ...]:
    """The options that ``git ARGS`` needs so that nothing untracked is lost.

    Raises :class:`RefusedError` where an ignored checkpoint would be: git overwrites ignored files.
    """
    return checked(session, changes(session.repo, args), args)


def checked(session: Session, coming: Iterable[TreeChange], args: Sequence[str]) -> tuple[str, ...]:
    """As :func:`options`, for ``git ARGS`` that makes the changes ``coming``.

    Raises :class:`NoSpaceError` where their checkpoints do not fit on the disk.
    """
    steps = list(coming)
    try:
        if any(STORES in step.after for step in steps):
            sparse_patterns.require(session.repo)
        standing = _standing(session, steps)
    except (KeyError, DamagedRepositoryError):  # a tree that is not here yet: git fetches it, and checks
        return CHECKED
    if session.repo.head():
        disk_room.check(session, steps)
    if standing and not ("--" in args or has(session.repo, args, *_FORCE)):
        asked = _standing(session, [step for step in steps if not step.guessed])
        _refuse_ignored(session, asked, command(args))
    return CHECKED if _others(session, standing) or _elsewhere(session, steps, args) else ()


def in_the_way(session: Session, args: Sequence[str]) -> bool:
    """Whether an untracked file that git does not ignore is in the way of ``git ARGS``."""
    steps = changes(session.repo, args)
    return bool(_others(session, _standing(session, steps))) or _elsewhere(session, steps, args)


def _elsewhere(session: Session, steps: Iterable[TreeChange], args: Sequence[str]) -> bool:
    """Whether git may write where ``steps`` do not tell, and anything untracked is there at all.

    It follows renamed folders, and a patch for ``git am`` may come from anywhere.
    """
    head = session.repo.head()
    tree = session.repo.tree_of(head) if head else None
    untold = tree is not None and any(step.may_move(tree) for step in steps)
    return (untold or command(args) == "am") and bool(_others(session, [""]))


def _standing(session: Session, steps: Iterable[TreeChange]) -> list[str]:
    """What stands in the worktree where ``steps`` write, or on the way, and is not a tracked file."""
    found = obstacles(session.repo.worktree, {path for step in steps for path, _ in step.written()})
    if not found:
        return []
    return sorted(found.difference(entry.path for entry in session.repo.entries()))


def obstacles(root: Path, paths: Iterable[str]) -> set[str]:
    """The files and folders that stand at ``paths``, and the files that stand on the way to them."""
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
    """The untracked files at and below ``standing``; with ``-i`` those that are ignored."""
    magic = ":(top,literal,icase)" if session.repo.config.flag("core.ignorecase") else ":(top,literal)"
    found: list[str] = []
    for start in range(0, len(standing), _AT_ONCE):
        specs = [magic + path for path in standing[start : start + _AT_ONCE]]
        found += session.repo.git().lines("ls-files", "-o", "-z", *kind, "--exclude-standard", "--", *specs)
    return found


def fetch(session: Session, args: Sequence[str]) -> None:
    """Fetch what ``git pull ARGS`` will, so that it can be looked at; git pull tells what goes wrong."""
    remote = command_lines.read(session.repo.git(), "pull", args).words
    session.repo.git().in_directory(session.cwd).show("fetch", *remote)
