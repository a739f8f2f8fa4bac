"""Coding of unsigned values under contexts that the decoder knows.

Values become tokens and raw bits (``theta_native.tokens``).  Contexts whose tokens are
distributed alike are grouped into clusters; each cluster has one table of frequencies.  All
tables are stored: nothing is learnt while decoding, so that decoding is a table look-up.

Format of an *entropy section* (little-endian), for values of a known number and width whose
contexts are known::

    u8       s, u8 m: which values are tokens (m <= s <= 8, m <= 2)
    u8       k, the number of clusters (1 to 64)
    u32      w, the number of 16-bit words of the rANS stream
    4 x u32  the states of the rANS decoder
    section  (theta.codecs.planes) of two planes: for each context that occurs, in order, its
             cluster (u8; no bytes at all if k is 1); for each cluster the number of its
             tokens t, u16
    section  of two planes: for each cluster and each of its first t tokens the low byte of
             the frequency; the same for the high bytes
    w x u16  the rANS stream
    bytes    the raw bits of all values in order, lowest bit first, padded with zeros to a byte

Contexts occur in ascending order.  The frequencies of each cluster, also of one that no context is in, add
up to 4096; tokens from t on have none, and t is not more than the tokens that values of the width can have.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import frames
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta_native.coded.choices import CodingChoice
    from theta_native.coded.sections import ChangedWords, SectionHead
    from theta_native.contexts import ContextKeys

    Words = NDArray[Any]
    Contexts = NDArray[np.uint16]

_HEAD: Final = struct.Struct("<BBBI4I")
_MAX_CLUSTERS: Final = 64
_WORTH_TWICE: Final = 0.004
"""The share of the bits that twice as many clusters must save: their tables leave the nearest caches."""
_BITS_A_CLUSTER: Final = 16.0
_BITS_A_FREQUENCY: Final = 10.0
_BITS_BY_CHANCE: Final = 0.75
"""The bits that a frequency takes in a table, and those that it saves of a sample by chance."""
_UNSEEN_BITS: Final = 14.0

TOKEN_RULES: Final[tuple[tuple[int, int], ...]] = ((4, 1), (8, 2))
"""The (s, m) that an encoder tries, the finest last: few tokens, or one for each value below 256."""


def choose(
    values: Words,
    contexts: Contexts,
    shape: tuple[int, int, int],
    rules: tuple[tuple[int, int], ...] = TOKEN_RULES,
    weight: int = 1,
    level_bits: float = 0.0,
    negligible: float = 0.0,
) -> CodingChoice:
    """Choose how to code ``values`` (at least one), which stand for ``weight`` times as many.

    Contexts are ``(class * levels + level) * fine + fine class``, where ``shape`` are the numbers of classes,
    levels and fine classes; levels cost ``level_bits``.  Tables that take less than a ``negligible`` share
    are not worth a search for fewer contexts or tokens.
    """
    choices = kernels.choices
    costs = choices.Estimate(
        frequency=_BITS_A_FREQUENCY / weight + (_BITS_BY_CHANCE if weight > 1 else 0.0),
        member=1.0 / weight,
        cluster=_BITS_A_CLUSTER / weight,
        twice=_WORTH_TWICE,
        levels=level_bits,
        negligible=negligible,
        unseen=_UNSEEN_BITS,
    )
    return choices.choose(values, contexts, shape, rules, costs, _MAX_CLUSTERS)


@dataclass(frozen=True)
class EncodedSection:
    """An entropy section, and the bits of its tokens and raw bits."""

    data: bytes
    bits: float


def encode(values: Words, keys: ContextKeys, coding: CodingChoice) -> EncodedSection:
    """Return the entropy section of ``values`` in the contexts of ``keys``.

    ``coding`` may be that of a part of the values, without some contexts and tokens.
    """
    clusters, rule = coding.clusters(keys.count), coding.rule
    written = kernels.writing.write(values, keys, rule, clusters)
    count = written.used.size
    labels = clusters[written.occurring] if count > 1 else np.empty(0, np.uint8)
    tables = [labels, written.used.astype("<u2").view(np.uint8), written.low, written.high]
    coded = frames.encode_planes([*map(frames.Uncoded.of, tables)])
    data = b"".join(
        (
            _HEAD.pack(*rule, count, written.words.size, *written.states.tolist()),
            frames.section(coded[:2]),
            frames.section(coded[2:]),
            written.words.astype("<u2", copy=False).data,
            written.raw_bits.data,
        )
    )
    return EncodedSection(data, 16.0 * written.words.size + 8.0 * written.raw_bits.size)


_FAULTS: Final = {
    -1: "an encoded chunk is damaged",
    -2: "the tables of an encoded chunk do not add up",
    -3: "an encoded chunk is cut short",
}
"""By the numbers of ``theta_native.coded.sections``."""


@dataclass(frozen=True)
class StoredSection:
    """A section whose tables were read: what stands before them, and the bytes behind them."""

    head: SectionHead
    rest: NDArray[np.uint8]

    def change(self, changed: ChangedWords, contexts: int, parts: int) -> None:
        """Change words by the section, which has no bytes behind its end.

        Its values are zigzagged differences less 1; the context of each, below ``contexts``, is that of its
        word over ``parts``.
        """
        read = kernels.sections.change(self.rest, self.head, changed, contexts, parts)
        if read < 0:
            raise CodecError(_FAULTS[read])
        if read != self.rest.size:
            raise CodecError("an encoded step has bytes behind its end")


def stored(blob: memoryview, position: int) -> StoredSection:
    """Read the tables of the section at ``position``."""
    if len(blob) - position < _HEAD.size:
        raise CodecError("an encoded chunk is cut short")
    s, m, count, size, *states = _HEAD.unpack_from(blob, position)
    if not (m <= s <= 8 and m <= 2 and 1 <= count <= _MAX_CLUSTERS):
        raise CodecError("an encoded chunk has an impossible header")
    sections = kernels.sections
    planes, ends, position = frames.stored_planes(blob, position + _HEAD.size, (2, 2), sections.LONGEST)
    if 2 * size > len(blob) - position:
        raise CodecError("an encoded chunk is cut short")
    rest = np.frombuffer(blob[position:], np.uint8)
    return StoredSection(sections.SectionHead(s, m, count, size, states, planes, ends), rest)


def decode(blob: memoryview, position: int, keys: ContextKeys, dtype: np.dtype[Any]) -> tuple[Words, int]:
    """Return the values of the section at ``position``, one for each of ``keys``, and its end."""
    found = stored(blob, position)
    values, read = kernels.sections.decode(found.rest, found.head, keys, dtype)
    if read < 0:
        raise CodecError(_FAULTS[read])
    return values, len(blob) - found.rest.size + read
