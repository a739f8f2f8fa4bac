"""Files that a checkout must not overwrite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from theta.errors import NotFoundError, WouldOverwriteError
from theta.porcelain.session import Session

_FORCE: Final = {"-f", "--force", "--discard-changes", "-B", "--orphan"}
_TAKES_NAME: Final = {"-b", "-c", "-C", "--create", "--force-create"}
_PULL_TAKES: Final = {
    *("-s", "--strategy", "-X", "--strategy-option", "--depth", "--deepen", "--shallow-since"),
    *("--shallow-exclude", "--upload-pack", "-o", "--server-option", "--refmap", "-j", "--jobs"),
}


def refuse_untracked(session: Session, revision: str, action: str) -> None:
    """Raise :class:`WouldOverwriteError` if an untracked file is where ``revision`` has one.

    git 2.39 checks that itself, but in a sparse checkout it only warns and overwrites
    (unpack-trees.c, WARNING_SPARSE_ORPHANED_NOT_OVERWRITTEN).
    """
    untracked = _untracked(session)
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


def _untracked(session: Session) -> set[str]:
    return set(session.repo.git().lines("ls-files", "-o", "-z", "--exclude-standard", "--", ":(top)"))


def refuse_incoming(session: Session, args: Sequence[str]) -> None:
    """:func:`refuse_untracked` for what ``git pull ARGS`` would merge; fetches it to look at it."""
    if not _untracked(session) or session.repo.git().in_directory(Path.cwd()).show("fetch", *_remote(args)):
        return  # nothing to lose, or a remote that git pull will complain about
    for line in (session.repo.gitdir / "FETCH_HEAD").read_text(errors="replace").splitlines():
        oid, kind, _ = line.split("\t", 2)
        if kind != "not-for-merge":
            refuse_untracked(session, oid, "pull")


def _remote(args: Sequence[str]) -> list[str]:
    """The remote and the refs among the arguments of ``git pull``."""
    pairs = zip(["", *args], args, strict=False)
    return [arg for before, arg in pairs if not arg.startswith("-") and before not in _PULL_TAKES]


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
