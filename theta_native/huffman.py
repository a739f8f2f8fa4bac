"""Huffman coding of bytes as one Zstandard frame (RFC 8878).

It is for bytes that have nothing to do with their neighbours: the blocks have literals in four streams and no
sequences.  A general compressor searches for matches first, which takes more time than the coding.

Only what is done for every byte is compiled.  Codes are built in Python: a block keeps those of the block
before it unless its own would save more than they take.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theta_native import kernel

Bytes = NDArray[np.uint8]
Pairs = NDArray[np.uint16]
Tallies = NDArray[np.int64]
Table = NDArray[np.uint64]
"""For each pair of bytes, the code of both at the top of a word and its number of bits at the low end."""

BLOCK: Final = 1 << 17
"""The number of bytes of a block: the most that Zstandard allows."""
MAX_SYMBOL: Final = 128
"""The largest byte that has a code: the lengths of codes are listed directly, which ends there."""
MAX_BITS: Final = 11

_HEAD: Final = bytes([0x28, 0xB5, 0x2F, 0xFD, 0xA0])
"""The magic number; one segment, with its size in the next four bytes and no checksum."""
_RAW, _RUN, _COMPRESSED = 0, 1, 2
_WITH_CODES, _WITH_THOSE_BEFORE = 2, 3
_JUMPS: Final = 6
_LITERALS: Final = 8
"""The size of the headers of a block and of its literals."""
_LEAST_GAIN: Final = 64
"""The number of bytes that a block must save, or it is stored raw."""
_AHEAD: Final = 5
_FEW: Final = 64
"""The number of bytes up to which those of the next blocks that this one lacks are stragglers."""
_SLACK: Final = 8
"""The number of bytes that the kernel may write behind the end."""
_TOP, _LOW6, _LOW3 = np.uint64(64), np.uint64(63), np.uint64(7)
_ONE, _TWO, _THREE, _LAST_BIT = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(63)


@kernel
def _count(data: Bytes, size: int, counts: Tallies) -> None:
    # Four tables, because adding to a count that was just written has to wait for the store.
    for block in range(counts.shape[0]):
        found, part = counts[block], data[block * size : (block + 1) * size]
        for i in range(part.size):
            found[i & 3, part[i]] += 1


@kernel
def _streams(data: Pairs, table: Table, out: Table, start: np.uint64, sizes: Table) -> None:
    # Four streams one after the other, each from the end of its quarter of ``data`` to its beginning.
    # Word ``k`` of ``out`` begins at byte ``k``.  The ``count`` top bits of ``held`` are not written yet.
    quarter = np.uint64(data.size >> 2)
    for k in range(4):
        begin, at = np.uint64(k) * quarter, start
        i = begin + quarter
        held, count = np.uint64(0), np.uint64(0)
        if quarter & _ONE:
            i -= _ONE
            held = table[data[i]]
            count = held & _LOW6
            out[at] = held >> (_TOP - count)
            at += count >> _THREE
            count &= _LOW3
        while i > begin:
            # At most 7 bits are left, and at most 22 are added twice.  Higher bits of the sum do no harm.
            entry = table[data[i - _ONE]]
            held, count = (held >> (entry & _LOW6)) | entry, count + entry
            i -= _TWO
            entry = table[data[i]]
            held, count = (held >> (entry & _LOW6)) | entry, (count + entry) & _LOW6
            out[at] = held >> ((_TOP - count) & _LOW6)
            at += count >> _THREE
            count &= _LOW3
        # A one ends the stream, and zeros fill its last byte.
        held, count = (held >> _ONE) | (_ONE << _LAST_BIT), count + _ONE
        out[at] = held >> (_TOP - count)
        at += (count + _LOW3) >> _THREE
        sizes[k] = at - start
        start = at


@dataclass(frozen=True)
class _Codes:
    """The codes of some bytes.

    Attributes:
        lengths: the number of bits of each byte's code; 0 for one without a code.
        table: the codes of pairs.
        listed: the description of the codes in the format.
    """

    lengths: Tallies
    table: Table
    listed: bytes

    @classmethod
    def of(cls, counts: Tallies) -> _Codes:
        """Build the codes for bytes that occur as often as ``counts`` says; two or more must occur."""
        lengths = _lengths(counts)
        longest = int(lengths.max())
        weights = np.where(lengths > 0, longest + 1 - lengths, 0)[: int(np.flatnonzero(lengths)[-1])]
        halves = np.append(weights, 0)[: weights.size + (weights.size & 1)].reshape(-1, 2)
        listed = bytes([127 + weights.size]) + (halves[:, 0] << 4 | halves[:, 1]).astype(np.uint8).tobytes()
        return cls(lengths, _table(lengths, longest), listed)

    def bits(self, counts: Tallies) -> list[int]:
        """Return the number of bits of each block with these counts; -1 where a byte has no code."""
        lacking = counts[:, self.lengths == 0].any(axis=1)
        bits: list[int] = np.where(lacking, -1, counts @ self.lengths).tolist()
        return bits


def _lengths(counts: Tallies) -> Tallies:
    """Return the lengths of Huffman codes of at most ``MAX_BITS`` bits."""
    symbols = np.flatnonzero(counts)
    rising = symbols[np.argsort(counts[symbols], kind="stable")]
    depths = _depths(counts[rising].tolist())
    lengths = np.zeros(counts.size, np.int64)
    lengths[rising] = _limited(depths) if max(depths) > MAX_BITS else depths
    return lengths


def _depths(rising: list[int]) -> list[int]:
    """Return the depths of the leaves with these weights in a Huffman tree."""
    leaves = len(rising)
    heap = [(weight, node) for node, weight in enumerate(rising)]  # sorted, so a heap
    parents = [0] * (2 * leaves - 1)
    for node in range(leaves, len(parents)):
        one, left = heapq.heappop(heap)
        two, right = heap[0]
        parents[left] = parents[right] = node
        heapq.heapreplace(heap, (one + two, node))
    depths = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[:leaves]


def _limited(depths: list[int]) -> list[int]:
    """Return depths of at most ``MAX_BITS`` that use all codes; the depths are those of rising weights."""
    found = [min(depth, MAX_BITS) for depth in depths]
    free = (1 << MAX_BITS) - sum(1 << MAX_BITS - depth for depth in found)
    while free < 0:  # the rarest that can get a longer code does
        place = next(place for place, depth in enumerate(found) if depth < MAX_BITS)
        found[place] += 1
        free += 1 << MAX_BITS - found[place]
    for place in reversed(range(len(found))):  # the most frequent get shorter codes
        while free >= (span := 1 << MAX_BITS - found[place]):
            found[place] -= 1
            free -= span
    return found


def _table(lengths: Tallies, longest: int) -> Table:
    """Return the codes of pairs: the lowest codes are the longest, in the order of the symbols."""
    used = np.flatnonzero(lengths)
    order = used[np.argsort(-lengths[used], kind="stable")]
    shifts = longest - lengths[order]
    codes = np.zeros(lengths.size, np.int64)
    codes[order] = (np.cumsum(1 << shifts) - (1 << shifts)) >> shifts
    # The second byte of a pair is coded before the first: streams are written from the end.
    second, first = used[:, None], used[None, :]
    bits = (lengths[second] + lengths[first]).astype(np.uint64)
    both = (codes[second] | codes[first] << lengths[second]).astype(np.uint64)
    table = np.zeros(1 << 16, np.uint64)
    table[second << 8 | first] = both << (_TOP - bits) | bits
    return table


def _tallies(data: Bytes) -> Tallies:
    """Return the counts of bytes of each block, shape ``(blocks, 256)``."""
    counts = np.zeros((-(-data.size // BLOCK), 4, 256), np.int64)
    _count(data, BLOCK, counts)
    total: Tallies = counts.sum(axis=1)
    return total


def _entropies(counts: Tallies) -> NDArray[np.float64]:
    """Return the least number of bits of each block by the frequencies of its bytes."""
    totals = counts.sum(axis=1, keepdims=True)
    bits: NDArray[np.float64] = np.log2(totals / np.maximum(counts, 1))
    bits *= counts
    return np.asarray(bits.sum(axis=1))


def _stragglers(ahead: Tallies) -> Tallies:
    """Return 1 for each byte that the first block lacks, and that a few of the next blocks' bytes are.

    With a code for them, the next blocks need no codes of their own.
    """
    later = np.where(ahead[0] > 0, 0, ahead[1:].sum(axis=0))
    return np.minimum(later, 1) if 0 < later.sum() <= _FEW else np.zeros_like(later)


class _Choice:
    """The codes of each block of a frame."""

    def __init__(self, counts: Tallies) -> None:
        self._counts = counts
        self._entropies = _entropies(counts).tolist()
        self._codes: _Codes | None = None
        self._bits: list[int] = []
        self._redundancy = 1.0

    def of(self, block: int) -> tuple[_Codes, int, bool]:
        """Return the codes of a block, its number of bits, and whether they are those of the block before."""
        kept = self._bits[block] if self._codes is not None else -1
        # Codes take about as much more than the entropy as the last ones that were built.
        limit = self._entropies[block] * self._redundancy + 8 * _LEAST_GAIN
        if self._codes is not None and 0 <= kept <= limit:
            return self._codes, kept, True
        codes = _Codes.of(self._counts[block] + _stragglers(self._counts[block : block + _AHEAD]))
        bits = codes.bits(self._counts)
        self._redundancy = bits[block] / max(self._entropies[block], 1.0)
        if self._codes is not None and 0 <= kept <= bits[block] + 8 * len(codes.listed):
            return self._codes, kept, True
        self._codes, self._bits = codes, bits
        return codes, bits[block], False

    def forget(self) -> None:
        """Let no later block use codes of a block before it."""
        self._codes = None


class _Writer:
    """The blocks of one frame."""

    def __init__(self, size: int) -> None:
        blocks = -(-size // BLOCK) + 1
        self._out = np.empty(len(_HEAD) + 4 + size + blocks * (_LITERALS + _JUMPS) + _SLACK, np.uint8)
        self._bytes = self._out.data
        words = self._out[:8].view(np.uint64)
        self._words = np.lib.stride_tricks.as_strided(words, (self._out.size - 7,), (1,))
        self._sizes = np.empty(4, np.uint64)
        self._at = 0
        self._put(_HEAD + size.to_bytes(4, "little"))

    def _put(self, data: bytes | memoryview) -> None:
        end = self._at + len(data)
        self._bytes[self._at : end] = data
        self._at = end

    def _head(self, kind: int, size: int, is_last: bool) -> None:
        self._put((size << 3 | kind << 1 | int(is_last)).to_bytes(3, "little"))

    def plain(self, data: Bytes, is_last: bool) -> None:
        """Write a block that is not compressed."""
        self._head(_RAW, data.size, is_last)
        self._put(data.data)

    def run(self, data: Bytes, is_last: bool) -> None:
        """Write a block of equal bytes."""
        self._head(_RUN, data.size, is_last)
        self._put(data[:1].data)

    def block(self, data: Bytes, table: Table, listed: bytes, is_last: bool) -> None:
        """Write a block of a multiple of eight bytes.

        ``listed`` is empty where ``table`` has the codes of the block before.
        """
        head, jumps = self._at, self._at + _LITERALS + len(listed)
        _streams(data.view(np.uint16), table, self._words, np.uint64(jumps + _JUMPS), self._sizes)
        sizes = self._sizes.tolist()
        end = jumps + _JUMPS + sum(sizes)
        size = end - head - _LITERALS
        kind = _WITH_CODES if listed else _WITH_THOSE_BEFORE
        self._head(_COMPRESSED, size + _LITERALS - 3 + 1, is_last)
        self._put((kind | 3 << 2 | data.size << 4 | size << 22).to_bytes(5, "little"))
        self._put(listed + b"".join(stream.to_bytes(2, "little") for stream in sizes[:3]))
        self._at = end
        self._put(b"\0")  # no sequences

    def frame(self) -> Bytes:
        """Return what was written."""
        return self._out[: self._at]


def frame(data: Bytes) -> Bytes | None:
    """Return one Zstandard frame that holds ``data`` and its size; None if a byte is over ``MAX_SYMBOL``."""
    whole = data.size & ~7
    counts = _tallies(data[:whole])
    if counts[:, MAX_SYMBOL + 1 :].any() or data.size >> 32:
        return None
    writer, choice = _Writer(data.size), _Choice(counts)
    for block, most in enumerate(counts.max(axis=1, initial=0).tolist()):
        part = data[block * BLOCK : min((block + 1) * BLOCK, whole)]
        is_last = block * BLOCK + part.size == data.size
        if most == part.size:
            writer.run(part, is_last)
            continue
        codes, bits, is_kept = choice.of(block)
        if bits // 8 + len(codes.listed) + _LEAST_GAIN > part.size:
            choice.forget()
            writer.plain(part, is_last)
        else:
            writer.block(part, codes.table, b"" if is_kept else codes.listed, is_last)
    if whole < data.size or not data.size:
        writer.plain(data[whole:], is_last=True)
    return writer.frame()
