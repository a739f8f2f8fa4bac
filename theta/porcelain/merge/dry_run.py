"""Merging without writing to the repository: new objects go to a temporary directory.

A variable names this directory to git.  A git that fetches promised objects passes its variables on,
and a remote helper (``ext::``) hands them to the git of the remote, which then has no objects.  So all
that git reads in a rehearsal is brought before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from theta import _fs
from theta.git.commit_graph import merge_bases
from theta.git.repository import Repository
from theta.git.run import DEFER, Git
from theta.porcelain.workspace.session import Session
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter


class Rehearsed(Objects):
    """The objects of a repository; new objects go to ``place``, an ``objects`` directory of its own."""

    are_shared = False

    def __init__(self, repo: Repository, place: Path) -> None:
        super().__init__(repo)
        self.place = place

    def writer(self, *, keep: bool = False, in_parts: bool = False) -> PackWriter:  # noqa: ARG002 - not repacked
        """Return a writer of a new pack in the temporary directory."""
        return PackWriter(self.place / "pack", self.repo.look_up(), self.repo.format, in_parts=in_parts)

    def git(self) -> Git:
        """Return a runner of git that writes new objects to the temporary directory."""
        places = {
            "GIT_OBJECT_DIRECTORY": str(self.place),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.repo.commondir / "objects"),
        }
        return self.repo.git(extra={**DEFER, **places})


@contextmanager
def rehearsal(session: Session) -> Iterator[Session]:
    """Return a context manager of a session that reads the repository and writes nothing to it."""
    with _fs.temporary_directory("theta-rehearsal-") as place:
        _fs.make_dirs(place / "pack")
        apart = Session(session.repo.apart(place), session.cwd)
        apart.objects = Rehearsed(apart.repo, place)
        yield apart


def bring(session: Session, ours: str, theirs: str) -> None:
    """Bring the promised objects that ``git merge-tree`` reads of two commits, in a rehearsal."""
    if not session.repo.promised.is_partial:
        return
    wanted: set[str] = set()
    for sides in _triples(session.repo, ours, theirs, set()):
        wanted |= _read_by_git(*(_files(session.repo, commit) for commit in sides))
    session.repo.promised.obtain(wanted)


def _triples(
    repo: Repository, ours: str, theirs: str, seen: set[tuple[str, str]]
) -> Iterator[tuple[str | None, str, str]]:
    """Yield base, ours and theirs of a merge, and of the merges of its bases if there are several."""
    if (ours, theirs) in seen:
        return
    seen.add((ours, theirs))
    bases = merge_bases(repo, ours, theirs)
    for base in bases or (None,):
        yield base, ours, theirs
    for one, other in pairwise(bases):
        yield from _triples(repo, one, other, seen)


def _files(repo: Repository, commit: str | None) -> dict[str, str]:
    """Return path -> id of the files of ``commit``."""
    if commit is None:
        return {}
    return {path: entry.id for path, entry in repo.walk_blobs(repo.tree_of(commit))}


def _read_by_git(base: dict[str, str], ours: dict[str, str], theirs: dict[str, str]) -> set[str]:
    """Return the files whose content git merges, or compares since they may be renamed."""
    found: set[str | None] = set()
    for path in base.keys() | ours.keys() | theirs.keys():
        sides = [files.get(path) for files in (base, ours, theirs)]
        if len({*sides}) == 3 or None in sides:
            found |= {*sides}
    return {oid for oid in found if oid is not None}
