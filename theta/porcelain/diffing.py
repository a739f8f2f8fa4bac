"""What ``theta diff`` compares: two versions of each checkpoint, and numbers about their tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from theta.errors import NotFoundError, UsageError, concerning
from theta.porcelain import sharding, worktree
from theta.porcelain.session import Session
from theta.porcelain.sharding import Group
from theta.porcelain.status import compare_with_file, version_of_file
from theta.porcelain.worktree import State
from theta.progress import Progress
from theta.store import changes
from theta.store.changes import Change, Changes, Version
from theta.store.manifest import Line
from theta.store.restore import Restorer
from theta.store.source import FileSource

WORKTREE = None


@dataclass
class Compared:
    """One checkpoint, or one sharded model, in two versions.

    ``old`` and ``new`` are the manifests of its files; ``places`` are tensors in files of the worktree:
    name -> (path, offset).
    """

    path: str
    changes: Changes
    old: tuple[str, ...]
    new: tuple[str, ...]
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of both versions."""
        return tuple(sharding.paths_of({self.path: self.changes}))


@dataclass(frozen=True)
class Sides:
    """The two sides of a diff as git names them; ``new`` none is the worktree."""

    old: str
    new: str | None


def sides(session: Session, revisions: list[str], *, cached: bool) -> Sides:
    """What ``theta diff [--cached] [REV [REV]]`` compares: the index is spelled ``""``."""
    for revision in revisions:
        if ".." not in revision:
            session.repo.resolve(revision)
    if cached:
        if len(revisions) > 1:
            raise UsageError("--cached takes one revision at most")
        return Sides(revisions[0] if revisions else "HEAD", "")
    if not revisions:
        return Sides("", WORKTREE)
    if len(revisions) == 1 and ".." in revisions[0]:
        return _range(session, revisions[0])
    if len(revisions) > 2:
        raise UsageError("theta diff takes two revisions at most")
    return Sides(revisions[0], revisions[1] if len(revisions) == 2 else WORKTREE)


def _range(session: Session, text: str) -> Sides:
    if "..." in text:
        old, new = text.split("...", 1)
        base = session.repo.git().run("merge-base", old or "HEAD", new or "HEAD").text.strip()
        return Sides(base, new or "HEAD")
    old, new = text.split("..", 1)
    return Sides(old or "HEAD", new or "HEAD")


def entries(session: Session, side: str) -> dict[str, str]:
    """Path -> manifest id, on a side that is no worktree."""
    if side == "":
        staged = {path: entry.oid for path, entry in session.staged().items()}
        return {path: oid for path, oid in staged.items() if session.manifest_or_none(oid)}
    if side == "HEAD" and session.repo.head() is None:
        return {}
    return session.in_tree(side)


def compare(
    session: Session, pair: Sides, wanted: set[str] | None, progress: Progress | None = None
) -> list[Compared]:
    """Each checkpoint that differs between the two sides, in order of path."""
    session.expect_trees(filter(None, (pair.old, pair.new)))
    old = entries(session, pair.old)
    if pair.new is None:
        _ = session.repo.worktree
        found = _with_worktree(session, old, progress)
    else:
        found = _with_manifests(session, old, entries(session, pair.new))
    session.cache.save()
    return [item for item in found if item.changes and (wanted is None or wanted.intersection(item.paths))]


def _with_manifests(session: Session, old: dict[str, str], new: dict[str, str]) -> list[Compared]:
    found = sharding.changed(session, old, new)
    return [
        Compared(path, item, _manifests(old, path, item), _manifests(new, path, item))
        for path, item in found.items()
    ]


def _manifests(side: dict[str, str], path: str, item: Changes) -> tuple[str, ...]:
    return tuple(side[name] for name in sharding.paths_of({path: item}) if name in side)


def _with_worktree(session: Session, old: dict[str, str], progress: Progress | None) -> list[Compared]:
    staged = session.staged()
    found = [
        _with_model(session, group, old, progress) for group in sharding.groups(old, old.keys() | staged)
    ]
    models = [item for item in found if item is not None]
    taken = {path for item in models for path in item.paths}
    files = [_with_file(session, path, old[path], progress) for path in old if path not in taken]
    return sorted([*models, *(item for item in files if item is not None)], key=lambda item: item.path)


def _with_model(
    session: Session, group: Group, old: dict[str, str], progress: Progress | None
) -> Compared | None:
    """A sharded model against its files in the worktree; none where they are not one model."""
    staged = session.staged()
    after: dict[str, Version] = {}
    kept: list[str] = []
    places: dict[str, tuple[str, int]] = {}
    for path in group.paths:
        oid = old.get(path) or staged[path].oid
        found = worktree.examine(session, path, oid, progress)
        if found.scan is not None:
            after[path] = version_of_file(session, oid, found)
            places |= {tensor.name: (path, tensor.offset) for tensor in found.scan.layout.tensors}
        elif found.state is not State.MISSING and (version := session.version(oid)) is not None:
            after[path] = version
            kept.append(oid)
    item = sharding.compare(group, sharding.versions(session, group.before, old), after)
    if item is None:
        return None
    return Compared(group.name, item, _manifests(old, group.name, item), tuple(kept), places)


def _with_file(session: Session, path: str, old: str, progress: Progress | None) -> Compared | None:
    found = worktree.examine(session, path, old, progress)
    if found.state is State.MISSING:
        gone = changes.compare(changes.of_manifest(session.manifest(old)), None)
        return Compared(path, gone, (old,), ())
    if found.scan is None:
        return None
    places = {tensor.name: (path, tensor.offset) for tensor in found.scan.layout.tensors}
    return Compared(path, compare_with_file(session, old, found), (old,), (), places)


@dataclass(frozen=True)
class Numbers:
    """How far two values of a tensor are apart: relative norm, cosine, share of changed elements, max."""

    relative: float
    cosine: float
    changed: float
    largest: float


def numbers(session: Session, item: Compared, change: Change) -> Numbers | None:
    """The numbers of one changed tensor; none where shapes differ or there is nothing to count.

    Norms and dots are accumulated in float64; "changed" compares bits. Streams chunk by chunk.
    """
    from theta.dtypes import numpy_dtype

    old, new = change.old, change.new
    if (
        change.status != "M"
        or old is None
        or new is None
        or old.dtype in ("bytes", "f4", "f6_e2m3", "f6_e3m2")
    ):
        return None
    total = Totals()
    with concerning(item.path):
        for left, right in _pairs(session, item, change):
            total.add(left, right, numpy_dtype(old.dtype))
    return total.result()


def _pairs(session: Session, item: Compared, change: Change) -> Iterator[tuple[bytes, bytes]]:
    restorer = Restorer(session.objects)
    old = restorer.tensor(_line(session, item.old, change.name))
    if change.name not in item.places:
        yield from zip(
            map(bytes, old), map(bytes, restorer.tensor(_line(session, item.new, change.name))), strict=True
        )
        return
    path, offset = item.places[change.name]
    with FileSource(session.repo.worktree / path, path) as source:
        for piece in old:
            yield bytes(piece), source.read(offset, len(piece))
            offset += len(piece)


def expect(session: Session, found: Iterable[Compared], glob: str | None) -> None:
    """:func:`numbers` is going to be asked for the tensors of ``found`` whose names match ``glob``."""
    if not session.repo.promised.is_partial:
        return
    for item in found:
        names = {c.name for c in item.changes.tensors if c.status == "M" and fnmatchcase(c.name, glob or "*")}
        lines = (line for oid in (*item.old, *item.new) for line in session.manifest(oid).lines)
        session.objects.expect({line.tree: line.nbytes for line in lines if line.name in names})


def _line(session: Session, oids: tuple[str, ...], name: str) -> Line:
    return next(found[name] for oid in oids if name in (found := session.manifest(oid).by_name))


class Totals:
    """Running sums over pairs of chunks."""

    def __init__(self) -> None:
        self._old = self._new = self._dot = self._gap = self._largest = 0.0
        self._changed = self._count = 0

    def add(self, left: bytes, right: bytes, dtype: Any) -> None:
        """Take one pair of chunks of raw bytes."""
        import numpy as np

        words = f"<u{dtype.itemsize}"
        self._changed += int(np.count_nonzero(np.frombuffer(left, words) != np.frombuffer(right, words)))
        kind = np.complex128 if dtype.kind == "c" else np.float64
        old, new = (np.frombuffer(part, dtype).astype(kind).view(np.float64) for part in (left, right))
        gap = new - old
        self._count += len(left) // dtype.itemsize
        self._old += float(old @ old)
        self._new += float(new @ new)
        self._dot += float(old @ new)
        self._gap += float(gap @ gap)
        self._largest = max(self._largest, float(np.abs(gap).max(initial=0.0)))

    def result(self) -> Numbers | None:
        """The numbers; none for no elements."""
        if not self._count:
            return None
        norm = (self._old * self._new) ** 0.5
        relative = (self._gap / self._old) ** 0.5 if self._old else float("inf")
        return Numbers(
            relative, self._dot / norm if norm else 0.0, self._changed / self._count, self._largest
        )


def split_arguments(session: Session, args: list[str], cwd: Path) -> tuple[list[str], list[str]]:
    """Revisions and paths among ``args`` that are no options, by git's rule of what exists."""
    if "--" in args:
        at = args.index("--")
        return args[:at], args[at + 1 :]
    for number, arg in enumerate(args):
        if os.path.lexists(cwd / arg) or not _is_revision(session, arg):
            _check_paths(session, args[number:], cwd)
            return args[:number], args[number:]
    return args, []


def _check_paths(session: Session, paths: list[str], cwd: Path) -> None:
    git = session.repo.git().in_directory(cwd)
    for path in paths:
        if not os.path.lexists(cwd / path) and not git.lines("ls-files", "-z", "--", path):
            raise NotFoundError(
                f"{path} is neither a revision nor a path", hint="use '--' before paths that are gone"
            )


def _is_revision(session: Session, text: str) -> bool:
    parts = text.replace("...", "..").split("..")
    checks = (
        session.repo.git().run("rev-parse", "-q", "--verify", f"{part or 'HEAD'}^{{}}", check=False)
        for part in parts
    )
    return all(done.code == 0 for done in checks)
