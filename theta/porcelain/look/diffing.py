"""The comparisons of ``theta diff``: two versions of each checkpoint, and statistics of changed tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final

from theta._numpy import np
from theta.dtypes import numpy_dtype
from theta.errors import NotFoundError, concerning
from theta.formats.values import side_by_side
from theta.git.options import Arguments
from theta.git.run import Git
from theta.merging.strategies.factor_names import FACTOR
from theta.porcelain.look import version_changes
from theta.porcelain.look.overview import compare_with_file, version_of_file
from theta.porcelain.look.version_changes import Group
from theta.porcelain.workspace import coverage, worktree
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoints
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.worktree import State
from theta.progress import Progress
from theta.store import changes
from theta.store.changes import Change, Changes, Version
from theta.store.files.file_source import FileSource
from theta.store.read.stored_tensor import StoredTensor

WORKTREE = None


@dataclass
class Compared:
    """Two versions of a checkpoint or a sharded model.

    Attributes:
        path: path of the checkpoint, or name of the model.
        changes: the differences.
        old: ids of the manifests of the old version.
        new: ids of the manifests of the new version.
        places: name -> (path, offset) of the new tensors that are in files of the worktree.
    """

    path: str
    changes: Changes
    old: tuple[str, ...]
    new: tuple[str, ...]
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the files of both versions."""
        return tuple(version_changes.paths_of({self.path: self.changes}))


@dataclass(frozen=True)
class Sides:
    """The two sides of a diff: a revision, "" for the index; ``new`` is None for the worktree."""

    old: str
    new: str | None


def sides(git: Git, revisions: Sequence[str], *, cached: bool) -> Sides | None:
    """Return the sides that ``git diff [--cached] [REV [REV]]`` compares; None for more than two.

    ``git rev-parse`` expands the revisions: ``A..B``, ``A...B`` and ``A^!`` become ids and one ``^id``.
    """
    oids = git.run("rev-parse", "--revs-only", *revisions).text.split() if revisions else []
    gone = [oid[1:] for oid in oids if oid.startswith("^")]
    kept = [oid for oid in oids if not oid.startswith("^")]
    if cached:
        return Sides(kept[0] if kept else "HEAD", "") if len(oids) == len(kept) <= 1 else None
    match len(kept), len(gone):
        case 0, 0:
            return Sides("", WORKTREE)
        case 1, 0:
            return Sides(kept[0], WORKTREE)
        case 2, 0:
            return Sides(kept[0], kept[1])
        case ((1 | 2), 1):  # git expands A...B to B, A and ^merge-base
            return Sides(gone[0], kept[0])
    return None


def on_side(session: Session, side: str) -> Checkpoints:
    """Return the checkpoints of a revision, or of the index if ``side`` is empty."""
    if side == "":
        return session.index.readable
    return session.head if side == "HEAD" else session.at(side)


def compare(
    session: Session, pair: Sides, wanted: set[str] | None, progress: Progress | None = None
) -> list[Compared]:
    """Return each checkpoint that differs between the two sides, in order of path."""
    session.expect_trees(filter(None, (pair.old, pair.new)))
    old = _whole(session, pair, on_side(session, pair.old))
    if pair.new is None:
        _ = session.repo.worktree
        found = _with_worktree(session, old, progress)
    else:
        new = on_side(session, pair.new)
        found = _with_manifests(session, old, new, _plain(session, pair.new, old, new))
    session.cache.save()
    return [item for item in found if item.changes and (wanted is None or wanted.intersection(item.paths))]


def _whole(session: Session, pair: Sides, old: Checkpoints) -> Checkpoints:
    """Return ``old`` without what is in conflict, if the index, which has no version of that, is a side."""
    torn = session.index.conflicts if "" in (pair.old, pair.new) else {}
    if old.keys().isdisjoint(torn):
        return old
    return Checkpoints((one for path, one in old.items() if path not in torn), session.manifest_or_none)


def of_commit(session: Session, oid: str) -> list[Compared]:
    """Return each checkpoint that commit ``oid`` changed against its first parent."""
    parent = parent_of(session, oid)
    session.expect_trees([name for name in (oid, parent) if name])
    old, new = session.at(parent) if parent else EMPTY, session.at(oid)
    return _with_manifests(session, old, new, _plain(session, oid, old, new))


def parent_of(session: Session, oid: str) -> str | None:
    """Return the first parent of commit ``oid``; None without one, as at the end of a shallow history."""
    return next((one for one in session.repo.commit(oid).parents[:1] if session.repo.has(one)), None)


def _plain(session: Session, side: str, old: Checkpoints, new: Checkpoints) -> set[str]:
    """Return the checkpoints of ``old`` whose files are plain bytes on ``side``, with checkpoints ``new``."""
    if side:
        return version_changes.plain_in(session.repo.tree_of(side), old, new)
    return (old.keys() - new.keys()) & {*coverage.plain(session)}


def _with_manifests(
    session: Session, old: Checkpoints, new: Checkpoints, plain: Collection[str]
) -> list[Compared]:
    found = version_changes.changed(session, old, new, plain)
    return [
        Compared(path, item, _oids(old, path, item), _oids(new, path, item)) for path, item in found.items()
    ]


def _oids(side: Checkpoints, path: str, item: Changes) -> tuple[str, ...]:
    return tuple(side[name].oid for name in version_changes.paths_of({path: item}) if name in side)


def _with_worktree(session: Session, old: Checkpoints, progress: Progress | None) -> list[Compared]:
    groups = version_changes.groups(old, old.keys() | session.index.keys())
    found = [_with_model(session, group, old, progress) for group in groups]
    models = [item for item in found if item is not None]
    taken = {path for item in models for path in item.paths}
    files = [with_file(session, path, old[path].oid, progress) for path in old if path not in taken]
    return sorted([*models, *(item for item in files if item is not None)], key=lambda item: item.path)


def _with_model(
    session: Session, group: Group, old: Checkpoints, progress: Progress | None
) -> Compared | None:
    """Compare a sharded model with its files in the worktree; None when they do not form one model."""
    after: dict[str, Version] = {}
    kept: list[str] = []
    places: dict[str, tuple[str, int]] = {}
    for path in group.paths:
        oid = old.oid(path) or session.index[path].oid
        found = worktree.examine(session, path, oid, progress)
        if found.scan is not None:
            after[path] = version_of_file(session, oid, found)
            places |= {tensor.name: (path, tensor.offset) for tensor in found.scan.layout.tensors}
        elif found.state is not State.MISSING and (version := session.version(oid)) is not None:
            after[path] = version
            kept.append(oid)
    item = version_changes.compare(group, version_changes.versions(session, group.before, old), after)
    if item is None:
        return None
    return Compared(group.name, item, _oids(old, group.name, item), tuple(kept), places)


def with_file(session: Session, path: str, old: str, progress: Progress | None) -> Compared | None:
    """Compare manifest ``old`` with the file at ``path`` of the worktree; None when it is the same."""
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
    """Statistics of the difference of two values of a tensor.

    Attributes:
        relative: norm of the difference over the norm of the old value.
        cosine: cosine similarity of both values.
        changed: fraction of elements whose bits differ.
        largest: largest absolute difference of two elements.
        rows: for a resized tensor, the number of leading rows that were compared.
        compared: for a resized tensor, the shape of the leading block that both values have.
    """

    relative: float
    cosine: float
    changed: float
    largest: float
    rows: int | None = None
    compared: tuple[int, ...] | None = None


def block(change: Change) -> tuple[int, ...] | None:
    """Return the shape of the leading block that both values of a tensor have; None without numbers."""
    old, new = change.old, change.new
    if old is None or new is None or change.status not in "MS" or old.dtype in _NO_NUMBERS:
        return None
    if change.status == "S" and (not old.shape or len(old.shape) != len(new.shape)):
        return None
    return tuple(map(min, old.shape, new.shape))


def numbers(
    session: Session, item: Compared, change: Change, watch: Callable[[Any], None] | None = None
) -> Numbers | None:
    """Return the statistics of a changed tensor; None when its values cannot be compared.

    The values are read chunk by chunk, and sums are accumulated in float64.
    If the tensor was resized, the leading block that both values have is compared.
    ``watch`` gets each piece of the difference, float64, in order; a complex number is two.
    """
    shape = block(change)
    if shape is None or change.old is None:
        return None
    compared = shape if change.status == "S" else None
    total, dtype = Totals(), numpy_dtype(change.old.dtype)
    with concerning(item.path):
        for left, right in _pairs(session, item, change, compared, dtype.itemsize):
            gap = total.add(left, right, dtype)
            if watch is not None:
                watch(gap)
    found = total.result()
    if found is None or compared is None:
        return found
    return replace(found, rows=compared[0], compared=compared)


def part(change: Change, compared: tuple[int, ...]) -> str:
    """Return in words which part of a resized tensor was compared: "first 8 rows"."""
    sides = [side.shape[1:] for side in (change.old, change.new) if side is not None]
    if all(row == compared[1:] for row in sides):
        return f"first {changes.counted(compared[0], 'row')}"
    shape = "\N{MULTIPLICATION SIGN}".join(map(str, compared))
    return f"first {shape} elements"


def names_after(session: Session, item: Compared) -> Iterator[str]:
    """Yield the names of the tensors of the new version."""
    yield from item.places or (line.name for oid in item.new for line in session.manifest(oid).lines)


_PREFIX: Final = "base_model.model."
_PIECE: Final = 4 << 20
_NO_NUMBERS: Final = ("bytes", "f4", "f6_e2m3", "f6_e3m2")


def _pairs(
    session: Session, item: Compared, change: Change, compared: tuple[int, ...] | None, itemsize: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of equally long pieces of the old and the new bytes, cropped to ``compared``."""
    was, now = change.old, change.new
    assert was is not None
    assert now is not None
    old = _chunks(session, item.old, change.name)
    new = new_bytes(session, item, change.name, now.nbytes)
    if compared is not None and (compared[1:] != was.shape[1:] or compared[1:] != now.shape[1:]):
        old = _cropped(old, was.shape[1:], compared[1:], itemsize)
        new = _cropped(new, now.shape[1:], compared[1:], itemsize)
    yield from side_by_side(old, new)


def new_bytes(session: Session, item: Compared, name: str, nbytes: int) -> Iterator[bytes]:
    """Yield the bytes of the new value in pieces, from the file in the worktree or from its objects."""
    if name not in item.places:
        yield from _chunks(session, item.new, name)
        return
    path, offset = item.places[name]
    with FileSource(session.repo.worktree / path, path) as source:
        for done in range(0, nbytes, _PIECE):
            yield source.read(offset + done, min(_PIECE, nbytes - done))


def _cropped(
    pieces: Iterable[bytes], row: tuple[int, ...], wanted: tuple[int, ...], itemsize: int
) -> Iterator[bytes]:
    """Yield rows of shape ``row`` cropped to the leading ``wanted``; ``pieces`` may cut rows anywhere."""
    size, rest = math.prod(row) * itemsize, b""
    front = (slice(None), *map(slice, wanted))
    for piece in pieces if size else ():
        data = rest + piece
        count = len(data) // size
        rest = data[count * size :]
        rows = np.frombuffer(data, f"V{itemsize}", count * math.prod(row)).reshape(count, *row)
        yield rows[front].tobytes()


def expect(session: Session, found: Iterable[Compared], glob: str | None) -> None:
    """Announce the objects that :func:`numbers` will read for the tensors of ``found`` that match ``glob``.

    In a partial clone they are then fetched together.
    """
    if not session.repo.promised.is_partial:
        return
    for item in found:
        names = {
            c.name for c in item.changes.tensors if c.status in "MS" and fnmatchcase(c.name, glob or "*")
        }
        lines = (line for oid in (*item.old, *item.new) for line in session.manifest(oid).lines)
        session.objects.expect({line.tree: line.nbytes for line in lines if line.name in names})


def _chunks(session: Session, oids: tuple[str, ...], name: str) -> Iterator[bytes]:
    """Yield the chunks of tensor ``name``, which is in one of the manifests ``oids``."""
    line = next(found[name] for oid in oids if name in (found := session.manifest(oid).by_name))
    return map(bytes, StoredTensor(session.objects, line).chunks())


class Totals:
    """Running sums over pairs of chunks, from which :class:`Numbers` are computed."""

    def __init__(self) -> None:
        self._old = self._new = self._dot = self._gap = self._largest = 0.0
        self._changed = self._count = 0

    def add(self, left: bytes, right: bytes, dtype: Any) -> Any:
        """Add a pair of equally long raw chunks of ``dtype``; return their difference in float64."""
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
        self._largest = float(np.maximum(self._largest, np.abs(gap).max(initial=0.0)))
        return gap

    def result(self) -> Numbers | None:
        """Return the statistics; None when no elements were added."""
        if not self._count:
            return None
        norm = (self._old * self._new) ** 0.5
        relative = (self._gap / self._old) ** 0.5 if self._old else float("inf")
        return Numbers(
            relative, self._dot / norm if norm else 0.0, self._changed / self._count, self._largest
        )


def module_of(name: str) -> str | None:
    """Return the module of a factor of an adapter, without the prefix that PEFT gives it; None for others."""
    match = FACTOR.fullmatch(name)
    return match["module"].removeprefix(_PREFIX) if match is not None else None


def split(git: Git, line: Arguments) -> tuple[list[str], list[str]]:
    """Split the operands of ``line`` into revisions and paths, by git's rule.

    Raises :class:`NotFoundError` for a word that is neither.
    """
    operands = list(line.operands)
    if line.paths is not None:
        return operands, list(line.paths)
    for number, operand in enumerate(operands):
        if _is_file(git, operand) or not _is_revision(git, operand):
            _check_paths(git, operands[number:])
            return operands[:number], operands[number:]
    return operands, []


def _is_file(git: Git, text: str) -> bool:
    """Return whether ``text`` is a file of a worktree; in a bare repository git asks for none."""
    is_there = os.path.lexists(git.cwd / text)
    return is_there and git.run("rev-parse", "--is-inside-work-tree", check=False).text.strip() == "true"


def _check_paths(git: Git, paths: list[str]) -> None:
    for path in paths:
        if os.path.lexists(git.cwd / path) or path.startswith(":"):
            continue
        if not git.lines("ls-files", "-z", "--", path):
            raise NotFoundError(
                f"{path} is neither a revision nor a path", hint="use '--' before paths that are gone"
            )


def _is_revision(git: Git, text: str) -> bool:
    return bool(git.run("rev-parse", "--revs-only", text, check=False).text)
