"""Decoded chunks that are kept while they may be wanted again, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]


class ChunkCache:
    """Chunks by their keys; those that were not used for longest go first.  Threads may share it.

    Args:
        budget: bytes to keep; the chunk that came last is kept in any case.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[Hashable, Words] = OrderedDict()
        self._nbytes = 0
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable) -> Words | None:
        """Return the chunk under ``key``; None when it is not kept."""
        with self._lock:
            words = self._kept.get(key)
            if words is not None:
                self._kept.move_to_end(key)
            return words

    def get(self, key: Hashable, decode: Callable[[], Words]) -> Words:
        """Return the chunk under ``key``; ``decode`` makes it, once even if two threads want it."""
        words = self.find(key)
        if words is not None:
            return words
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            words = self.find(key)
            if words is None:
                words = decode()
                self._keep(key, words)
            with self._lock:
                self._making.pop(key, None)
        return words

    def _keep(self, key: Hashable, words: Words) -> None:
        with self._lock:
            self._kept[key] = words
            self._nbytes += words.nbytes
            while self._nbytes > self._budget and len(self._kept) > 1:
                self._nbytes -= self._kept.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Let go of all chunks."""
        with self._lock:
            self._kept.clear()
            self._nbytes = 0
