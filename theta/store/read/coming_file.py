"""A file is replaced by another one: the old file is read while the coming one is written.

Git replaces the file of a checkpoint by text.  Who opens it before can go on reading it: raw bytes are had
for a tenth of what decoding takes.  And what is in memory is written to its place in the coming file at
once, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from theta import _fs
from theta.formats.layout import Source
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Skeleton
from theta.store.odb.objects import Objects


class OldFile(Source, Protocol):
    """A file that may hold the bytes of tensors."""

    def drop(self, offset: int, length: int) -> None:
        """Note that ``length`` bytes at ``offset`` will not be read again."""
        ...


@dataclass(frozen=True)
class Place:
    """The place of the bytes of the stored tensor ``line`` in a file, if the file is unchanged."""

    source: OldFile
    offset: int
    line: Line


def places(objects: Objects, manifest: Manifest, source: OldFile | None) -> dict[str, Place]:
    """Return tensor name -> place in ``source``, if that is the file of ``manifest``."""
    if source is None:
        return {}
    plan = skeletons.read(objects, manifest.skeleton)
    if plan.size != source.size:
        return {}
    lines = manifest.by_name
    return {name: Place(source, offset, lines[name]) for name, offset, _ in plan.extents() if name in lines}


class ComingFile:
    """The file of a skeleton, as a temporary: its literal bytes are there from the start.

    Args:
        file: the temporary, whose bytes are those of this file.
        skeleton: the id of ``plan``.
        plan: the table of the file.
        replaced: the file that it takes the place of; its pages in memory go where new ones are written.
    """

    def __init__(
        self, file: _fs.AtomicFile, skeleton: str, plan: Skeleton, replaced: OldFile | None = None
    ) -> None:
        self.file, self.skeleton, self.size = file, skeleton, plan.size
        self._replaced = replaced
        self._offsets: dict[str, list[int]] = {}
        for name, offset, _ in plan.extents():
            self._offsets.setdefault(name, []).append(offset)
        self._done: dict[str, str] = {}
        file.resize(plan.size)
        for offset, data in plan.literals():
            file.patch(offset, data)

    def starts(self, name: str) -> Sequence[int]:
        """Return where tensor ``name`` begins, at each of its places."""
        return self._offsets.get(name, ())

    def put(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Write ``data``, which begins at ``offset`` of tensor ``name``."""
        for start in self.starts(name):
            self.file.patch(start + offset, data)

    def done(self, name: str, digest: str) -> None:
        """Note that all of tensor ``name`` is written, and its digest."""
        self._done[name] = digest

    def holds(self, line: Line) -> bool:
        """Return whether the tensor of ``line`` is written."""
        return self._done.get(line.name) == line.digest

    def patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset`` of the file."""
        if self._replaced is not None:
            self._replaced.drop(offset, len(data))
        self.file.patch(offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Read back what was written."""
        return self.file.read(offset, length)


class Memory:
    """As a :class:`ComingFile`, in memory."""

    def __init__(self, plan: Skeleton) -> None:
        self.content = bytearray(plan.size)
        for offset, data in plan.literals():
            self.patch(offset, data)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content)

    def holds(self, _line: Line) -> bool:
        """Return False: no tensor is written before."""
        return False

    def patch(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        self.content[offset : offset + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        """Read back what was written."""
        return bytes(self.content[offset : offset + length])
