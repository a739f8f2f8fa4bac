"""``rows/1``: rows of the base, kept, dropped, repeated or moved, and new ones between them.

The base has the same dtype and the same row length ``c`` in words (``format.md``, section 7; at
least 1), with any number of rows; both have at least one extent.  The shared bytes are a list of
runs that cover the rows of the tensor in order::

    u32      the number of runs, little-endian
    section  (theta.codecs.planes) of 8 planes, with one byte for each run: bytes 0 to 3 (lowest
             first) of the number of rows in the run, at least 1; bytes 0 to 3 of where the run
             comes from: 0 for new rows, else 1 + the base's row that is the first of the run

A chunk is a dense chunk (theta.codecs.dense) of all its words that are in new rows, in order;
a file without bytes if there are none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import dense, planes
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords, evenly, word_size
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]
    Sources = NDArray[np.int64]

NAME: Final = "rows/1"
_COUNT: Final = struct.Struct("<I")
_MIN_ROW_BYTES: Final = 16
_MAX_ROWS: Final = 1 << 31
_WINDOW_WORDS: Final = 1 << 21
_MARK_BYTES: Final = 8
_COMPARED: Final = 1 << 18
"""Bytes of rows with equal fingerprints that are compared at once."""
_MARKED: Final = 256
"""Rows whose marks are looked for among those of the base's rows, before all are read."""


def fits(target: Target, base: Base) -> bool:
    """Return whether ``base`` has rows like those of ``target``."""
    other = Target(base.dtype, base.shape)
    return (
        base.dtype == target.dtype
        and len(target.shape) > 0
        and len(base.shape) > 0
        and target.row_words == other.row_words > 0
        and max(target.rows, other.rows) < _MAX_ROWS
    )


def _as_rows(tensor: TensorWords) -> NDArray[np.uint8]:
    return tensor.words.view(np.uint8).reshape(tensor.shape[0], -1)


def find_sources(new: TensorWords, base: TensorWords) -> Sources:
    """Return for each row of ``new`` an equal row of ``base``, or -1; runs continue if they can."""
    rows, base_rows = _as_rows(new), _as_rows(base)
    marks, base_marks = kernels.fingerprints.fingerprints(rows), kernels.fingerprints.fingerprints(base_rows)
    order = np.argsort(base_marks, kind="stable")
    at = np.minimum(np.searchsorted(base_marks[order], marks), order.size - 1)
    sources = order[at].astype(np.int64)
    after = np.minimum(np.concatenate([[0], sources[:-1] + 1]), base_marks.size - 1)
    sources = np.where(base_marks[after] == marks, after, sources)
    sources[base_marks[sources] != marks] = -1
    some, step = np.flatnonzero(sources >= 0), max(_COMPARED // rows.shape[1], 1)
    for k in range(0, some.size, step):
        part = some[k : k + step]
        sources[part[(rows[part] != base_rows[sources[part]]).any(axis=1)]] = -1
    return sources


def _marks(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return some bytes from the middle of each row."""
    start = (rows.shape[1] - _MARK_BYTES) // 2
    return np.ascontiguousarray(rows[:, start : start + _MARK_BYTES]).view(np.uint64).reshape(-1)


def _may_have_half(new: TensorWords, base: TensorWords) -> bool:
    """Return whether ``base`` has a quarter or more of a spread sample of rows."""
    rows = _as_rows(new)
    chosen = evenly(len(rows), _MARKED)
    marks = np.sort(_marks(rows[chosen]))
    seen = _marks(_as_rows(base))
    at = np.minimum(np.searchsorted(marks, seen), marks.size - 1)
    # By a table, which is no good for hashes, numpy 2.0 overflows where only one is looked for.
    found = np.isin(marks, marks[at[marks[at] == seen]], kind="sort")
    return bool(4 * np.count_nonzero(found) >= chosen.size)


def _runs(sources: Sources) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return lengths and origins of the runs of ``sources``."""
    goes_on = np.where(sources[1:] >= 0, sources[1:] == sources[:-1] + 1, sources[:-1] < 0)
    goes_on &= (sources[1:] >= 0) == (sources[:-1] >= 0)
    starts = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    lengths = np.diff(starts, append=sources.size)
    return lengths.astype("<u4"), (sources[starts] + 1).astype("<u4")


def _pack(sources: Sources) -> bytes:
    lengths, origins = _runs(sources)
    columns = [array.view(np.uint8).reshape(-1, 4).T for array in (lengths, origins)]
    listed = [np.ascontiguousarray(plane) for plane in np.concatenate(columns)]
    return _COUNT.pack(lengths.size) + planes.encode_section(listed)


def _unpack(shared: memoryview, rows: int, base_rows: int) -> Sources:
    """Return the source of each row, checked."""
    if len(shared) < _COUNT.size or not 0 < _COUNT.unpack_from(shared)[0] <= rows:
        raise CodecError("a row map is damaged")
    listed = np.empty((8, _COUNT.unpack_from(shared)[0]), np.uint8)
    if planes.decode_section(shared, _COUNT.size, list(listed)) != len(shared):
        raise CodecError("a row map has bytes behind its end")
    lengths, origins = (
        np.ascontiguousarray(listed[k : k + 4].T).view("<u4")[:, 0].astype(np.int64) for k in (0, 4)
    )
    reaches = origins - 1 + lengths
    if lengths.min() < 1 or lengths.sum() != rows or bool(((origins > 0) & (reaches > base_rows)).any()):
        raise CodecError("a row map does not fit its tensors")
    sources = np.repeat(origins - 1, lengths)
    within = np.arange(rows) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.where(sources >= 0, sources + within, -1)


def _pieces(sources: Sources, columns: int, start: int, stop: int) -> tuple[NDArray[np.bool_], int, int]:
    """Return the mask of the words in new rows, the first row of this range, and the last plus 1."""
    first, last = start // columns, -(-stop // columns)
    fresh = np.repeat(sources[first:last] < 0, columns)
    return fresh[start - first * columns : stop - first * columns], first, last


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when fewer than half of the rows are the base's."""
    target = Target(new.dtype, new.shape)
    if not fits(target, base) or target.words == 0 or base.words.size == 0:
        return None
    columns = target.row_words
    if columns * word_size(new.dtype) < _MIN_ROW_BYTES:
        return None
    if not _may_have_half(new, base):
        return None
    sources = find_sources(new, base)
    if 2 * np.count_nonzero(sources < 0) > sources.size:
        return None
    chunks = []
    for start, stop in ranges:
        fresh, _, _ = _pieces(sources, columns, start, stop)
        words = new.read(start, stop)[fresh]
        chunks.append(dense.encode_words(words, dense.is_rotated(new.dtype)) if words.size else b"")
    return Encoded(NAME, _pack(sources), tuple(chunks))


def _windows(wanted: Sources, columns: int) -> Iterator[tuple[int, int]]:
    """Cut the rising list ``wanted`` into parts whose rows lie close together."""
    limit = max(_WINDOW_WORDS // columns, 1)
    begin = 0
    while begin < wanted.size:
        end = int(np.searchsorted(wanted, wanted[begin] + limit))
        yield begin, end
        begin = end


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base
    sources: Sources

    def _gather(self, first: int, last: int, low: int, high: int) -> Words:
        """Return the words ``low`` to ``high`` of each row from ``first`` to ``last``; new rows are zero."""
        columns = self.target.row_words
        sources = self.sources[first:last]
        out = np.zeros((last - first, high - low), f"<u{word_size(self.target.dtype)}")
        order = np.argsort(sources, kind="stable")[np.count_nonzero(sources < 0) :]
        wanted = sources[order]
        for begin, end in _windows(wanted, columns):
            origin = int(wanted[begin])
            if wanted[end - 1] == origin:
                out[order[begin:end]] = self.base.read(origin * columns + low, origin * columns + high)
                continue
            block = self.base.read(origin * columns, (int(wanted[end - 1]) + 1) * columns)
            out[order[begin:end]] = block.reshape(-1, columns)[wanted[begin:end] - origin, low:high]
        return out

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Decode the words of one chunk; each part of the base that it needs is read once."""
        columns, dtype = self.target.row_words, self.target.dtype
        fresh, first, last = _pieces(self.sources, columns, start, stop)
        inside = last - first == 1
        low, high = (start - first * columns, stop - first * columns) if inside else (0, columns)
        words: Words = self._gather(first, last, low, high).reshape(-1)
        if not inside:
            words = words[start - first * columns : stop - first * columns]
        count = int(np.count_nonzero(fresh))
        if count:
            words[fresh] = dense.decode_words(payload, words.dtype.itemsize, count, dense.is_rotated(dtype))
        elif len(payload):
            raise CodecError("a chunk without new rows has bytes")
        return words


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Check and decode the row map, and get ready to decode chunks of ``target``."""
    if not shared or not fits(target, base):
        raise CodecError("a rows layer does not fit its base")
    return _Decoder(target, base, _unpack(memoryview(shared), target.rows, base.shape[0]))
