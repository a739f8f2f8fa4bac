"""How the chunks of a layer are decoded, codec by codec (codecs.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Protocol

from tests.independent.numbers import (
    KINDS,
    Kind,
    Words,
    converter,
    empty,
    magnitude,
    rounded,
    to_words,
    value,
)
from tests.independent.primitives import Cursor, require
from tests.independent.residuals import CLASSES, FineClass, nudges, residual, steps
from tests.independent.sections import entropy, planes

MOST_SHARED: Final = 2**22
"""The limit of factors and runs of a layer: this reader's own, which section 7 of format.md allows."""


class Layer(Protocol):
    """A value of which any part can be read."""

    kind: Kind
    shape: list[int]

    @property
    def count(self) -> int:
        """The number of words."""

    def words(self, start: int, stop: int) -> Words:
        """Return some words, as a copy."""


class Decoder:
    """A codec with the base and the shared bytes of one layer; subclasses decode chunks."""

    has_shared = False

    def __init__(self, layer: Layer, base: Layer, shared: bytes) -> None:
        self.layer, self.kind, self.base = layer, layer.kind, base
        self.check()
        if self.has_shared:
            cursor = Cursor(shared)
            self.read_shared(cursor)
            cursor.end()

    def check(self) -> None:
        """Refuse a base that the codec cannot have: mostly one of another dtype or number of words."""
        same = self.base.kind == self.kind and self.base.count == self.layer.count
        require(same, "a layer and its base have other dtypes or numbers of words")

    def read_shared(self, cursor: Cursor) -> None:
        """Read what the chunks of the layer share."""

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Decode the words from ``start`` to ``stop``."""
        raise NotImplementedError


def dense(cursor: Cursor, count: int, kind: Kind) -> Words:
    """Read a dense chunk of some words."""
    width = cursor.uint(1)
    require(width == kind.width, "a dense chunk has another number of planes")
    raw = bytearray(width * count)
    for byte, plane in enumerate(planes(cursor, [count] * width)):
        raw[byte::width] = plane
    cursor.end()
    words = to_words(bytes(raw), kind)
    if kind.is_float and width > 1:
        top = 8 * width - 1
        for place, word in enumerate(words):
            words[place] = word >> 1 | (word & 1) << top
    return words


class Delta(Decoder):
    """``delta/1``."""

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read a residual section on the words of the base."""
        return residual(cursor, self.base.words(start, stop), self.kind)


class Steps(Decoder):
    """``steps/1``."""

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read the places of words that differ, and the differences."""
        return steps(cursor, self.base.words(start, stop), self.kind)


class Nudges(Decoder):
    """``nudges/1``."""

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read the moves of all words, and the other differences."""
        return nudges(cursor, self.base.words(start, stop), self.kind)


class Sparse(Decoder):
    """``sparse/1``."""

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read new words and their places."""
        words = self.base.words(start, stop)
        new, length = cursor.uint(4), cursor.uint(4)
        require(1 <= new <= len(words), "a sparse chunk has too few or too many new words")
        values = dense(Cursor(cursor.take(length)), new, self.kind)
        widest = {1: 255, 2: 255, 4: 255, 8: 2047}[self.kind.width] if self.kind.is_float else 64
        far = [widest - length for length in map(magnitude(self.kind), words)]
        nearest = min(far)
        marks = entropy(cursor, [min(one - nearest, CLASSES - 1) for one in far], 1)
        places = [place for place, mark in enumerate(marks) if mark]
        require(len(places) == new, "another number of words are new")
        for place, word in zip(places, values, strict=True):
            words[place] = word
        return words


class Cast(Decoder):
    """``cast/1``."""

    def check(self) -> None:
        """Refuse a base of another number of words, or of a type that does not convert."""
        require(self.base.count == self.layer.count, "a layer and its base have other numbers of words")
        self.convert = converter(self.base.kind, self.kind)

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read a residual section on the converted base."""
        words = empty(self.kind)
        words.extend(map(self.convert, self.base.words(start, stop)))
        return residual(cursor, words, self.kind)


def grid(layer: Layer) -> tuple[int, int]:
    """Return the rows of a layer and the words of each: its 2-d view."""
    rows = layer.shape[0] if layer.shape else 1
    return rows, layer.count // rows if rows else 0


class Scaled(Decoder):
    """``scaled/1``."""

    has_shared = True

    def check(self) -> None:
        """Refuse a base of another dtype or shape, or whose words have no values."""
        super().check()
        require(self.layer.shape == self.base.shape, "a scaled layer has another shape than its base")
        require(self.kind.has_values, "words without values are not scaled")

    def read_shared(self, cursor: Cursor) -> None:
        """Read a factor for each row or each column."""
        rows, self.columns = grid(self.layer)
        self.by_column = cursor.uint(1)
        require(self.by_column <= 1, "factors are neither of rows nor of columns")
        count = self.columns if self.by_column else rows
        require(count <= MOST_SHARED, "a scaled layer has too many factors")
        factors = dense(cursor, count, KINDS["f64"])
        self.factors = [value(word, KINDS["f64"]) for word in factors]

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read a residual section on the rounded products."""
        words = self.base.words(start, stop)
        for place, word in enumerate(words):
            row, column = divmod(start + place, self.columns)
            factor = self.factors[column if self.by_column else row]
            words[place] = rounded(value(word, self.kind) * factor, self.kind)
        return residual(cursor, words, self.kind)


class Rows(Decoder):
    """``rows/1``."""

    has_shared = True

    def check(self) -> None:
        """Refuse a base with rows of another dtype or length."""
        (rows, self.columns), (base_rows, base_columns) = grid(self.layer), grid(self.base)
        require(self.base.kind == self.kind, "a layer of rows has another dtype than its base")
        require(bool(self.layer.shape and self.base.shape), "a layer of rows, or its base, has no rows")
        require(self.columns == base_columns >= 1, "a layer has rows of another length than its base")
        self.rows, self.base_rows = rows, base_rows

    def read_shared(self, cursor: Cursor) -> None:
        """Read the runs that cover the rows."""
        runs = cursor.uint(4)
        require(runs <= min(self.rows, MOST_SHARED), "there are too many runs")
        bytewise = planes(cursor, [runs] * 8)
        self.runs: list[tuple[int, int, int]] = []
        """(first row, number of rows, 1 + row of the base or 0) of each run."""
        first = 0
        for run in range(runs):
            packed = bytes(plane[run] for plane in bytewise)
            count, source = int.from_bytes(packed[:4], "little"), int.from_bytes(packed[4:], "little")
            require(count >= 1, "a run has no rows")
            require(source == 0 or source - 1 + count <= self.base_rows, "a run leaves the base")
            self.runs.append((first, count, source))
            first += count
        require(first == self.rows, "runs do not cover the rows")

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read the words of new rows, between the rows of the base."""
        parts = list(self._parts(start, stop))
        new = sum(end - begin for begin, end, source in parts if not source)
        fresh, used = dense(cursor, new, self.kind) if new else empty(self.kind), 0
        words = empty(self.kind)
        for begin, end, source in parts:
            if source:
                words += self.base.words(begin, end)
            else:
                words += fresh[used : used + end - begin]
                used += end - begin
        return words

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the runs of a chunk: first and last word, of the base if the third number is not 0."""
        for first, count, source in self.runs:
            begin, end = max(start, first * self.columns), min(stop, (first + count) * self.columns)
            if begin < end:
                shift = (source - 1 - first) * self.columns if source else 0
                yield begin + shift, end + shift, source


class LowRank(Decoder):
    """``lowrank/1``."""

    has_shared = True

    def check(self) -> None:
        """Refuse a base of another dtype or shape, or of no floats."""
        super().check()
        require(self.layer.shape == self.base.shape, "a low-rank layer has another shape than its base")
        require(self.kind.name in ("f16", "bf16", "f32"), "a low-rank layer is of f16, bf16 or f32")

    def read_shared(self, cursor: Cursor) -> None:
        """Read both factors."""
        rows, self.columns = grid(self.layer)
        rank, scale = cursor.uint(2), cursor.uint(2)
        self.scale = scale - 2**16 if scale >> 15 else scale
        require(1 <= rank <= 256 and abs(self.scale) <= 400, "a low-rank layer has a bad rank or scale")
        numbers = rank * (rows + self.columns)
        require(numbers <= min(rows * self.columns, MOST_SHARED), "factors are larger than the matrix")
        self.u, self.v = _factor(cursor, rows, rank), _factor(cursor, self.columns, rank)
        largest = [max(abs(one) for row in factor for one in row) for factor in (self.u, self.v)]
        self.is_split = rank * largest[0] * largest[1] >= 2**53
        if self.is_split:
            high = max(abs(one >> 14) for row in self.u for one in row)
            require(rank * max(high, 2**14 - 1) * largest[1] < 2**53, "a product of factors is not exact")

    def exact(self, row: int, column: int, number: float) -> float:
        """Return the value behind the prediction of a word, in float64."""
        pairs = list(zip(self.u[row], self.v[column], strict=True))
        total = float(sum(one * other for one, other in pairs))
        try:
            return number + math.ldexp(total, self.scale)
        except OverflowError:
            return number + math.copysign(math.inf, total)

    def chunk(self, cursor: Cursor, start: int, stop: int) -> Words:
        """Read a residual section on the rounded sums, whose fine classes tell how near others were."""
        words, behind = self.predicted(start, stop)
        return residual(cursor, words, self.kind, self.nearness(behind))

    def predicted(self, start: int, stop: int) -> tuple[Words, list[float]]:
        """Return the predictions of some words, and the values behind them."""
        words, behind = self.base.words(start, stop), []
        for place, word in enumerate(words):
            behind.append(self.exact(*divmod(start + place, self.columns), value(word, self.kind)))
            words[place] = rounded(behind[-1], self.kind)
        return words, behind

    def nearness(self, behind: list[float]) -> FineClass:
        """Return the fine classes of words, which tell where the values behind lie between words."""

        def fine(number: int, word: int) -> int:
            exact, near = behind[number], value(word, self.kind)
            if not math.isfinite(exact) or not math.isfinite(near):
                return 14
            unit = max(magnitude(self.kind)(word), 1) - self.kind.bias - self.kind.mantissa
            t = math.ldexp(abs(exact) - abs(near), -unit)
            rest, exponent = math.frexp(0.5 - abs(t))
            term = min(7, -exponent if rest == 0.5 else -exponent - 1) if rest > 0 else 7
            return 2 * term + (t < 0)

        return fine


def _factor(cursor: Cursor, rows: int, rank: int) -> list[list[int]]:
    flat = entropy(cursor, list(range(rank)) * rows, 32)
    signed = [-(one + 1 >> 1) if one & 1 else one >> 1 for one in flat]
    return [signed[at : at + rank] for at in range(0, len(signed), rank)]


DECODERS: Final[dict[str, type[Decoder]]] = {
    "delta/1": Delta,
    "sparse/1": Sparse,
    "steps/1": Steps,
    "nudges/1": Nudges,
    "cast/1": Cast,
    "scaled/1": Scaled,
    "rows/1": Rows,
    "lowrank/1": LowRank,
}
"""The codecs of layers that have a base; ``dense/1`` is the codec of the others."""
