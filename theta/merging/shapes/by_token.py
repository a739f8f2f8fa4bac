"""Merging embeddings and heads of versions whose vocabularies differ: their rows are matched by token.

A row of the result is the row of one token.  Rows that several versions have are merged by the strategy,
all of them as one matrix; a row that one side has is taken.  Rows without a token (padding) are matched by
their number.  All matrices of one tensor are in memory at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.codecs.base import word_dtype
from theta.dtypes import DTYPES
from theta.errors import UsageError
from theta.merging import reading
from theta.merging.documents.model_files import is_of_tokens
from theta.merging.geometry import RowRange, merged_rows
from theta.merging.reading import StoredInputs
from theta.merging.states import Conflict, same
from theta.merging.strategies.method import Statistic
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MOST_SIDES: Final = 30
"""The sides of a row are the bits of a number."""


@dataclass(frozen=True)
class TokenOrder:
    """The tokens that rows are for, in a result and in the versions that it is merged from.

    Attributes:
        ids: token -> row of the result.
        versions: token -> row in the base and in each side; None if the version has no tokenizer.
        like: the number of the side (ours is 0) whose tokenizer the result has; None for another.
        reason: a clause that says why the tokens of the result are not known; empty when they are.
        counts: the numbers of rows that embeddings have in the base and in each side; empty for one without
            any, so that no tensor of it is matched; None if they are not known.
        hidden: lengths of axes that are not of tokens, though a vocabulary may be as long.
        layered: names of tensors that several layers have, so that none of their axes is of tokens.
    """

    ids: Mapping[str, int]
    versions: Sequence[Mapping[str, int] | None]
    like: int | None = None
    reason: str = ""
    counts: Sequence[Collection[int]] | None = None
    hidden: Collection[int] = ()
    layered: Collection[str] = ()

    def axes(self, name: str, lines: Sequence[Line | None]) -> set[int]:
        """Return the axes of tensor ``name`` that are of tokens in all versions; ``lines`` are these.

        An axis is of tokens if it is as long as the embedding in each version that has the tensor, and the
        tensor has the name of an embedding or a head, or is not one that several layers have.
        """
        if self.counts is None:
            return {0} if is_of_tokens(name) and all(line is None or line.shape for line in lines) else set()
        there = [(line.shape, own) for line, own in zip(lines, self.counts, strict=True) if line is not None]
        most = min((len(shape) for shape, _ in there), default=0)
        found = {axis for axis in range(most) if all(shape[axis] in own for shape, own in there)}
        if is_of_tokens(name) and 0 in found:
            return {0}
        return set() if name in self.layered else found

    def why_not(self, name: str, lines: Sequence[Line | None], axes: Collection[int]) -> str:
        """Return a clause that says why the rows of a tensor cannot be matched; empty when they can."""
        if self.reason:
            return self.reason
        lengths = {line.shape[axis] for line in lines if line is not None for axis in axes}
        if not is_of_tokens(name) and lengths & {*self.hidden}:
            return "an axis of it is as long as the vocabulary, and so are axes of layers"
        if {*axes} != {0} or ".lora_" in name:
            return "tokens have other ids on the sides, and it is not merged row by row"
        if None in lines[1:] or len(lines) > _MOST_SIDES:
            return "tokens have other ids on the sides, and not every side has it"
        matched = lines if self.versions[0] else lines[1:]  # a base without a vocabulary has no say in rows
        if len({line.shape[1:] for line in matched if line is not None}) > 1:
            return "tokens have other ids on the sides, and its rows have another length"
        if any(
            line is not None and DTYPES[line.dtype].kind not in ("float", "int", "uint") for line in lines
        ):
            return "tokens have other ids on the sides, and its values are packed"
        return ""

    def is_right(self, taken: Line | None, lines: Sequence[Line | None], axes: Collection[int]) -> bool:
        """Return whether a tensor may be ``taken`` as it is, with a row for each token of the result."""
        if taken is None:
            return True
        if self.reason:
            return all(same(taken, line) for line in lines)
        last = max(self.ids.values(), default=-1)
        return any(
            same(taken, line) and own is not None and agree([own, self.ids])
            for line, own in zip(lines, self.versions, strict=True)
        ) and all(taken.shape[axis] > last for axis in axes)

    def rows(self, lines: Sequence[Line | None]) -> list[Array]:
        """Return for base and sides the row of each row of the result there, or -1."""
        counts = [line.shape[0] if line is not None else 0 for line in lines]
        total = self.total(counts)
        pairs = zip(self.versions, counts, strict=True)
        return [_rows(self.ids, version, count, total) for version, count in pairs]

    def total(self, counts: Sequence[int]) -> int:
        """Return the number of rows of the result, where base and sides have ``counts`` of them.

        It is merged three-way, so that rows without a token stay, and there is one for each token.
        """
        base, *sides = counts
        last = max(self.ids.values(), default=-1) + 1
        if self.like is not None:
            last = min(last, sides[self.like])  # a tokenizer may have tokens that its model has no row for
        merged = merged_rows(base, sides)
        return max(last, max(sides) if merged is None else merged)

    def token_of(self, row: int) -> str:
        """Return the token of a row of the result, or its number."""
        return next((repr(token) for token, number in self.ids.items() if number == row), f"row {row}")


def agree(versions: Sequence[Mapping[str, int]], rows: Sequence[int] = ()) -> bool:
    """Return whether a row of one number is that of one token in all of ``versions``.

    ``rows`` are the numbers of rows that these have: one without a token is padding, and no row of the token
    that another version has there.
    """
    counts = rows or [0] * len(versions)
    known = [*zip(versions, counts, strict=True)]
    return all(
        _agree(one, other) for at, one in enumerate(known) for other in known[at + 1 :] if one[0] != other[0]
    )


def _agree(one: tuple[Mapping[str, int], int], other: tuple[Mapping[str, int], int]) -> bool:
    return all(other[0].get(token, number) == number for token, number in one[0].items()) and not (
        _is_elsewhere(one[0], *other) or _is_elsewhere(other[0], *one)
    )


def _is_elsewhere(one: Mapping[str, int], other: Mapping[str, int], rows: int) -> bool:
    """Return whether a token of ``one`` that is not in ``other`` has the number of another row there."""
    taken = {*other.values()}
    return any(number in taken or number < rows for token, number in one.items() if token not in other)


def _rows(ids: Mapping[str, int], version: Mapping[str, int] | None, count: int, total: int) -> Array:
    found = np.full(total, -1, np.int64)
    if version is None:
        return found
    named, known = np.zeros(total, bool), np.zeros(count, bool)
    for token, place in ids.items():
        if place < total:
            named[place] = True
            own = version.get(token, count)
            found[place] = own if own < count else -1
    known[[row for row in version.values() if row < count]] = True
    padding = np.arange(min(count, total))
    padding = padding[~named[padding] & ~known[padding]]
    found[padding] = padding
    return found


# -- the plan of one tensor ------------------------------------------------------------------


@dataclass(frozen=True)
class TokenRows:
    """The rows of the versions that the rows of a result are merged from.

    Attributes:
        sides: the versions that are the inputs.
        base: the base, or None.
        rows: for each of ``sides`` the row of each row of the result there, or -1.
        based: the same for the base.
        order: the rows of the result, those with the same members next to each other.
        spans: ranges of ``order``, and the sides that each is merged from.
    """

    sides: Sequence[Line]
    base: Line | None
    rows: Sequence[Array]
    based: Array
    order: Array = field(repr=False)
    spans: tuple[RowRange, ...] = ()


@dataclass(frozen=True)
class TokenMerge:
    """A tensor whose rows are matched by token.

    Attributes:
        lines: the base and each side.
        rows: for each of ``lines`` the row of each row of the result there, or -1.
        moved: the numbers of the sides that changed a row of the base.
        whole: the side that is the result as it is, or None.
    """

    lines: Sequence[Line | None]
    rows: Sequence[Array]
    moved: tuple[int, ...]
    whole: Line | None

    @property
    def sides(self) -> list[Line]:
        """The version of each side."""
        return [line for line in self.lines[1:] if line is not None]

    def conflict(self, name: str, *, everything: bool, absent: Sequence[int] = ()) -> Conflict:
        """Return the conflict of the sides; with ``everything`` all of them are inputs."""
        base, sides = self.lines[0], self.sides
        others = (everything, tuple(absent))
        return Conflict(name, base, sides[0], sides[1], tuple(sides[2:]), *others, rows=len(self.rows[0]))

    def plan(self, chosen: Sequence[int]) -> TokenRows:
        """Return where rows come from if the sides ``chosen`` are merged where they have a row."""
        rows, based = self.rows[1:], self.rows[0]
        return _planned(self.sides, self.lines[0], rows, based, chosen, is_based=True)

    def plan_of_base(self) -> TokenRows:
        """Return where rows come from if the base is taken, whose number is that after the last side."""
        base = self.lines[0]
        assert base is not None
        rows, none = (*self.rows[1:], self.rows[0]), np.full(len(self.rows[0]), -1)
        return _planned([*self.sides, base], None, rows, none, [len(rows) - 1], is_based=False)


def _planned(
    sides: Sequence[Line],
    base: Line | None,
    rows: Sequence[Array],
    based: Array,
    chosen: Sequence[int],
    *,
    is_based: bool,
) -> TokenRows:
    codes = np.zeros(len(based), np.int64)
    for number in chosen:
        codes |= (rows[number] >= 0).astype(np.int64) << number
    for number, own in enumerate(rows):
        codes[(codes == 0) & (own >= 0)] = 1 << number
    with_base = is_based and base is not None
    keys = codes * 2 + ((based >= 0) if with_base else 0)
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    stops = [*starts[1:].tolist(), len(order)]
    spans = tuple(
        RowRange(start, stop, tuple(n for n in range(len(rows)) if key >> (n + 1) & 1), bool(key & 1))
        for key, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True)
    )
    return TokenRows(sides, base if with_base else None, rows, based, order, spans)


def examined(objects: Objects, order: TokenOrder, lines: Sequence[Line | None]) -> TokenMerge | str:
    """Match the rows of a tensor; ``lines`` are its base, which may be None, and all sides.

    Return a clause if no side has a row for a token of the result.
    """
    if order.versions[0] is None:
        lines = [None, *lines[1:]]
    rows = order.rows(lines)
    lost = np.flatnonzero(np.all([own < 0 for own in rows[1:]], axis=0))
    if len(lost):
        return f"no side has a row for {order.token_of(int(lost[0]))} of the merged tokenizer"
    moved = tuple(_moved(objects, lines, rows))
    return TokenMerge(lines, rows, moved, _whole(order, lines, rows, moved))


def _whole(
    order: TokenOrder, lines: Sequence[Line | None], rows: Sequence[Array], moved: Sequence[int]
) -> Line | None:
    """Return the side that has all rows of the result in their order, if no other changed one."""
    if order.like is None or not {*moved} <= {order.like}:
        return None
    line, own = lines[1 + order.like], rows[1 + order.like]
    return line if line is not None and len(own) == line.shape[0] and np.all(own >= 0) else None


def _moved(objects: Objects, lines: Sequence[Line | None], rows: Sequence[Array]) -> Iterator[int]:
    """Yield the numbers of the sides that changed a row which base and result have too."""
    base, *sides = lines
    before = _matrix(objects, base) if base is not None else None
    for number, line in enumerate(sides):
        if base is None or before is None or line is None or line.dtype != base.dtype:
            yield number
        elif line.shape:
            both = (rows[0] >= 0) & (rows[1 + number] >= 0)
            old, new = rows[0][both], rows[1 + number][both]
            if same(line, base) and np.array_equal(old, new):
                continue
            # The same rows may be there for other tokens.
            if same(line, base) or not np.array_equal(before[old], _matrix(objects, line)[new]):
                yield number


def _matrix(objects: Objects, line: Line) -> Array:
    size = line.nbytes // word_dtype(line.dtype).itemsize
    return reading.opened(objects, line).read(0, size).reshape(line.shape[0], -1)


# -- its inputs ------------------------------------------------------------------------------


class TokenInputs:
    """The inputs of a tensor with the rows in the order of a plan; ``uneven.UnevenInputs``."""

    def __init__(self, objects: Objects, plan: TokenRows, stored: StoredInputs) -> None:
        self._plan, self._stored = plan, stored
        self.sides = [
            _Matrix(line.dtype, _matrix(objects, line), own[plan.order])
            for line, own in zip(plan.sides, plan.rows, strict=True)
        ]
        base = plan.base
        self.base = (
            None if base is None else _Matrix(base.dtype, _matrix(objects, base), plan.based[plan.order])
        )

    def statistic(self, number: int) -> Statistic | None:
        """Return the statistic of a side, with its rows in the order of the plan if it has such rows."""
        found, line = self._stored.statistic(number), self._plan.sides[number]
        if found is None or found.shape[1:] != line.shape[1:]:
            return found
        if found.shape != line.shape:
            raise UsageError(f"a statistic has {found.shape[0]} rows, and {line.name} has {line.shape[0]}")
        return _StatisticRows(found, self._plan.rows[number][self._plan.order])

    def in_order(self, pieces: Callable[[], Iterator[Array]]) -> Iterator[Array]:
        """Yield the words of the result from those of the rows in the order of the plan."""
        yield placed(pieces(), self._plan.order, self.sides[0].words.shape[1])


def placed(pieces: Iterable[Array], order: Array, width: int) -> Array:
    """Return the words of a matrix with rows of ``width`` words, whose row ``order[i]`` is the i-th given.

    The rows come in ``pieces`` of any length.  Each is put in its place: no second matrix is in memory.
    """
    at, found = 0, np.empty((0, width), np.uint8)
    for piece in pieces:
        if not at:
            found = np.empty((len(order), width), piece.dtype)
        end = at + len(piece)
        first, last = -(-at // width), end // width
        if first > last:  # inside of one row
            found[order[last], at - last * width : end - last * width] = piece
        else:
            head, tail = first * width - at, end - last * width
            if head:
                found[order[first - 1], width - head :] = piece[:head]
            found[order[first:last]] = piece[head : len(piece) - tail].reshape(-1, width)
            if tail:
                found[order[last], :tail] = piece[len(piece) - tail :]
        at = end
    return found.reshape(-1)


@dataclass(frozen=True)
class _Matrix:
    """Rows of a matrix in another order; ``uneven.RowSource``."""

    dtype: str
    words: Array
    rows: Array

    def read(self, start: int, stop: int) -> Array:
        """Return the words of the elements ``start:stop``; those of an absent row mean nothing."""
        return _part(self.words, self.rows, start, stop)


class _StatisticRows:
    """The rows of a statistic in another order; a ``strategies.method.Statistic``."""

    def __init__(self, whole: Statistic, rows: Array) -> None:
        count = whole.shape[0]
        self._values = whole.read(0, int(np.prod(whole.shape, dtype=np.int64))).reshape(count, -1)
        self._rows = rows
        self.shape = (len(rows), *whole.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        """Return the values of the elements ``start:stop``."""
        return _part(self._values, self._rows, start, stop)


def _part(matrix: Array, rows: Array, start: int, stop: int) -> Array:
    width = matrix.shape[1]
    first, last = start // width, -(-stop // width)
    found: Array = matrix[rows[first:last]].reshape(-1)[start - first * width : stop - first * width]
    return found
