"""``nudges/1``: a chunk of floats of 16 bits as a small step from the base: most words change by one unit.

The base has the same dtype, ``bf16`` or ``f16``, and the same number of words.  There are no shared bytes.
Format of a chunk of ``n`` words, little-endian::

    u8       0: the chunk equals the base, and ends here
             1: an encoded step follows
    u16, u8 a, u8 f, u32: the head of a residual section (theta.codecs.residual); the words of a block are
             a multiple of 16
    u8       c: 1 if the differences have the same contexts as the moves, 0 if their classes alone
    u8       k, the number of clusters (1 to 8)
    u32      the number of words with another move
    u32      w, the number of 32-bit words of the moves
    4 x u64  the states of the decoder of the moves
    4k x u16 the share of each move in each cluster
    section  (theta.codecs.planes) of two planes: the level of each block, or no bytes if a is 1;
             a byte for each context, in order
    w x u32  the moves (theta_native.gaps.moves)
    entropy section (theta.codecs.entropy) of the differences of the words with another move, in order;
             nothing if there are none

Contexts are those of a residual section.  The byte of a context is its cluster less, modulo 256, that of the
context before it, as the byte of a rate in ``steps/1``.  The differences are zigzagged as those of a residual
section, less 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import entropy, residual
from theta.codecs.base import Base, Encoded, OnBase, Range, Target, TensorWords, same
from theta.codecs.delta import fits
from theta.codecs.moves import context_rates
from theta.codecs.moves.context_rates import ContextCounts, ReadParts, StepDecoder
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]
    Numbers = NDArray[np.uint8]
    Counts = NDArray[np.float64]

NAME: Final = "nudges/1"
DTYPES: Final = ("bf16", "f16")
_HEAD: Final = struct.Struct("<BHBBIBBII4Q")
_SHARES: Final = struct.Struct("<4H")
_SAME: Final = b"\0"
_CODED: Final = 1
_GROUP: Final = 16
_CLUSTERS: Final = 8
_A_CLUSTER: Final = 48.0
"""The bits, about, of a cluster."""


# -- encoding -------------------------------------------------------------------------------


def _costs(counts: Counts) -> Counts:
    """Return the bits of the moves of rates ``i`` to before ``j`` as one cluster; infinite for no moves."""
    sums = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    parts = np.maximum(sums[None, :, :] - sums[:, None, :], 0.0)
    totals = parts.sum(axis=2)
    bits: Counts = totals * np.log2(np.maximum(totals, 1)) - (parts * np.log2(np.maximum(parts, 1))).sum(
        axis=2
    )
    return np.where(totals > 0, bits + _A_CLUSTER, np.inf)


def _ends(counts: Counts) -> list[int]:
    """Return where the clusters of rates end that take the fewest bits; ``counts`` are of moves, by rate."""
    costs, size = _costs(counts), counts.shape[0]
    best, steps = np.full(size + 1, np.inf), []
    best[0], found, least = 0.0, [size], np.inf
    for _ in range(_CLUSTERS):
        options = best[:, None] + costs
        steps.append(options.argmin(axis=0))
        best = options.min(axis=0)
        if best[size] < least:
            least, found = float(best[size]), [size]
            for step in reversed(steps):
                found.insert(0, int(step[found[0]]))
    return found[1:]


def _clusters(
    found: ContextCounts, counts: NDArray[np.int64], rates: Numbers
) -> tuple[Numbers, NDArray[np.int64]]:
    """Return the cluster of each rate, and the moves in each; ``counts`` are those in each context."""
    by_rate = np.zeros((context_rates.LAST_RATE + 1, 4), np.int64)
    np.add.at(by_rate, rates.reshape(-1)[found.kinds], counts)
    ends = _ends(by_rate.astype(np.float64))
    labels = np.searchsorted(ends, np.arange(by_rate.shape[0]), side="right").astype(np.uint8)
    return labels, np.add.reduceat(by_rate, [0, *ends[:-1]], axis=0)


def _padded(words: Words) -> Words:
    """Return a copy with zeros behind it, to a multiple of 16 words."""
    found = np.zeros(-(-words.size // _GROUP) * _GROUP, words.dtype)
    found[: words.size] = words
    return found


def _readable(words: Words) -> Words:
    """Return words that kernels can read four by four, which are these if they are."""
    if words.size % _GROUP or not words.view(np.uint64).flags.aligned:
        words = _padded(words)
    found = words.view()
    found.flags.writeable = False  # always: kernels would be compiled anew for other ones
    return found


def _encode_chunk(words: Words, base: Words, dtype: str, row_words: int) -> bytes:
    words, base = _padded(words), _padded(base)
    values = kernels.differences.difference(words, base, True)
    if not values.any():
        return _SAME
    is_row = 32 <= row_words <= 1 << 14 and row_words % _GROUP == 0
    block = row_words if is_row else residual.DEFAULT_BLOCK
    layout = residual.layout_of(values, base, dtype, block, None)
    contexts, moves = layout.contexts(base, dtype), kernels.moves.moves_of(words, base)
    counts = kernels.moves.counts_of(contexts, moves, layout.count * layout.fine_count(dtype))
    changed, total = counts[:, 1:].sum(axis=1), counts.sum(axis=1)
    found = ContextCounts.of(layout, dtype, contexts, changed.astype(np.float64), total.astype(np.float64))
    found = found.with_best_contexts()
    rates = context_rates.chosen_rates(found.changed, found.total)
    labels, counts = _clusters(found, counts, rates)
    shares, clusters = kernels.writing.scaled(counts), labels[rates]
    used = found.layout
    states, stream = kernels.moves.encode(used.keys(base, dtype), moves, clusters.reshape(-1), shares)
    others = kernels.tokens.places_of(moves, kernels.moves.OTHER)
    is_all, differences = context_rates.differences(found, values, others) if others.size else (False, b"")
    head = (
        used.top,
        used.level_count,
        used.use_fine,
        block,
        is_all,
        shares.shape[0],
        others.size,
        stream.size,
    )
    return b"".join(
        (
            _HEAD.pack(_CODED, *head, *states.tolist()),
            shares.astype("<u2").data,
            context_rates.section(used.levels, used.level_count, clusters),
            stream.astype("<u4", copy=False).data,
            differences,
        )
    )


def encode(new: TensorWords, base: TensorWords, ranges: Sequence[Range]) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the base does not fit, or has words of another kind."""
    target = Target(new.dtype, new.shape)
    if new.dtype not in DTYPES or not fits(target, base):
        return None
    row = target.row_words
    chunks = (_encode_chunk(new.read(*r), base.read(*r), new.dtype, row) for r in ranges)
    return Encoded(NAME, None, tuple(chunks))


# -- decoding -------------------------------------------------------------------------------


def _shares(view: memoryview, clusters: int) -> NDArray[np.uint32]:
    """Return the share of each move in each cluster."""
    if not 1 <= clusters <= _CLUSTERS or len(view) - _HEAD.size < 8 * clusters:
        raise CodecError("an encoded step has an impossible header")
    rows = [*_SHARES.iter_unpack(view[_HEAD.size : _HEAD.size + _SHARES.size * clusters])]
    if any(sum(row) != kernels.moves.SHARES for row in rows):
        raise CodecError("the shares of an encoded step do not add up")
    return np.array(rows, np.uint32)


@dataclass(frozen=True)
class _ReadNudges(ReadParts):
    """An encoded step whose tables were read; ``numbers`` are clusters, ``shares`` those of their moves."""

    shares: NDArray[np.uint32]

    @classmethod
    def of(cls, view: memoryview, size: int, dtype: str) -> _ReadNudges:
        if len(view) < _HEAD.size or view[0] != _CODED or size == 0:
            raise CodecError("an encoded step has an unknown form")
        _, *head, all_parts, clusters, count, length = _HEAD.unpack_from(view)[:9]
        shares, padded = _shares(view, clusters), -(-size // _GROUP) * _GROUP
        read = context_rates.ContextHead(*head).read
        layout, numbers, position = read(view, _HEAD.size + 8 * clusters, padded, dtype, clusters - 1)
        if all_parts > 1 or count > size or layout.block % _GROUP:
            raise CodecError("an encoded step has an impossible header")
        states = np.array(_HEAD.unpack_from(view)[9:], np.uint64)
        stream, end = context_rates.stored_stream(view, position, length)
        if not count and end != len(view):
            raise CodecError("an encoded step has bytes behind its end")
        section = entropy.stored(view, end) if count else None
        return cls(dtype, size, layout, numbers, states, stream, count, bool(all_parts), section, shares)

    def __call__(self, base: Words) -> Words:
        if base.size != self.size:
            raise CodecError("a step does not fit its base")
        words, count = _readable(base), self.count
        keys, out = self.layout.keys(words, self.dtype), np.empty_like(words)
        decode = kernels.moves.decode
        found = decode(self.states, self.stream, keys, self.numbers, self.shares, out, count)
        if found is None or found.places.size != count or (count and int(found.places[-1]) >= base.size):
            raise CodecError("an encoded step is damaged")
        self.change(kernels.sections.ChangedWords(out, keys, found.places, found.numbers, True))
        return out[: base.size]


def ready(payload: memoryview, size: int, dtype: str) -> OnBase:
    """Read the tables of the chunk ``payload``, whose base has ``size`` words.

    It, and what it returns, raise :class:`~theta.errors.CodecError` for anything malformed, and for words of
    another kind.
    """
    if dtype not in DTYPES:
        raise CodecError("a step does not fit its base")
    return same if bytes(payload[:2]) == _SAME else _ReadNudges.of(payload, size, dtype)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> StepDecoder:
    """Get ready to decode chunks of ``target``."""
    if shared or target.dtype not in DTYPES or not fits(target, base):
        raise CodecError("a step does not fit its base")
    return StepDecoder(ready, target, base)
