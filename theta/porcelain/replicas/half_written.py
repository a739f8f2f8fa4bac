"""Whether a file is what an apply that was cut short left, and nobody wrote to it since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import ThetaError
from theta.lazy import Module
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import Chunk, Record
from theta.store.odb.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.store.format import skeleton as skeletons
    from theta.store.format.skeleton import Skeleton
    from theta.store.read import stored_tensor, tensor_records
else:
    skeletons = Module("theta.store.format.skeleton")
    stored_tensor = Module("theta.store.read.stored_tensor")
    tensor_records = Module("theta.store.read.tensor_records")

_PAGE: Final = 4096
"""Bytes that the system writes at once."""
_TORN: Final = 8
"""Pages of a chunk, at most, that have bytes of several versions: a process that is killed leaves one."""
_RUNS: Final = 3
"""Runs of one version, at most, in such a page, after two applies that were killed in it."""


@dataclass(frozen=True)
class _Version:
    """A version of the file: its manifest, the table of its skeleton, and what has which (offset, length)."""

    manifest: Manifest
    plan: Skeleton
    tensors: Mapping[tuple[int, int], str]

    @classmethod
    def of(cls, objects: Objects, manifest: Manifest) -> _Version:
        """Read the skeleton; raises :class:`ThetaError` when it is not here."""
        plan = skeletons.read(objects, manifest.skeleton)
        return cls(manifest, plan, {(offset, length): name for name, offset, length in plan.extents()})

    def at(self, offset: int, length: int) -> Line | None:
        """Return the tensor that has ``length`` bytes at ``offset``."""
        name = self.tensors.get((offset, length))
        return None if name is None else self.manifest.by_name[name]


def is_mixture(objects: Objects, copy: FileSource, manifests: Sequence[Manifest]) -> bool:
    """Return whether each page of ``copy`` is of a version of ``manifests``, or torn between some.

    The first is the version that was being written, whose places all have.  Where the bytes of another are
    not here any more, a part that was written to has a page at least of the first.  Fields that follow from
    other bytes are not looked at.
    """
    versions = [*_versions(objects, manifests)]
    if not versions or versions[0].manifest is not manifests[0] or copy.size != versions[0].plan.size:
        return False
    plan, others = versions[0].plan, [dict(one.plan.literals()) for one in versions]
    for offset, data in plan.literals():
        known = [part for one in others if len(part := one.get(offset, b"")) == len(data)]
        if not _is_of(copy.read(offset, len(data)), known.__iter__, offset):
            return False
    for _, offset, length in plan.extents():
        lines = [line for one in versions if (line := one.at(offset, length)) is not None]
        if length and not _Tensor(objects, lines).is_mixture(copy, offset):
            return False
    return True


def _versions(objects: Objects, manifests: Sequence[Manifest]) -> Iterator[_Version]:
    for manifest in manifests:
        with contextlib.suppress(ThetaError):
            yield _Version.of(objects, manifest)


@dataclass(frozen=True)
class _Tensor:
    """The versions of a tensor, the one that was being written first; others are read where they matter."""

    objects: Objects
    lines: Sequence[Line]
    known: dict[Line, set[tuple[int, Chunk]]] = field(default_factory=dict)

    def is_mixture(self, copy: FileSource, offset: int) -> bool:
        """Return whether the bytes at ``offset`` are of these versions, chunk by chunk."""
        try:
            chunks = [*_placed(tensor_records.record_of(self.objects, self.lines[0]))]
        except ThetaError:
            return False
        for start, chunk in chunks:
            data = copy.read(offset + start, chunk.length)
            if not self._has(start, Chunk.of(data)) and not self._is_torn(data, start, offset + start):
                return False
        return True

    def _has(self, start: int, chunk: Chunk) -> bool:
        return any((start, chunk) in self._chunks(line) for line in self.lines)

    def _chunks(self, line: Line) -> set[tuple[int, Chunk]]:
        if line not in self.known:
            self.known[line] = set()
            with contextlib.suppress(ThetaError):
                self.known[line] = {*_placed(tensor_records.record_of(self.objects, line))}
        return self.known[line]

    def _is_torn(self, data: bytes, start: int, place: int) -> bool:
        """Return whether ``data``, at ``place`` of the file, was being written when the apply ended."""
        gone: list[Line] = []

        def values() -> Iterator[bytes]:
            for line in self.lines:
                try:
                    tensor = stored_tensor.StoredTensor(self.objects, line)
                    yield tensor.read_bytes(start, len(data))
                except ThetaError:
                    gone.append(line)

        if _is_of(data, values, place):
            return True
        return bool(gone) and self.lines[0] not in gone and _has_a_page(data, next(values()))


def _placed(record: Record) -> Iterator[tuple[int, Chunk]]:
    """Yield the first byte of each chunk, and the chunk."""
    starts = accumulate((chunk.length for chunk in record.chunks), initial=0)
    return zip(starts, record.chunks, strict=False)


def _is_of(data: bytes, values: Callable[[], Iterable[bytes]], place: int) -> bool:
    """Return whether ``data``, at ``place`` of a file, is of ``values()``, which are as long: page by page.

    Few pages may be torn.  Byte by byte, a file of somebody else would be of many versions by chance.
    """
    here = np.frombuffer(data, np.uint8)
    starts = [0, *range(_PAGE - place % _PAGE, len(data), _PAGE)]
    found, whole = np.zeros(len(data), np.bool_), np.zeros(len(starts), np.bool_)
    least, count = _TORN + 1, 0
    for count, value in enumerate(values() if data else (), 1):
        same = here == np.frombuffer(value, np.uint8)
        found |= same
        whole |= np.logical_and.reduceat(same, starts)
        torn = len(whole) - int(whole.sum())
        if torn < least and found.all():  # the other versions need not be read
            least = torn
            if _are_torn(here, islice(values(), count), starts, whole):
                return True
    return not data or (least <= _TORN and _are_torn(here, islice(values(), count), starts, whole))


def _are_torn(
    here: NDArray[Any], values: Iterable[bytes], starts: Sequence[int], whole: NDArray[Any]
) -> bool:
    """Return whether each page that is not whole is of few runs of ``values``."""
    ends = [*starts[1:], len(here)]
    pages = zip(starts, ends, whole, strict=True)
    spans = [slice(start, end) for start, end, is_whole in pages if not is_whole]
    if not spans:
        return True
    same = [[here[span] == np.frombuffer(value, np.uint8)[span] for span in spans] for value in values]
    return all(_has_few_runs(np.array(page)) for page in zip(*same, strict=True))


def _has_few_runs(same: NDArray[Any]) -> bool:
    """Return whether few runs, each of one row that is all true, make up the columns of ``same``."""
    at, size = 0, same.shape[1]
    for _ in range(_RUNS):
        rest = same[:, at:]
        at += int(np.where(rest.all(axis=1), size - at, rest.argmin(axis=1)).max())
        if at == size:
            return True
    return False


def _has_a_page(data: bytes, value: bytes) -> bool:
    pages = range(0, len(data), _PAGE)
    return any(data[at : at + _PAGE] == value[at : at + _PAGE] for at in pages)
