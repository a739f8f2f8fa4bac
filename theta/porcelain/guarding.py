"""Files that a checkout must not overwrite."""

from __future__ import annotations

from typing import Final

from theta.errors import NotFoundError, WouldOverwriteError
from theta.porcelain.session import Session

_FORCE: Final = {"-f", "--force", "--discard-changes", "-B", "--orphan"}
_TAKES_NAME: Final = {"-b", "-c", "-C", "--create", "--force-create"}


def refuse_untracked(session: Session, revision: str, action: str) -> None:
    """Raise :class:`WouldOverwriteError` if an untracked file is where ``revision`` has one.

    git 2.39 checks that itself, but in a sparse checkout it only warns and overwrites
    (unpack-trees.c, WARNING_SPARSE_ORPHANED_NOT_OVERWRITTEN).
    """
    untracked = set(session.repo.git().lines("ls-files", "-o", "-z", "--exclude-standard", "--", ":(top)"))
    if not untracked:
        return
    lost = sorted(
        path for path, _ in session.repo.walk_blobs(session.repo.tree_of(revision)) if path in untracked
    )
    if lost:
        raise WouldOverwriteError(
            f"the untracked {', '.join(lost[:5])} would be overwritten by {action}",
            hint="move or remove it, or add it first",
        )


def target(session: Session, args: list[str]) -> str | None:
    """The commit that ``git switch ARGS`` or ``git checkout ARGS`` goes to; none for paths or force."""
    if _FORCE & set(args) or "--" in args:
        return None
    names, skip = [], False
    for arg in args:
        if not (skip or arg.startswith("-")) or arg == "-":
            names.append("@{-1}" if arg == "-" else arg)
        skip = arg in _TAKES_NAME
    if len(names) != 1:
        return None
    try:
        return session.repo.resolve(f"{names[0]}^{{commit}}")
    except NotFoundError:
        return None
