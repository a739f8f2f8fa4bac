"""The words of a chunk that change, by context: how often, which contexts to tell apart, a number for each.

Shared by codecs whose chunks have a byte for each context of a residual section
(:mod:`theta.codecs.residual`), less that of a context like it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from theta import _kernels as kernels
from theta._numpy import np
from theta.codecs import entropy, planes, residual
from theta.codecs.base import Base, OnBase, Target
from theta.codecs.residual import CLASSES, ContextLayout
from theta.errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.codecs.entropy import StoredSection
    from theta_native.coded.sections import ChangedWords

    Places = NDArray[np.uint32]
    Words = NDArray[Any]
    Numbers = NDArray[np.uint8]
    Counts = NDArray[np.float64]

LAST_RATE: Final = 72
_A_RATE: Final = 3.0
"""The bits, about, of the rate of a context."""
_WORTH_A_RATE: Final = 5.0
"""The bits that a rate of its own must save of a context."""
_BY_CHANCE: Final = 0.1
"""The words with, and without, a difference that are added to those of a context: no rate is sure to be 0."""


@cache
def _hazards() -> NDArray[np.uint32]:
    """Return the hazards of all rates."""
    found: NDArray[np.uint32] = np.rint(2.0 ** (np.arange(LAST_RATE + 1) / 4)).astype(np.uint32)
    return found


def hazards(rates: Numbers) -> NDArray[np.uint32]:
    """Return the hazard of each rate."""
    return _hazards()[rates]


def _nearest_rates(changed: Counts, total: Counts) -> Numbers:
    """Return the rate of contexts with so many words that differ, of so many."""
    left = (total - changed + _BY_CHANCE) / (total + 2 * _BY_CHANCE)
    exact = 4 * np.log2(np.maximum(-np.log(left) * kernels.events.UNIT, 1.0))
    rates: Numbers = np.minimum(np.rint(exact), LAST_RATE).astype(np.uint8)
    return rates


def _bits(changed: Counts, total: Counts, rates: Numbers) -> Counts:
    """Return the bits of the places in each context."""
    each = hazards(rates) / kernels.events.UNIT
    found: Counts = (total - changed) * each / np.log(2) - changed * np.log2(-np.expm1(-each))
    return found


def chosen_rates(changed: Counts, total: Counts) -> Numbers:
    """Return a rate for each class, level and fine class, whose own is given only where it is worth it."""
    both = changed.sum(axis=2, keepdims=True), total.sum(axis=2, keepdims=True)
    own, common = _nearest_rates(changed, total), _nearest_rates(*both)
    for kind in range(1, CLASSES):  # a class that does not occur is like the one before
        common[kind] = np.where(both[1][kind] > 0, common[kind], common[kind - 1])
    saved = _bits(changed, total, np.broadcast_to(common, own.shape)) - _bits(changed, total, own)
    rates: Numbers = np.where(saved > _WORTH_A_RATE, own, common).astype(np.uint8)
    return rates


def section(levels: Numbers, level_count: int, numbers: Numbers) -> bytes:
    """Return the section of the level of each block, and of a number for each class, level and fine class."""
    found = numbers.copy()
    found[:, :, 1:] -= numbers[:, :, :-1]
    found[1:, :, 0] -= numbers[:-1, :, 0]
    found[0, 1:, 0] -= numbers[0, :-1, 0]
    return planes.encode_section([levels if level_count > 1 else levels[:0], found.reshape(-1)])


@dataclass(frozen=True)
class ContextHead:
    """The parts of the contexts of a chunk as its head has them."""

    top: int
    level_count: int
    use_fine: int
    block: int

    def read(
        self, view: memoryview, start: int, words: int, dtype: str, largest: int
    ) -> tuple[ContextLayout, Numbers, int]:
        """Return the contexts of so many words, the number of each, and the end of the section."""
        if not (1 <= self.level_count <= residual.MAX_LEVELS and self.use_fine <= 1 and self.block >= 1):
            raise CodecError("an encoded step has an impossible header")
        blocks, is_leveled = -(-words // self.block), self.level_count > 1
        levels = np.zeros(0 if is_leveled else blocks, np.uint8)
        layout = ContextLayout(self.top, levels, self.level_count, self.block, bool(self.use_fine))
        count = layout.count * layout.fine_count(dtype)
        (found, stored), end = planes.read_planes(view, start, [blocks if is_leveled else 0, count])
        numbers = np.empty(count, np.uint8)
        most = kernels.sections.summed(stored, self.level_count, count // CLASSES, numbers)
        if most > largest or (is_leveled and int(found.max()) >= self.level_count):
            raise CodecError("an encoded step has an impossible rate or level")
        return replace(layout, levels=found.copy()) if is_leveled else layout, numbers, end


@dataclass(frozen=True)
class ReadParts:
    """The parts of an encoded step that were read, for a base of ``size`` words.

    There is one of ``numbers`` for each context.  ``count`` is how many words the section ``differences``
    changes, the last of a chunk.
    """

    dtype: str
    size: int
    layout: ContextLayout
    numbers: Numbers
    states: NDArray[np.uint64]
    stream: NDArray[np.uint32]
    count: int
    has_all_parts: bool
    differences: StoredSection | None

    def change(self, changed: ChangedWords) -> None:
        """Change words by the section that :func:`differences` wrote, if there is one."""
        parts = 1 if self.has_all_parts else self.numbers.size // CLASSES
        if self.differences is not None:
            self.differences.change(changed, self.numbers.size // parts, parts)


def stored_stream(view: memoryview, start: int, length: int) -> tuple[NDArray[np.uint32], int]:
    """Return the ``length`` words of a stream, and its end."""
    if 4 * length > len(view) - start:
        raise CodecError("an encoded step has an impossible header")
    return np.frombuffer(view, "<u4", length, start), start + 4 * length


@dataclass(frozen=True)
class StepDecoder:
    """Decodes the chunks of a tensor, each on the same words of its base.

    Args:
        ready: reads the tables of a chunk, whose base has so many words of a type.
        target: dtype and shape.
        base: the words that the step is of.
    """

    ready: Callable[[memoryview, int, str], OnBase]
    target: Target
    base: Base

    def decode(self, payload: bytes | memoryview, start: int, stop: int) -> Words:
        """Return the words of one chunk, which may be those of the base."""
        return self.ready(memoryview(payload), stop - start, self.target.dtype)(self.base.read(start, stop))


# -- what changes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ContextCounts:
    """The words of a chunk, and those that differ, counted by class, level and fine class.

    ``contexts`` are those with all parts; ``kinds`` has the one of ``layout`` for each.
    """

    layout: ContextLayout
    contexts: NDArray[np.uint16]
    kinds: NDArray[np.int64]
    changed: Counts
    total: Counts

    @classmethod
    def of(
        cls, layout: ContextLayout, dtype: str, contexts: NDArray[np.uint16], changed: Counts, total: Counts
    ) -> ContextCounts:
        """Take counts of each of ``contexts``, which are those of ``layout``."""
        shape = CLASSES, layout.level_count, layout.fine_count(dtype)
        return cls(layout, contexts, np.arange(changed.size), changed.reshape(shape), total.reshape(shape))

    def _without(self, use_levels: bool, use_fine: bool) -> ContextCounts:
        """Return what there is when levels or fine classes are not looked at."""
        layout, axes = self.layout, _unused(use_levels, use_fine)
        if not use_levels and layout.level_count > 1:
            layout = replace(layout, levels=np.zeros_like(layout.levels), level_count=1)
        changed, total = (each.sum(axis=axes, keepdims=True) for each in (self.changed, self.total))
        _, level_count, fine_count = self.changed.shape
        kinds = residual.kinds_of(level_count, fine_count, use_levels, use_fine)
        return ContextCounts(replace(layout, use_fine=use_fine), self.contexts, kinds, changed, total)

    def with_best_contexts(self) -> ContextCounts:
        """Return what there is in the contexts that cost least."""
        level_bits = 8.0 * len(planes.encode_section([self.layout.levels]))
        return self._without(*min(self._ways(), key=lambda way: self._bits(*way) + level_bits * way[0]))

    def _ways(self) -> Iterator[tuple[bool, bool]]:
        """Yield whether to use levels and fine classes, in all ways."""
        for use_levels in (True, False) if self.layout.level_count > 1 else (False,):
            for use_fine in (True, False) if self.changed.shape[2] > 1 else (False,):
                yield use_levels, use_fine

    def _bits(self, use_levels: bool, use_fine: bool) -> float:
        """Return about the bits of the places and of the rates."""
        axes = _unused(use_levels, use_fine)
        changed, total = self.changed.sum(axis=axes), self.total.sum(axis=axes)
        some = total > 0
        changed, total = changed[some], total[some]
        share = np.clip(changed / total, 1e-9, 1 - 1e-9)
        return float(
            _A_RATE * changed.size - (changed * np.log2(share) + (total - changed) * np.log2(1 - share)).sum()
        )


def _unused(use_levels: bool, use_fine: bool) -> tuple[int, ...]:
    """Return the axes of counts that are not looked at."""
    return (() if use_levels else (1,)) + (() if use_fine else (2,))


def differences(found: ContextCounts, values: Words, places: Places) -> tuple[bool, bytes]:
    """Return whether the differences at ``places`` have all contexts, and their entropy section."""
    rest = values[places] - values.dtype.type(1)
    contexts = found.kinds.astype(np.uint16)[found.contexts[places]]
    count, fine = found.changed.size, found.changed[0].size
    coding = entropy.choose(rest, contexts, (CLASSES, 1, fine))
    is_all = fine > 1 and coding.use_fine
    if not is_all:
        contexts, count = contexts // np.uint16(fine), CLASSES
    keys = kernels.contexts.ContextKeys.of(contexts, count)
    return is_all, entropy.encode(rest, keys, coding).data
