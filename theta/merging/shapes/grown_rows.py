"""Merging a tensor to which one side appended rows (a larger vocabulary) while the other changed values.

The first rows of the longer side must equal the base bit for bit.
"""

from __future__ import annotations

from theta._numpy import np
from theta.dtypes import DTYPES
from theta.merging.geometry import RowRange
from theta.merging.reading import opened
from theta.merging.states import Conflict
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.read.stored_tensor import StoredTensor


def grown(objects: Objects, conflict: Conflict) -> tuple[RowRange, ...]:
    """Return the rows of the side that changed them, then those that the other appended; () when not so."""
    base, (one, two) = conflict.base, [*conflict.changed, None, None][:2]
    if base is None or one is None or two is None or len(conflict.changed) != 2:
        return ()
    longer, other = (one, two) if two.shape[:1] < one.shape[:1] else (two, one)
    if not _appended(base, longer, other) or not _same_start(opened(objects, base), opened(objects, longer)):
        return ()
    sides, rows = conflict.changed, base.shape[0]
    return (
        RowRange(0, rows, (sides.index(other),), True),
        RowRange(rows, longer.shape[0], (sides.index(longer),), False),
    )


def _appended(base: Line, longer: Line, other: Line) -> bool:
    """Return whether ``longer`` has more rows than the base, and ``other`` has its shape."""
    if (other.dtype, other.shape) != (base.dtype, base.shape) or longer.dtype != base.dtype:
        return False
    if not base.shape or not base.nbytes or longer.shape[1:] != base.shape[1:] or base.dtype == "bytes":
        return False
    return longer.shape[0] > base.shape[0] and DTYPES[base.dtype].kind != "packed"


def _same_start(before: StoredTensor, after: StoredTensor) -> bool:
    """Return whether ``after`` starts with all words of ``before``; full chunks compare by digest."""
    first = before.record.chunks[:-1]
    if first != after.record.chunks[: len(first)]:
        return False
    last, words = before.starts[-2], before.starts[-1]
    return bool(np.array_equal(before.read(last, words), after.read(last, words)))
