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
from theta.lazy import lazy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta_native.clusters import Listed
    from theta_native.coded.sections import ChangedWords, SectionHead
    from theta_native.contexts import ContextKeys

    Words = NDArray[Any]
    Contexts = NDArray[np.uint16]
    Counts = NDArray[np.uint32]

_HEAD: Final = struct.Struct("<BBBI4I")
_TOTAL: Final = 4096
_MAX_CLUSTERS: Final = 64
_WORTH_TWICE: Final = 0.004
"""The share of the bits that twice as many clusters must save: their tables leave the nearest caches."""
_BITS_A_CLUSTER: Final = 16.0
_BITS_A_FREQUENCY: Final = 10.0
_BITS_BY_CHANCE: Final = 0.75
"""The bits that a frequency takes in a table, and those that it saves of a sample by chance."""
_UNSEEN_BITS: Final = 14.0

TOKEN_RULES: Final = ((4, 1), (8, 2))
"""The (s, m) that an encoder tries, the finest last: few tokens, or one for each value below 256."""


@dataclass(frozen=True)
class Tables:
    """A grouping of contexts: the cluster of each that occurs.

    ``bits`` are about those of everything, of which ``stored`` are for the tables and the grouping.
    """

    occurring: NDArray[np.int64]
    labels: NDArray[np.int64]
    bits: float
    stored: float

    def clusters(self, count: int) -> NDArray[np.uint8]:
        """Return the cluster of each of ``count`` contexts; of one that was not counted, a neighbour's."""
        after = np.searchsorted(self.occurring, np.arange(count))
        found: NDArray[np.uint8] = self.labels[np.minimum(after, self.labels.size - 1)].astype(np.uint8)
        return found


@dataclass(frozen=True)
class Counted:
    """Counts of the tokens of the rule ``(s, m)`` in every context, for values of ``bits`` bits."""

    bits: int
    s: int
    m: int
    counts: Counts

    @lazy
    def raw_bits(self) -> int:
        """The number of raw bits of all values."""
        widths = kernels.tokens.raw_widths(self.bits, self.s, self.m)
        return int(self.listed.totals @ widths[: self.listed.totals.size].astype(np.int64))

    @lazy
    def listed(self) -> Listed:
        """The counts that are not zero."""
        return kernels.clusters.Listed(self.counts)

    def grouped(self, kinds: NDArray[np.int64]) -> Counts:
        """Add up the counts of each kind; context ``c`` is of kind ``kinds[c]``."""
        alphabet = self.counts.shape[1]
        return self.listed.regrouped(kinds, np.arange(alphabet, dtype=np.uint16), alphabet)

    def under(self, rule: tuple[int, int]) -> Counted:
        """Return the counts under a rule that is coarser, or the same."""
        if rule == (self.s, self.m):
            return self
        names = kernels.tokens.coarser(self.bits, (self.s, self.m), rule)
        each = np.arange(self.counts.shape[0])
        counts = self.listed.regrouped(each, names, int(names[-1]) + 1)
        return Counted(self.bits, *rule, counts)


def count(values: Words, rule: tuple[int, int], contexts: Contexts, context_count: int) -> Counted:
    """Count the tokens of ``values`` in their contexts."""
    counts = kernels.tokens.counts(values, *rule, contexts, context_count)
    return Counted(values.dtype.itemsize * 8, *rule, counts)


def by_all_rules(values: Words, contexts: Contexts, context_count: int) -> list[Counted]:
    """Count by each of ``TOKEN_RULES``, reading the values once."""
    finest = count(values, TOKEN_RULES[-1], contexts, context_count)
    return [finest.under(rule) for rule in TOKEN_RULES]


def frequencies(sums: NDArray[np.int64]) -> Counts:
    """Scale counts to add up to 4096, with at least 1 for each token that occurs."""
    scaled = np.rint(sums * (_TOTAL / sums.sum(axis=1, keepdims=True))).astype(np.int64)
    scaled = np.where(sums > 0, np.maximum(scaled, 1), 0)
    for row in scaled:
        while (excess := int(row.sum()) - _TOTAL) != 0:
            largest = int(row.argmax())
            row[largest] = max(row[largest] - excess, (row[largest] + 1) // 2)
    return scaled.astype(np.uint32)


def _joined(listed: Listed, weight: int) -> tuple[NDArray[np.int64], float]:
    """Return a grouping of contexts, without gaps, and about the bits of everything with it."""
    costs = _frequency_bits(weight), 1.0 / weight, _BITS_A_CLUSTER / weight, _WORTH_TWICE
    return listed.joined(_MAX_CLUSTERS, costs)


def _frequency_bits(weight: int) -> float:
    """Return the bits of a frequency of a table, as the share of one of ``weight`` parts in it."""
    return _BITS_A_FREQUENCY / weight + (_BITS_BY_CHANCE if weight > 1 else 0.0)


def _stored_bits(used: int, labels: NDArray[np.int64], weight: int) -> float:
    """Estimate the share of one of ``weight`` parts in the bits of tables and of the map of contexts."""
    shares = np.bincount(labels) / labels.size
    entropy = float(-(shares * np.log2(shares)).sum())
    groups = _BITS_A_CLUSTER * shares.size + labels.size * entropy
    return used * _frequency_bits(weight) + groups / weight


def estimate(listed: Listed, weight: int = 1) -> float:
    """Estimate the bits of tokens with these counts, one of ``weight`` parts with the same tables."""
    return _joined(listed, weight)[1]


def plan(listed: Listed, weight: int = 1) -> Tables:
    """Return good tables for these counts (at least one), of one of ``weight`` like parts."""
    labels, bits, used = listed.improve(_joined(listed, weight)[0], _UNSEEN_BITS)
    stored = _stored_bits(used, labels, weight)
    return Tables(listed.occurring, labels, bits + stored, stored)


@dataclass(frozen=True)
class EncodedSection:
    """An entropy section, and the bits of its tokens and raw bits."""

    data: bytes
    bits: float


def encode(values: Words, keys: ContextKeys, counted: Counted, chosen: Tables) -> EncodedSection:
    """Return the entropy section of ``values`` in the contexts of ``keys``.

    ``counted`` and ``chosen`` may be those of a part of the values, without some contexts and tokens.
    """
    clusters = chosen.clusters(keys.count)
    placed = kernels.tokens.places(values, (counted.s, counted.m), keys, clusters)
    table = frequencies(placed.counts.astype(np.int64))
    states, words = kernels.rans.encode(placed.places, table)
    used = (table.shape[1] - (table[:, ::-1] > 0).argmax(axis=1)).astype("<u2")
    listed = np.concatenate([row[:number] for row, number in zip(table, used, strict=True)]).astype("<u2")
    halves = np.ascontiguousarray(listed.view(np.uint8).reshape(-1, 2).T)
    labels = clusters[placed.occurring] if table.shape[0] > 1 else np.empty(0, np.uint8)
    data = b"".join(
        (
            _HEAD.pack(counted.s, counted.m, table.shape[0], words.size, *states.tolist()),
            frames.encode_section([labels, used.view(np.uint8)]),
            frames.encode_section(halves),
            words.astype("<u2", copy=False).data,
            placed.raw_bits.data,
        )
    )
    return EncodedSection(data, 16.0 * words.size + 8.0 * placed.raw_bits.size)


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
