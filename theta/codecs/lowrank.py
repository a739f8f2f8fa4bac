"""``lowrank/1``: a matrix as the base plus a product of two thin factors (a merged LoRA).

The base has the same dtype (f16, bf16 or f32) and shape; the matrix is the tensor's 2-d view,
``m`` rows of ``n`` words (``format.md``, section 7).  The factors are integers, ``u`` of shape (m, r)
and ``v`` of shape (n, r).  Shared bytes, little-endian::

    u16      r, the rank (1 to 256; the factors may not have more numbers than the matrix)
    i16      s, the scale (-400 to 400)
    entropy section (theta.codecs.entropy) of the m * r values of u, u32, zigzagged, row by row;
             the context of each is its column
    entropy section of the n * r values of v, likewise

A chunk is one residual section (theta.codecs.residual).  The exact value behind the prediction
of word (i, j) is, in float64::

    x = base value + (sum over k of u[i, k] * v[j, k]) * 2**s

The prediction is x rounded to the dtype as in ``cast/1``.  The sum is exact: with
``r * max|u| * max|v| < 2**53`` no order of additions rounds.  Where this is not so, u is split
into ``u = h * 2**14 + l`` with ``0 <= l < 2**14``; both partial sums must then satisfy it, and
``sum = h-sum * 2**14 + l-sum``, rounded once.

The fine class of a word (instead of mantissa bits) says where x lies between the words around
it.  With ``t = (|x| - |prediction|) / (unit in the last place of the prediction)``, between -1/2
and 1/2, it is ``2 * min(7, floor(-log2(1/2 - |t|)) - 1) + (1 if t < 0 else 0)``: predictions
near a boundary are the uncertain ones, and the sign says to which side.  Where |t| is 1/2 or more
(a tie, an overflow) the first term is 14; where x or the prediction is not finite the class is 14.
There are 16 fine classes, whatever the dtype.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import arith, entropy, residual
from theta.codecs.base import Base, Encoded, Range, Target, TensorWords, word_dtype
from theta.codecs.factoring.factors import Factors, has_room
from theta.codecs.factoring.projections import find
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]
    Factor = NDArray[np.int64]

NAME: Final = "lowrank/1"
DTYPES_OF_MATRICES: Final = ("f16", "bf16", "f32")
_HEAD: Final = struct.Struct("<Hh")
_TILE_WORDS: Final = 1 << 16
_SAMPLE_WORDS: Final = 1 << 15
"""Words that are encoded to tell what factors cost."""


def fits(target: Target, base: Base) -> bool:
    """Return whether ``base`` is a matrix like ``target``, of a dtype that this codec knows."""
    same = (base.dtype, tuple(base.shape)) == (target.dtype, target.shape)
    return same and target.dtype in DTYPES_OF_MATRICES and target.row_words > 0 and target.words > 0


def _predict(
    base: Base, target: Target, factors: Factors, start: int, stop: int
) -> tuple[Words, residual.Fine]:
    """Return the predicted words from ``start`` to ``stop``, and their fine classes."""
    predicted = np.empty(stop - start, word_dtype(target.dtype))
    classes = np.empty(stop - start, np.uint8)
    below = base.read(start, stop)
    for first, last in _tiles(start, stop, target.row_words):
        part = slice(first - start, last - start)
        added = _added(factors, first, last, target.row_words)
        predicted[part], classes[part] = arith.sums(below[part], added, target.dtype)
    return predicted, residual.Fine(classes, 16)


def _tiles(start: int, stop: int, columns: int) -> Iterator[Range]:
    """Yield the words from ``start`` to ``stop`` in pieces that a core can cache, cut between rows."""
    step = max(_TILE_WORDS // columns, 1) * columns
    ends = [start, *range(start // step * step + step, stop, step), stop]
    return pairwise(ends)


def _added(factors: Factors, start: int, stop: int, columns: int) -> NDArray[np.float64]:
    """Return the product at the words from ``start`` to ``stop``."""
    first, last = start // columns, -(-stop // columns)
    found: NDArray[np.float64]
    if last - first == 1:
        found = factors.product(slice(first, last), slice(start % columns, start % columns + stop - start))[0]
    else:
        rows = factors.product(slice(first, last), slice(0, columns)).reshape(-1)
        found = rows[start - first * columns : stop - first * columns]
    return found


def predict(base: Base, factors: Factors, start: int, stop: int) -> Words:
    """Return the words from ``start`` to ``stop`` of ``base`` plus the product."""
    return _predict(base, Target(base.dtype, base.shape), factors, start, stop)[0]


def _pack_factor(factor: Factor) -> bytes:
    zigzag = ((factor << 1) ^ (factor >> 63)).astype(np.uint32).reshape(-1)
    rank = factor.shape[1]
    contexts = np.tile(np.arange(rank, dtype=np.uint16), factor.shape[0])
    keys = kernels.contexts.ContextKeys.of(contexts, rank)
    return entropy.encode(zigzag, keys, entropy.choose(zigzag, contexts, (rank, 1, 1))).data


def _unpack_factor(blob: memoryview, position: int, lines: int, rank: int) -> tuple[Factor, int]:
    contexts = np.tile(np.arange(rank, dtype=np.uint16), lines)
    keys = kernels.contexts.ContextKeys.of(contexts, rank)
    values, position = entropy.decode(blob, position, keys, np.dtype("<u4"))
    zigzag = values.astype(np.int64)
    return ((zigzag >> 1) ^ -(zigzag & 1)).reshape(lines, rank), position


def pack(factors: Factors) -> bytes:
    """Return the shared bytes."""
    head = _HEAD.pack(factors.u.shape[1], factors.scale)
    return head + _pack_factor(factors.u) + _pack_factor(factors.v)


def unpack(shared: memoryview, target: Target) -> Factors:
    """Return the factors in the shared bytes, checked; raises ``CodecError``."""
    if len(shared) < _HEAD.size:
        raise CodecError("the factors of a low-rank layer are cut short")
    rank, scale = _HEAD.unpack_from(shared)
    if not has_room(rank, target.rows, target.row_words):
        raise CodecError("a low-rank layer has an impossible header")
    u, position = _unpack_factor(shared, _HEAD.size, target.rows, rank)
    v, position = _unpack_factor(shared, position, target.row_words, rank)
    factors = Factors(u, v, scale)
    if position != len(shared) or not factors.is_storable:
        raise CodecError("the factors of a low-rank layer are damaged")
    return factors


def rank_of(shared: bytes | memoryview) -> int:
    """Return the rank of the factors in the shared bytes of a layer; raises :class:`CodecError`."""
    if len(shared) < _HEAD.size:
        raise CodecError("the factors of a lowrank layer are missing")
    return int(_HEAD.unpack_from(shared)[0])


def encode_factors(new: TensorWords, base: TensorWords, ranges: Sequence[Range], factors: Factors) -> Encoded:
    """Encode with given factors; raises ``CodecError`` unless a reader takes them."""
    if not factors.is_storable:
        raise CodecError("these factors cannot be stored in a low-rank layer")
    target = Target(new.dtype, new.shape)
    chunks = []
    for start, stop in ranges:
        predicted, fine = _predict(base, target, factors, start, stop)
        chunks.append(residual.encode(new.read(start, stop), predicted, new.dtype, target.row_words, fine))
    return Encoded(NAME, pack(factors), tuple(chunks))


def encode(
    new: TensorWords, base: TensorWords, ranges: Sequence[Range], hidden: bool = True
) -> Encoded | None:
    """Encode the chunks ``ranges``; None when the difference is not of low rank.

    Unless ``hidden`` factors are wanted, they are looked for only where they show at a glance.
    """
    if not fits(Target(new.dtype, new.shape), base) or not len(ranges):
        return None
    found = find(new, base, lambda factors: _cost(new, base, ranges, factors), hidden)
    return encode_factors(new, base, ranges, found) if found else None


def _cost(new: TensorWords, base: TensorWords, ranges: Sequence[Range], factors: Factors) -> float:
    """Estimate the stored bytes with these factors, from a part of the chunks."""
    row = Target(new.dtype, new.shape).row_words
    start, stop = ranges[len(ranges) // 2]
    stop = min(stop, start + max(_SAMPLE_WORDS // row, 1) * row)
    chunk = encode_factors(new, base, [(start, stop)], factors)
    total = sum(b - a for a, b in ranges)
    return len(chunk.shared or b"") + len(chunk.chunks[0]) * total / (stop - start)


@dataclass(frozen=True)
class _Decoder:
    target: Target
    base: Base
    factors: Factors

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk."""
        predicted, fine = _predict(self.base, self.target, self.factors, start, stop)
        return residual.decode(payload, predicted, self.target.dtype, fine)


def decoder(shared: bytes | memoryview | None, target: Target, base: Base) -> _Decoder:
    """Check and decode the factors, and get ready to decode chunks of ``target``."""
    if not shared or not fits(target, base):
        raise CodecError("a low-rank layer does not fit its base")
    return _Decoder(target, base, unpack(memoryview(shared), target))
