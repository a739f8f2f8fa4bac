"""``theta restore``: write checkpoints from the store to the worktree, and set index entries."""

from __future__ import annotations

from dataclasses import dataclass

from theta import _fs
from theta.errors import NotFoundError, ThetaError
from theta.git.attributes import only_tracked
from theta.git.backends.index_entries import Staged
from theta.git.object_values import MODE_BLOB
from theta.git.repository import STORES
from theta.git.run import Git
from theta.porcelain.workspace import closures, worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress


@dataclass(frozen=True)
class Wanted:
    """The requested version of a checkpoint; ``oid`` is None when that version has no such file."""

    oid: str | None
    mode: int
    error: ThetaError | None = None


def named(git: Git, paths: list[str], revision: str | None) -> set[str]:
    """Return the files that ``paths`` match in the index, and in ``revision`` if it is given."""
    if not paths:
        return set()
    names = set(git.lines("ls-files", "-z", "--full-name", "--", *paths))
    if revision is not None:
        names |= _in_revision(git, revision, paths)
    return {name for name in names if not name.startswith(STORES + "/")}


def select(
    session: Session, names: set[str], source: str | None, revision: str | None, *, side: int = 0
) -> dict[str, Wanted]:
    """Return path -> version of the checkpoints among ``names``, in the index or in ``revision``.

    ``source`` is the revision as the user spelled it; ``side`` is the stage for paths in conflict.
    """
    if not names:
        return {}
    tracked = only_tracked(session.repo, sorted(names))
    if revision is None:
        return _in_index(session, tracked, side)
    tree = session.repo.tree_of(revision) if session.repo.head() or source else None
    session.expect_trees([revision])
    found: dict[str, Wanted] = {}
    for path in tracked:
        entry = tree.get(path) if tree is not None else None
        if entry is None:
            found[path] = Wanted(None, MODE_BLOB)
        else:
            found |= _version(session, path, entry.id, entry.mode)
    return found


def _in_revision(git: Git, revision: str, paths: list[str]) -> set[str]:
    done = git.run("ls-tree", "-r", "-z", "--name-only", "--full-name", revision, "--", *paths, check=False)
    return {path for path in done.text.split("\0") if path} if done.code == 0 else set()


def _in_index(session: Session, tracked: list[str], side: int) -> dict[str, Wanted]:
    found: dict[str, Wanted] = {}
    for path in tracked:
        stages = session.index.stages.get(path, {})
        one = stages.get(0) or stages.get(side)
        if one is None and stages:
            raise NotFoundError(
                f"{session.place(path)} is in conflict", hint="use --ours, --theirs or 'theta resolve'"
            )
        if one is not None:
            found |= _version(session, path, one.oid, one.mode)
    return found


def _version(session: Session, path: str, oid: str, mode: int) -> dict[str, Wanted]:
    """Return {path: version} if blob ``oid`` is a manifest, even a malformed one; otherwise {}."""
    error = session.malformed(oid)
    if error is not None:
        error.concern(path)
        return {path: Wanted(oid, mode, error)}
    return {path: Wanted(oid, mode)} if session.manifest_or_none(oid) is not None else {}


def fill(session: Session, wanted: dict[str, Wanted], progress: Progress | None = None) -> None:
    """Write the wanted versions; files that are already the same are not touched.

    Raises the error of an unreadable version after all others are written.
    """
    due = []
    for path, version in wanted.items():
        if version.error is not None:
            continue
        if version.oid is None:
            _fs.remove(session.repo.worktree / path)
        elif not worktree.is_already(session, path, version.oid):
            due.append((path, version.oid, version.mode))
    with Exchange(session).hold({path for path, _, _ in due}) as files:
        worktree.put_back(session, due, progress, files)
    session.cache.save()
    for error in filter(None, (version.error for version in wanted.values())):
        raise error


def unstage(session: Session, wanted: dict[str, Wanted]) -> None:
    """Set the index entries to the wanted versions."""
    with closures.following(session) as change:
        for path, version in wanted.items():
            change.index.drop_conflict(path)
            if version.oid is None:
                change.index.remove(path)
            else:
                stat = worktree.known_stat(session, path, version.oid)
                change.index.put(Staged(path, version.oid, version.mode, stat=stat))
