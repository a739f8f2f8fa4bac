"""Whether a file is what an apply that was cut short left, and nobody wrote to it since."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import ThetaError
from theta.lazy import Module
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Line, Manifest
from theta.store.format.tensor_tree import Chunk
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


@dataclass(frozen=True)
class _Version:
    """A version of the file: its manifest, and the places of its tensors."""

    manifest: Manifest
    plan: Skeleton

    def at(self, offset: int, length: int) -> Line | None:
        """Return the tensor that has ``length`` bytes at ``offset``."""
        found = (name for name, start, size in self.plan.extents() if (start, size) == (offset, length))
        return self.manifest.by_name.get(next(found, ""))


def is_mixture(objects: Objects, copy: FileSource, manifests: Sequence[Manifest]) -> bool:
    """Return whether each byte of ``copy`` is that of one of the versions ``manifests``.

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
        if not _is_of(copy.read(offset, len(data)), known):
            return False
    for _, offset, length in plan.extents():
        lines = [line for one in versions if (line := one.at(offset, length)) is not None]
        if length and not _Tensor(objects, lines).is_mixture(copy, offset):
            return False
    return True


def _versions(objects: Objects, manifests: Sequence[Manifest]) -> Iterator[_Version]:
    for manifest in manifests:
        with contextlib.suppress(ThetaError, KeyError):
            yield _Version(manifest, skeletons.read(objects, manifest.skeleton))


@dataclass(frozen=True)
class _Tensor:
    """The versions of a tensor, the one that was being written first."""

    objects: Objects
    lines: Sequence[Line]

    def is_mixture(self, copy: FileSource, offset: int) -> bool:
        """Return whether the bytes at ``offset`` are of these versions, chunk by chunk."""
        digests = {one for line in self.lines for one in self._chunks(line)}
        try:
            record = tensor_records.record_of(self.objects, self.lines[0])
        except ThetaError:
            return False
        starts = accumulate((chunk.length for chunk in record.chunks), initial=0)
        for start, chunk in zip(starts, record.chunks, strict=False):
            data = copy.read(offset + start, chunk.length)
            if (start, Chunk.of(data)) not in digests and not self._is_torn(data, start):
                return False
        return True

    def _chunks(self, line: Line) -> Iterator[tuple[int, Chunk]]:
        """Yield the first byte of each chunk, and the chunk."""
        with contextlib.suppress(ThetaError):
            chunks = tensor_records.record_of(self.objects, line).chunks
            yield from zip(accumulate((one.length for one in chunks), initial=0), chunks, strict=False)

    def _is_torn(self, data: bytes, start: int) -> bool:
        values, gone = list[bytes](), False
        for line in dict.fromkeys(self.lines):
            try:
                values.append(stored_tensor.StoredTensor(self.objects, line).read_bytes(start, len(data)))
            except ThetaError:
                gone = True
        return _is_of(data, values) or (gone and bool(values) and _has_a_page(data, values[0]))


def _is_of(data: bytes, values: Sequence[bytes]) -> bool:
    """Return whether each byte is that of one of ``values``, which are as long."""
    found: NDArray[Any] = np.zeros(len(data), np.bool_)
    here = np.frombuffer(data, np.uint8)
    for value in values:
        found |= here == np.frombuffer(value, np.uint8)
    return bool(found.all())


def _has_a_page(data: bytes, value: bytes) -> bool:
    pages = range(0, len(data), _PAGE)
    return any(data[at : at + _PAGE] == value[at : at + _PAGE] for at in pages)
