"""Reordering the units of a stored model after those of another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import UsageError
from theta.merging import storing
from theta.merging.alignment import specs
from theta.merging.alignment.axes import Axis, Heads, Orders, UnitLayout, order_of, reordered
from theta.merging.alignment.matching import Matching, RowValues, row_blocks
from theta.merging.alignment.specs import Alignment
from theta.merging.strategies import is_averaged
from theta.merging.strategies.numbers import widen
from theta.progress import Progress, begin
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read.stored_tensor import StoredTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Words = NDArray[Any]

_KEPT: Final = 1 << 30
"""Bytes of words that are kept from round to round."""
_WHOLE: Final = 1 << 28
"""Bytes of a tensor that is read as a whole; a larger one is read by blocks of rows in fixed order."""


@dataclass(frozen=True)
class Reordering:
    """The orders of the units of a model, and the axes that they hold for."""

    layout: UnitLayout
    orders: Orders

    def apply(self, objects: Objects, pack: PackWriter, manifest: Manifest) -> Manifest:
        """Return ``manifest`` with its units in order, of which the tensors that change are in ``pack``.

        A tensor whose order does not change keeps its line.
        """
        lines = tuple(self._line(objects, pack, line) for line in manifest.lines)
        return manifest if lines == manifest.lines else replace(manifest, lines=lines, groups=())

    def _line(self, objects: Objects, pack: PackWriter, line: Line) -> Line:
        axes = self.layout.axes.get(line.name, ())
        if all(order_of(axis, self.orders) is None for axis in axes):
            return line
        if all(np.array_equal(new, old) for new, old in _reordered(objects, line, axes, self.orders)):
            return line
        like = Line(line.name, line.dtype, line.shape, "", "")
        pieces = lambda: (new for new, _ in _reordered(objects, line, axes, self.orders))  # noqa: E731
        return storing.plan(objects, like, pieces, [], compare=False).write(pack)


def _reordered(
    objects: Objects, line: Line, axes: tuple[Axis, ...], orders: Orders
) -> Iterator[tuple[Words, Words]]:
    """Yield the words of a tensor in order, block by block of rows, and those that stood there."""
    stored = StoredWords(objects, line)
    order, rest = order_of(axes[0], orders), ((), *axes[1:])
    for start, stop in row_blocks(line.shape):
        old = stored[start:stop]
        new = reordered(old if order is None else stored[order[start:stop]], rest, orders)
        yield np.ascontiguousarray(new).reshape(-1), old.reshape(-1)


def find(
    objects: Objects,
    ours: Sequence[Manifest],
    theirs: Sequence[Manifest],
    asked: Alignment,
    known: Heads | None,
    progress: Progress | None = None,
) -> Reordering:
    """Find the order of the units of ``theirs``, the files of one model, that is nearest to ``ours``.

    ``known`` are the heads that the configuration of the model tells.

    Raises :class:`UsageError` for models whose units are not known, or that have different ones.
    """
    spec = specs.parsed(asked.spec)
    sides = [{line.name: line for one in files for line in one.lines} for files in (ours, theirs)]
    layouts = [
        specs.layout({name: line.shape for name, line in lines.items()}, spec, known) for lines in sides
    ]
    _check(*layouts)
    both = {
        name: axes
        for name, axes in layouts[1].axes.items()
        if any(part.group for axis in axes for part in axis) and _is_comparable(name, *sides)
    }
    _check_values(layouts[1], sides[1])
    values = _Values(objects, *sides)
    groups = {part.group for axes in both.values() for axis in axes for part in axis if part.group}
    heads = {group: one for group, one in layouts[1].heads.items() if group in groups}
    begin(progress, "aligning", len(groups))
    matching = Matching(UnitLayout(both, heads), values.read, transport=asked.way == "transport")
    return Reordering(layouts[1], matching.solve(lambda: progress(1) if progress else None))


def _check(ours: UnitLayout, theirs: UnitLayout) -> None:
    """Refuse models that have different numbers of the same units."""
    sizes = ours.sizes()
    for (group, role), size in theirs.sizes().items():
        if sizes.get((group, role), size) != size:
            raise UsageError(f"--align: {group} has {sizes[group, role]} units in ours and {size} in theirs")


def _check_values(layout: UnitLayout, lines: Mapping[str, Line]) -> None:
    """Refuse tensors of packed codes over units that may be reordered."""
    for name, axes in layout.axes.items():
        if any(part.group for axis in axes for part in axis) and not is_averaged(lines[name].dtype):
            raise UsageError(f"--align does not reorder {name}, whose values are {lines[name].dtype}")


def _is_comparable(name: str, ours: Mapping[str, Line], theirs: Mapping[str, Line]) -> bool:
    pair = [side.get(name) for side in (ours, theirs)]
    return all(line is not None and is_averaged(line.dtype) and line.nbytes for line in pair)


class StoredWords:
    """The words of a stored tensor by rows; a complex number is one word.

    A tensor of up to ``_WHOLE`` bytes, or one whose rows are read in another order, is in memory as a whole.
    """

    def __init__(self, objects: Objects, line: Line) -> None:
        self.line, self.nbytes = line, line.nbytes
        self._stored = StoredTensor(objects, line)
        self._whole: Words | None = None

    def __getitem__(self, which: Any, /) -> Words:
        """Return rows."""
        shape = self.line.shape
        if self._whole is None and (not isinstance(which, slice) or self.nbytes <= _WHOLE):
            self._whole = self._shaped(self._stored.whole().words, shape[0])
        if self._whole is not None:
            found: Words = self._whole[which]
            return found
        row = math.prod(shape[1:]) * (2 if self.line.dtype == "c64" else 1)
        words = self._stored.read(which.start * row, which.stop * row)
        return self._shaped(words, which.stop - which.start)

    def _shaped(self, words: Words, rows: int) -> Words:
        found = words.view("<u8") if self.line.dtype == "c64" else words
        return found.reshape(rows, *self.line.shape[1:])


class _Wide:
    """The part of a stored tensor that both models have, as float64; rows are widened when they are read."""

    def __init__(self, words: StoredWords, common: tuple[int, ...]) -> None:
        self.words, self._common = words, common
        self.shape = (*common, 2) if words.line.dtype == "c64" else common

    def __getitem__(self, which: Any, /) -> Array:
        dtype = self.words.line.dtype
        cut = self.words[which][(slice(None), *map(slice, self._common[1:]))]
        flat = np.ascontiguousarray(cut).reshape(-1)
        flat = flat.view("<u4") if dtype == "c64" else flat
        found: Array = widen(flat, dtype).astype(np.float64)
        return found.reshape(cut.shape + ((2,) if dtype == "c64" else ()))


class _Values:
    """The values of both models, of which some are kept."""

    def __init__(self, objects: Objects, ours: Mapping[str, Line], theirs: Mapping[str, Line]) -> None:
        self._objects, self._sides = objects, (ours, theirs)
        self._kept: dict[str, tuple[RowValues, RowValues]] = {}
        self._room = _KEPT

    def read(self, name: str) -> tuple[RowValues, RowValues]:
        """Return the values of ours and theirs; of unequal vocabularies the part that both have."""
        if name in self._kept:
            return self._kept[name]
        first, second = (StoredWords(self._objects, side[name]) for side in self._sides)
        common = tuple(map(min, first.line.shape, second.line.shape))
        pair = _Wide(first, common), _Wide(second, common)
        nbytes = first.nbytes + second.nbytes
        if nbytes <= self._room and max(first.nbytes, second.nbytes) <= _WHOLE:
            self._room -= nbytes
            self._kept[name] = pair
        return pair
