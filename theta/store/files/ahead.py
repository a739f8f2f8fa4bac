"""The unchanged tensors of a file, looked for on a thread while a command starts."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Self

from theta import _fs
from theta import _kernels as kernels
from theta.errors import ThetaError
from theta.formats.layout import Tensor
from theta.lazy import imported
from theta.parallel import WhileInside
from theta.store.files import file_scan
from theta.store.files.file_scan import Parts
from theta.store.files.file_source import FileSource
from theta.store.files.one_reading import Digested, Reading
from theta.store.format import tensor_tree
from theta.store.format.manifest import Manifest
from theta.store.format.tensor_tree import Chunk

_HOPELESS: Final = 64 << 20
"""Raw bytes that may be new before it is given up, if no more are unchanged."""
_INTERVAL: Final = 0.0005
"""Seconds after which another thread, which imports, lets this one, which hashes, have the interpreter."""


_in_turns: Final = WhileInside(sys.getswitchinterval, sys.setswitchinterval, _INTERVAL)
"""The context in which threads change often."""


@dataclass(frozen=True)
class Begun(Parts):
    """A file taken apart, of which ``reading`` has read and hashed some tensors: the ``unchanged`` ones."""

    reading: Reading | None = None
    unchanged: Mapping[str, tuple[Chunk, ...]] = field(default_factory=dict)

    @property
    def known(self) -> Mapping[str, tuple[Chunk, ...]]:
        """Tensor name -> its chunks, of the unchanged tensors."""
        return self.unchanged


class Ahead:
    """Hashes the tensors of ``source``, in their order, until it is asked which of them ``manifest`` has.

    ``digested`` is that of :class:`~theta.store.files.one_reading.Reading`.  ``source`` is closed at the end
    of the block.
    """

    def __init__(self, source: FileSource, parts: Parts, manifest: Manifest, digested: Digested) -> None:
        self.source, self.manifest = source, manifest
        self._parts = parts
        self._digested = digested
        self._reading = Reading(source, self._chunks_of)
        self._known: dict[str, tuple[Chunk, ...]] = {}
        self._room = memoryview(bytearray(tensor_tree.CHUNK))
        self._ended = threading.Event()
        self._done: Future[None] = _fs.aside(self._run)

    def fits(self, source: FileSource, manifest: Manifest) -> bool:
        """Return whether ``source`` is the same file, and is compared with ``manifest``."""
        return self.source.identity == source.identity and self.manifest.oid == manifest.oid

    def end(self) -> Begun:
        """Return the file with the tensors that were found unchanged so far."""
        self._stop()
        parts = self._parts
        return Begun(parts.layout, parts.skeleton, parts.note, self._reading, self._known)

    def _stop(self) -> None:
        self._ended.set()
        self._done.result()

    def _run(self) -> None:
        new = unchanged = 0
        with _in_turns, contextlib.suppress(ThetaError):  # storing the file meets it again
            for tensor in self._parts.layout.tensors:
                if (chunks := self._chunks(tensor)) is None:
                    return
                if self._is_unchanged(tensor, chunks):
                    self._known[tensor.name] = chunks
                    unchanged += tensor.length
                else:
                    new += tensor.length
                if new > max(unchanged, _HOPELESS):
                    return

    def _chunks_of(self, raws: Sequence[bytes | memoryview]) -> tuple[Chunk, ...]:
        """Return the chunks with these raw bytes, without waiting for kernels: they import numpy."""
        is_early = imported(kernels.sha256.__name__) is None
        return tuple(map(Chunk.of, raws)) if is_early else self._digested(raws)

    def _chunks(self, tensor: Tensor) -> tuple[Chunk, ...] | None:
        """Return the chunks of ``tensor``; None when it is asked for the end."""
        found: list[Chunk] = []
        for offset, length in file_scan.pieces(self.source, tensor):
            if self._ended.is_set():
                return None
            found += self._reading.read(offset, [length], self._room[:length])[0]
        return tuple(found)

    def _is_unchanged(self, tensor: Tensor, chunks: tuple[Chunk, ...]) -> bool:
        line = self.manifest.by_name.get(tensor.name)
        digest = tensor_tree.value_digest(tensor.dtype, tensor.shape, chunks)
        return line is not None and line.digest == digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            self.source.close()
