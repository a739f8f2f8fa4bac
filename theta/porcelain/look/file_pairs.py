"""Two checkpoints by name, ``REV:PATH`` or a file, compared: other paths and other formats of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from theta import formats
from theta.formats import opaque
from theta.git.object_values import TreePath
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.look.diffing import Compared, Sides
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store import changes
from theta.store.files.file_source import FileSource


@dataclass(frozen=True)
class FilePair:
    """Two checkpoints: ``new`` is None for the file at ``path`` of the worktree."""

    old: TreePath
    new: TreePath | None
    path: str

    @property
    def sides(self) -> Sides:
        """The versions that the two are of."""
        return Sides(_side(self.old), None if self.new is None else _side(self.new))

    @property
    def label(self) -> str:
        """The path, or both paths where they differ."""
        return self.path if self.old.path == self.path else f"{self.old.path} → {self.path}"


def _side(place: TreePath) -> str:
    return "" if place.is_staged else place.revision


def named(session: Session, revisions: Sequence[str], paths: Sequence[str]) -> FilePair | None:
    """Return the two files of ``git diff REV:PATH REV:PATH``, or ``REV:PATH FILE``.

    None unless there are two and each that is committed is a checkpoint: the rest is git's.
    """
    places = [place for place in map(session.tree_path, revisions) if place is not None and place.path]
    if not places or len(places) != len(revisions) or len(places) + len(paths) != 2:
        return None
    if len(places) == 1:
        path = session.from_root(paths[0])
        if worktree.peek(session.repo.worktree / path) is None:
            both = _is_checkpoint(session, places[0]) and _is_readable(session.repo.worktree / path)
            return FilePair(places[0], None, path) if both else None
        places.append(TreePath("", path))  # the file is still a manifest
    old, new = places
    return FilePair(old, new, new.path) if all(_is_checkpoint(session, one) for one in places) else None


def _is_checkpoint(session: Session, place: TreePath) -> bool:
    oid = session.repo.file_at(place)
    return oid is not None and session.manifest_or_none(oid) is not None


def _is_readable(file: Path) -> bool:
    """Return whether a reader knows the file."""
    if not file.is_file():
        return False
    with FileSource(file) as source:
        return formats.scan_or_opaque(source)[0].format != opaque.NAME


def compare(
    session: Session, pair: FilePair, request: DiffRequest, progress: Progress | None = None
) -> Compared | None:
    """Return how two checkpoints differ; None when they do not, or no tensor that is asked for does.

    Raises :class:`NotFoundError` if none of their tensors has a name that is asked for.
    """
    old = session.repo.file_at(pair.old) or ""
    if pair.new is None:
        file = diffing.with_file(session, pair.path, old, progress)
        found = None if file is None else replace(file, path=pair.label)
    else:
        new = session.repo.file_at(pair.new) or ""
        found = Compared(
            pair.label, changes.compare(session.version(old), session.version(new)), (old,), (new,)
        )
    if found is None or not found.changes or not _is_asked_for(found, request):
        names = [line.name for line in session.manifest(old).lines]
        comparison.check_glob(names, request.tensors or "*")
        return None
    if request.numbers:
        diffing.expect(session, [found], request.tensors)
    return found


def _is_asked_for(found: Compared, request: DiffRequest) -> bool:
    return request.tensors is None or any(map(request.wants, found.changes.tensors))
