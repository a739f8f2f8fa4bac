"""One decision a checkpoint: whether the first tensors of a file tell how those behind them are searched."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from theta.store.read.tensor_records import is_of_words
from theta.store.write.guidance import Searched
from theta.store.write.layer_plan import Planned

COUNT: Final = 12
"""The tensors that are searched in full: a layer and a half of a transformer."""
_ENOUGH: Final = 6
"""The number of them that were compared with a base from which on they tell something."""


class Scouts:
    """The tensors ``names``, which are searched in full; threads wait until all of them are decided.

    So what is decided for others does not depend on the order of threads.  A thread may wait only for scouts
    that other threads have begun.
    """

    def __init__(self, names: Iterable[str], found_none: bool | None = None) -> None:
        """Wait for ``names``, unless it is known already whether the first tensors ``found_none``."""
        self._left = set(names) if found_none is None else set()
        self._known = found_none
        self.searched = Searched()
        """The result so far."""
        self._lock = threading.Lock()
        self._all_told = threading.Event()
        if not self._left:
            self._all_told.set()

    def tell(self, name: str, planned: Planned | None) -> None:
        """Note how a tensor was stored; None for one that was compared with nothing."""
        with self._lock:
            if name not in self._left:
                return
            self._left.discard(name)
            if planned is not None:
                self.searched += Searched(1, int(not is_of_words(planned.layers)))
            if not self._left:
                self._all_told.set()

    def give_up(self) -> None:
        """Let nobody wait any more: one of them failed, and those behind it may not be begun."""
        self._all_told.set()

    def found_none(self, name: str) -> bool:
        """Return whether the others found no structure, so that ``name`` need not be searched in full."""
        if self._known is not None:
            return self._known
        if name in self._left:
            return False
        self._all_told.wait()
        return are_plain(self.searched)


def are_plain(searched: Searched) -> bool:
    """Return whether enough tensors were searched, and all in vain."""
    return searched.compared >= _ENOUGH and not searched.structured
