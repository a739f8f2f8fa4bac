"""Reordering the units of a stored model after those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import UsageError
from theta.merging import storing
from theta.merging.alignment import specs
from theta.merging.alignment.axes import Heads, Orders, UnitLayout, order_of, reordered
from theta.merging.alignment.matching import Matching
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

_KEPT: Final = 1 << 30
"""Bytes of values that are kept from round to round."""


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
        values = _stored(objects, line)
        words = np.ascontiguousarray(reordered(values, axes, self.orders)).reshape(-1)
        if np.array_equal(words, values.reshape(-1)):
            return line
        like = Line(line.name, line.dtype, line.shape, "", "")
        return storing.plan(objects, like, lambda: iter([words]), [], compare=False).write(pack)


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


def _stored(objects: Objects, line: Line) -> Any:
    """Return the words of a tensor in its shape; a complex number is one."""
    words = StoredTensor(objects, line).whole().words
    return (words.view("<u8") if line.dtype == "c64" else words).reshape(line.shape)


class _Values:
    """The values of both models, of which some are kept."""

    def __init__(self, objects: Objects, ours: Mapping[str, Line], theirs: Mapping[str, Line]) -> None:
        self._objects, self._sides = objects, (ours, theirs)
        self._kept: dict[str, tuple[Array, Array]] = {}
        self._room = _KEPT

    def read(self, name: str) -> tuple[Array, Array]:
        """Return the values of ours and theirs; of unequal vocabularies the part that both have."""
        if name in self._kept:
            return self._kept[name]
        ours, theirs = (self._value(side[name]) for side in self._sides)
        common = tuple(slice(min(sizes)) for sizes in zip(ours.shape, theirs.shape, strict=True))
        pair = ours[common], theirs[common]
        nbytes = sum(one.nbytes for one in pair)
        if nbytes <= self._room:
            self._room -= nbytes
            self._kept[name] = pair
        return pair

    def _value(self, line: Line) -> Array:
        words = StoredTensor(self._objects, line).whole().words
        found: Array = widen(words, line.dtype).astype(np.float64)
        return found.reshape(line.shape if line.dtype != "c64" else (*line.shape, 2))
