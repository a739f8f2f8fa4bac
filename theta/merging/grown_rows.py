"""Merging a tensor to which one side appended rows (a larger vocabulary) while the other changed values.

The first rows of the longer side must equal the base bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs.base import word_size
from theta.dtypes import DTYPES
from theta.merging import storing
from theta.merging.reading import opened
from theta.merging.states import Conflict
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor
from theta.store.write.layer_plan import Planned

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP: Final = 1 << 20


def grown(objects: Objects, conflict: Conflict) -> Planned | storing.Streamed | None:
    """Return the changed rows of one side followed by the appended rows of the other; None when not so."""
    base = conflict.base
    sides = [side for side in conflict.changed if side is not None]
    if base is None or len(sides) != 2 or len(conflict.changed) != 2:
        return None
    longer, other = sorted(sides, key=lambda line: -(line.shape[0] if line.shape else 0))
    if not _appended(base, longer, other):
        return None
    before, after, values = (opened(objects, line) for line in (base, longer, other))
    words = _words(base)
    if not _same_start(before, after, words):
        return None

    def pieces() -> Iterator[NDArray[Any]]:
        for start in range(0, words, _STEP):
            yield values.read(start, min(start + _STEP, words))
        for start in range(words, _words(longer), _STEP):
            yield after.read(start, min(start + _STEP, _words(longer)))

    return storing.plan(objects, longer, pieces, [values, after])


def _appended(base: Line, longer: Line, other: Line) -> bool:
    """Return whether ``longer`` has more rows than the base, and ``other`` has its shape."""
    if (other.dtype, other.shape) != (base.dtype, base.shape) or longer.dtype != base.dtype:
        return False
    if not base.shape or not base.nbytes or longer.shape[1:] != base.shape[1:] or base.dtype == "bytes":
        return False
    return longer.shape[0] > base.shape[0] and DTYPES[base.dtype].kind != "packed"


def _words(line: Line) -> int:
    return line.nbytes // word_size(line.dtype)


def _same_start(before: StoredTensor, after: StoredTensor, words: int) -> bool:
    """Return whether ``after`` starts with all ``words`` of ``before``; full chunks compare by digest."""
    first = before.record.chunks[:-1]
    if first != after.record.chunks[: len(first)]:
        return False
    last = before.starts[-2]
    return bool(np.array_equal(before.read(last, words), after.read(last, words)))
