"""Old files that this process holds open, as workers find them.

A worker opens them by their path.  Where git has replaced the file meanwhile, or a worker does not see it,
what it would have been read for is decoded.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from theta.errors import ThetaError
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Line
from theta.store.read.coming_file import Place


@dataclass(frozen=True)
class HeldPlace:
    """A place in an old file, as every worker sees it.

    Attributes:
        path: the file.
        size: its bytes.
        mtime_ns: its time.
        offset: where the tensor begins.
    """

    path: str
    size: int
    mtime_ns: int
    offset: int

    @classmethod
    def of(cls, place: Place | None) -> HeldPlace | None:
        """Return ``place`` for workers; None for what is no file."""
        if place is None or not isinstance(place.source, FileSource):
            return None
        source = place.source
        return cls(str(source.reachable), source.size, source.stat.st_mtime_ns, place.offset)


class HeldFiles(ExitStack):
    """The old files that a worker has open until the ``with`` block ends."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[tuple[str, int, int], FileSource | None] = {}

    def place(self, held: HeldPlace | None, line: Line) -> Place | None:
        """Return the place of ``line``; None if the file is not the one that was held.

        What is read there is proven by the digests of ``line`` in any case.
        """
        if held is None:
            return None
        key = held.path, held.size, held.mtime_ns
        if key not in self._files:
            self._files[key] = self._opened(*key)
        source = self._files[key]
        return None if source is None else Place(source, held.offset, line)

    def _opened(self, path: str, size: int, mtime_ns: int) -> FileSource | None:
        with suppress(ThetaError):
            source = self.enter_context(FileSource(Path(path)))
            if (source.size, source.stat.st_mtime_ns) == (size, mtime_ns):
                return source
        return None
