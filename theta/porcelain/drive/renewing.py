"""Commits that theta makes itself: index and files follow, then the refs move."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import RefusedError, ThetaError, WouldOverwriteError
from theta.git import in_progress, state_files
from theta.git.quoting import split_lines
from theta.git.run import GitFailedError, Result
from theta.porcelain.drive import overwrites, running
from theta.porcelain.drive.incoming import TreeChange
from theta.porcelain.setup import installing
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.store.read.random_access import StoredSource

_FILTER: Final = "filter.theta.process"
_PIECE: Final = 8 << 20
_STATUS: Final = ("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
_COMMIT: Final = "commit or stash them; then run the command again"
_AGAIN: Final = "see 'git log', then run the command again"


def refuse_unclean(session: Session) -> None:
    """Raise :class:`RefusedError` if a tracked file has changes, or an operation is in progress.

    Staged commits of submodules count; what is changed inside of submodules is never touched.
    """
    if session.repo.is_bare:
        return
    name = in_progress.current(session.repo).name or _bisect(session)
    if name:
        raise RefusedError(f"a {name} is in progress", hint="end it; then run the command again")
    git = session.repo.git(extra={})
    found = [row[3:] for row in split_lines(git.run(*_STATUS).text)]
    staged = ("diff-index", "--cached", "--name-only", "--ignore-submodules=none", "HEAD", "--")
    found += split_lines(git.run(*staged).text)
    if found:
        raise RefusedError(f"{found[0]} has changes that are not committed", hint=_COMMIT)


def _bisect(session: Session) -> str:
    return "bisect" if state_files.exists(session.repo.gitdir, state_files.BISECT_START) else ""


def advance(session: Session, new: str, move: Callable[[], None]) -> None:
    """Set up this clone, bring index and files to commit ``new``, and let ``move`` move the refs to it.

    Only what differs from HEAD is touched.  HEAD moves last: whatever was done when the command was
    killed or failed before is undone by the journal, and nothing is left to do for a killed one after.

    If ``move`` fails, index and files are those of the HEAD that is left.

    Raises:
        WouldOverwriteError: a file that is not in the index is where another one would be written.
        RefusedError: git does not overwrite a file, one that is assumed to be unchanged for example.
    """
    old = None if session.repo.is_bare else session.repo.resolve("HEAD")
    if old is None or old == new:
        move()
        return
    _be_sure(session)
    installing.ensure(session.repo)
    fresh = session.again()
    step = TreeChange(fresh.repo.tree_of(old), fresh.repo.tree_of(new))
    same = _refuse_overwriting(fresh, step)
    overwrites.checked(fresh, [step], ("read-tree", "--"))  # the room on the disk, and patterns
    with fresh.change():
        worktree.refresh(fresh)
        fresh.repo.refresh_index()
        with _aside(fresh, same), Exchange(fresh).hold() as files:
            fresh.journal.moving(new, refs_last=True)
            try:
                _switched(fresh, old, new)
                move()
            except ThetaError:
                _back(fresh, new)
                running.settle(fresh, files=files)
                raise
            running.settle(fresh, files=files)


def _be_sure(session: Session) -> None:
    """Let git trust the stat data of files before the filter that they name becomes theta's.

    Git reads a file that was written in the second in which the index was.  The filter of git-theta has
    the name of theta's, which makes something else of the file.
    """
    if len(session.index) and _FILTER in installing.missing(session.repo):
        time.sleep(1.0)
        session.repo.git(extra={}).run(*_STATUS)


def commit(session: Session, new: str, old: str, reason: str) -> None:
    """Move HEAD from ``old`` to ``new``, with index and files: see :func:`advance`.

    Raises :class:`RefusedError` if it moved meanwhile.
    """
    branch = session.repo.branch
    if session.repo.resolve("HEAD") != old:
        raise RefusedError(f"{branch} has another commit meanwhile, and was not moved", hint=_AGAIN)

    def move() -> None:
        with naming(branch):
            session.repo.git().run("update-ref", "-m", reason, "HEAD", new, old)

    advance(session, new, move)


@contextlib.contextmanager
def naming(branch: str) -> Iterator[None]:
    """Let the error of a git that does not move ``branch`` name it."""
    try:
        yield
    except GitFailedError as error:
        if error.code < 0:
            raise
        raise RefusedError(
            f"{branch} was not moved: {str(error).removeprefix('error: ')}", hint=_AGAIN
        ) from error


def _switched(session: Session, old: str, new: str) -> None:
    words = ("-c", "submodule.recurse=false", "read-tree", "-m", "-u", old, new)
    done = session.repo.git().run(*words, check=False)
    if done.code:
        running.ended(session, done.code)
        raise RefusedError(f"git did not write the files: {_first(done)}", hint=_COMMIT)


def _back(session: Session, new: str) -> None:
    """Bring the index from ``new`` to HEAD, which somebody else may have moved."""
    with contextlib.suppress(ThetaError):
        _switched(session, new, session.again().repo.resolve("HEAD"))


def _first(done: Result) -> str:
    said = done.stderr.decode("utf-8", "replace").strip().removeprefix("error: ")
    return said.partition("\n")[0] or f"it ended with {done.code}"


@contextlib.contextmanager
def _aside(session: Session, paths: Iterable[str]) -> Iterator[None]:
    """Rename untracked files; remove them after the block, or let the journal bring them back."""
    root, names = session.repo.worktree, {path: f"{path}.{os.urandom(8).hex()}" for path in paths}
    if names:
        session.journal.putting_aside(names)
    for path, name in names.items():
        _fs.rename(root / path, root / name)
    yield
    for name in names.values():
        _fs.remove(root / name)


def _refuse_overwriting(session: Session, step: TreeChange) -> list[str]:
    """Return the untracked files that have the content that ``step`` writes in their place.

    Raises :class:`WouldOverwriteError` if one has other content.
    """
    coming = dict(step.written())
    found = standing(session, coming)
    for path in found:
        if path not in coming or not _holds(session, path, coming[path], step):
            raise would_overwrite(path)
    return found


def standing(session: Session, paths: Collection[str]) -> list[str]:
    """Return what exists at or above ``paths`` and is not in the index."""
    found = overwrites.obstacles(session.repo.worktree, paths)
    return sorted(found.difference(entry.path for entry in session.repo.entries()))


def would_overwrite(path: str) -> WouldOverwriteError:
    """Return the error of a commit that has another file at ``path``."""
    told = f"{path} is not committed, and would be overwritten"
    return WouldOverwriteError(told, hint="move it away, or commit it")


def _holds(session: Session, path: str, oid: str, step: TreeChange) -> bool:
    """Return whether the file at ``path`` is what ``step`` writes there."""
    manifest, place = session.of_tree(step.after).manifests.get(path), session.repo.worktree / path
    if manifest is None:
        data = session.repo.read_blob(oid)
        return is_same(place, len(data), lambda at, length: data[at : at + length])
    source = StoredSource(session.objects, manifest)
    return is_same(place, source.size, source.read)


def is_same(place: Path, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Return whether a file, or what a link leads to, has the ``size`` bytes that ``read`` returns."""
    if not place.is_file() or place.stat().st_size != size:
        return False
    starts = range(0, size, _PIECE)
    with place.open("rb") as file:
        return all(file.read(_PIECE) == bytes(read(at, min(_PIECE, size - at))) for at in starts)
