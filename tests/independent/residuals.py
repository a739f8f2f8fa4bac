"""Contexts of words, and differences to predictions (codecs.md: differences, residual, steps, nudges)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.independent import coders
from tests.independent.numbers import Kind, Words, magnitude, stepper
from tests.independent.primitives import Cursor, require
from tests.independent.sections import entropy, planes

CLASSES: Final = 24
NEARNESSES: Final = 16
"""The fine classes of a codec that has its own."""
FineClass = Callable[[int, int], int]
"""From the number of a word, and its prediction, to its fine class."""


@dataclass(frozen=True)
class Head:
    """The head of a residual section."""

    top: int
    levels: int
    has_fine: bool
    block: int

    @classmethod
    def read(cls, cursor: Cursor) -> Head:
        """Read the head that residual sections, steps and nudges have in common."""
        top, levels, fine, block = (cursor.uint(width) for width in (2, 1, 1, 4))
        require(1 <= levels <= 8 and fine <= 1 and block >= 1, "a residual section has a bad head")
        return cls(top, levels, bool(fine), block)

    def blocks(self, count: int) -> int:
        """Return the bytes of the plane of levels, for ``count`` words."""
        return -(-count // self.block) if self.levels > 1 else 0

    def contexts(self, words: Words, kind: Kind, levels: bytes, fine: FineClass | None) -> list[int]:
        """Return the context of each word whose prediction is given."""
        require(all(level < self.levels for level in levels), "a block has no such level")
        many = (NEARNESSES if fine else fine_classes(kind)) if self.has_fine else 1
        fine = fine or mantissa_class(kind)
        found = []
        for number, (word, length) in enumerate(zip(words, map(magnitude(kind), words), strict=True)):
            level = levels[number // self.block] if levels else 0
            place = _class(self.top, length) * self.levels + level
            found.append(place * many + (fine(number, word) if self.has_fine else 0))
        return found


def _class(top: int, length: int) -> int:
    return min(max(top - length, 0), CLASSES - 1)


def fine_classes(kind: Kind) -> int:
    """Return the number of fine classes of a type: one if it has no mantissa, or a shorter one."""
    bits = 4 if kind.width >= 4 else 3
    return 1 << bits if kind.is_float and kind.mantissa >= bits else 1


def mantissa_class(kind: Kind) -> FineClass:
    """Return the fine class that the top bits of the mantissa are."""
    bits = fine_classes(kind).bit_length() - 1
    if not bits:
        return lambda _, __: 0
    mask, shift = (1 << kind.mantissa) - 1, kind.mantissa - bits
    return lambda _, word: (word & mask) >> shift


def residual(cursor: Cursor, predicted: Words, kind: Kind, fine: FineClass | None = None) -> Words:
    """Read a residual section."""
    if not _is_encoded(cursor):
        return predicted
    head = Head.read(cursor)
    (levels,) = planes(cursor, [head.blocks(len(predicted))])
    contexts = head.contexts(predicted, kind, levels, fine)
    _step(predicted, range(len(predicted)), entropy(cursor, contexts, 8 * kind.width), kind)
    return predicted


def _is_encoded(cursor: Cursor) -> bool:
    mode = cursor.uint(1)
    require(mode <= 1, "a chunk has neither mode 0 nor 1")
    return mode == 1


def _step(words: Words, places: Iterable[int], differences: Iterable[int], kind: Kind) -> None:
    step = stepper(kind)
    for place, difference in zip(places, differences, strict=True):
        words[place] = step(words[place], difference)


def steps(cursor: Cursor, base: Words, kind: Kind) -> Words:
    """Read a chunk of ``steps/1``."""
    if not _is_encoded(cursor):
        return base
    head = Head.read(cursor)
    finer, differing, size = cursor.uint(1), cursor.uint(4), cursor.uint(4)
    require(finer <= 1 and 1 <= differing <= len(base), "a step has a bad head")
    states = cursor.uints(8, 2)
    levels, rates = _levels_and_bytes(cursor, head, len(base), kind)
    contexts = head.contexts(base, kind, levels, None)
    hazards = [_hazard(rate) for rate in rates]
    places = coders.events([hazards[context] for context in contexts], states, cursor.uints(4, size))
    require(len(places) == differing, "another number of words differ")
    _apply(cursor, base, kind, places, [contexts[place] for place in places], head if not finer else None)
    return base


def _hazard(rate: int) -> int:
    require(rate <= 72, "a rate is too high")
    return round(2 ** (rate / 4))


def nudges(cursor: Cursor, base: Words, kind: Kind) -> Words:
    """Read a chunk of ``nudges/1``."""
    require(kind.name in ("bf16", "f16"), "nudges are of floats of 16 bits")
    if not _is_encoded(cursor):
        return base
    head = Head.read(cursor)
    finer, count, others, size = (cursor.uint(width) for width in (1, 1, 4, 4))
    require(finer <= 1 and 1 <= count <= 8 and head.block % 16 == 0, "nudges have a bad head")
    states = cursor.uints(8, 4)
    flat = cursor.uints(2, 4 * count)
    shares = [flat[at : at + 4] for at in range(0, 4 * count, 4)]
    require(all(sum(share) == 4096 for share in shares), "shares do not add up to 4096")
    levels, clusters = _levels_and_bytes(cursor, head, len(base), kind)
    require(all(cluster < count for cluster in clusters), "a context has no cluster")
    padded = base + type(base)(base.typecode, bytes(2 * (-len(base) % 16)))
    contexts = head.contexts(padded, kind, levels, None)
    moved = coders.moves([clusters[one] for one in contexts], shares, states, cursor.uints(4, size))
    found = list(moved)
    require(not any(found[len(base) :]), "padding is moved")
    places = [place for place, move in enumerate(found) if move == 3]
    require(len(places) == others, "another number of words have another move")
    small = [place for place, move in enumerate(found) if move in (1, 2)]
    if places:
        _apply(cursor, base, kind, places, [contexts[one] for one in places], head if not finer else None)
    _step(base, small, [found[place] for place in small], kind)
    return base


def _levels_and_bytes(cursor: Cursor, head: Head, count: int, kind: Kind) -> tuple[bytes, list[int]]:
    """Read the level of each block, and a byte for each context, told as differences."""
    fine = fine_classes(kind) if head.has_fine else 1
    levels, stored = planes(cursor, [head.blocks(count), CLASSES * head.levels * fine])
    found: list[int] = []
    for context, byte in enumerate(stored):
        if context % fine:
            before = found[context - 1]
        elif context >= head.levels * fine:
            before = found[context - head.levels * fine]
        else:
            before = found[context - fine] if context else 0
        found.append((byte + before) & 255)
    return levels, found


def _apply(
    cursor: Cursor,
    words: Words,
    kind: Kind,
    places: Sequence[int],
    contexts: Sequence[int],
    head: Head | None,
) -> None:
    """Read the differences of some words, less 1; with ``head``, their contexts are classes alone."""
    if head:
        length = magnitude(kind)
        contexts = [_class(head.top, length(words[place])) for place in places]
    differences = entropy(cursor, contexts, 8 * kind.width)
    _step(words, places, [difference + 1 for difference in differences], kind)
