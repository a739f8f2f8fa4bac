"""Matching updates with tensors by name, shape, orientation, quantisation and ties."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from theta.codecs import arith
from theta.errors import UsageError
from theta.merging import coded
from theta.merging.adapters.orientation import Orientation
from theta.porcelain.stage import updates
from theta.porcelain.stage.module_names import ModuleNames
from theta.porcelain.stage.updates import Brought, LowRank, Rows, Scale, Slices, Sparse, Update, Whole
from theta.porcelain.tensors import tied_weights
from theta.porcelain.tensors.tied_weights import TiedWeights
from theta.store.format.manifest import Line, Manifest

_WEIGHT: Final = ".weight"
_BIAS: Final = ".bias"


@dataclass(frozen=True)
class Step:
    """A tensor and its updates, in the order in which they are applied."""

    line: Line
    updates: tuple[Update, ...]

    @property
    def is_new(self) -> bool:
        """Whether the checkpoint does not have the tensor yet."""
        return not self.line.tree


@dataclass(frozen=True)
class Fitted:
    """The steps of one source, and the names of its updates that the file has otherwise."""

    steps: list[Step]
    renamed: Mapping[str, str]


def plan(manifest: Manifest, brought: Brought, ties: TiedWeights) -> Fitted:
    """Return a step for each tensor that changes; raises ``UsageError`` that lists all misfits."""
    fitting = _Fitting(manifest, brought, ties)
    return Fitted(fitting.steps(), fitting.names.renamed)


class _Fitting:
    """Matches the updates of one source with the tensors of one checkpoint."""

    def __init__(self, manifest: Manifest, brought: Brought, ties: TiedWeights) -> None:
        self._lines, self._ties = manifest.by_name, ties
        self.names = ModuleNames(self._lines, brought)
        self._brought = brought = self.names.spread()
        self._coded = coded.groups((line.name, line.dtype) for line in manifest.lines)
        self._problems = list(brought.problems)
        self._unknown: list[str] = []
        self._named = {name: self.names.of(name) for name in brought.updates}

    def steps(self) -> list[Step]:
        """Return one step for each tensor, in order of name."""
        self._tied = self._of_tied()
        items = {name: item for name, item in self._brought.updates.items() if name not in self._tied}
        found: dict[str, list[Update]] = {}
        for name, item in self._turned(list(self._by_line(items))):
            found.setdefault(name, []).append(item)
        for name, parts in found.items():
            line = self._resized(self._lines[name], parts)
            self._problems += filter(None, (self._why_not(line, item) for item in parts))
        steps = [self._step(self._lines[name], items) for name, items in found.items()]
        steps += self._added(items)
        if self._problems:
            first, others = updates.told(self._problems)
            details = (*self._likely(), *others)
            raise UsageError(f"the update does not fit: {first}", hint="nothing was changed", details=details)
        return sorted([*steps, *self._scaled_biases(steps)], key=lambda step: step.line.name)

    def _likely(self) -> Iterator[str]:
        """Yield the tensor whose name is most like that of the first update that names none."""
        near = get_close_matches(self._unknown[0], self._lines, 1, 0) if self._unknown else []
        yield from (f"the checkpoint has names such as {name}" for name in near)

    def _by_line(self, items: Mapping[str, Update]) -> Iterator[tuple[str, Update]]:
        """Yield the name of the tensor that each of ``items`` updates; note names of no tensor."""
        for name, item in items.items():
            line = self._line(name)
            if line is None and not self._is_added(name, item):
                self._unknown.append(name)
                self._problems.append(f"{name} names no tensor{_experts(name)}")
            elif line is not None:
                yield line.name, item

    def _line(self, name: str) -> Line | None:
        return self.names.line(name)

    # -- tensors that are added, and rows --------------------------------------------------

    def _is_added(self, name: str, item: Update) -> bool:
        """Return whether the adapter has a module in full that the base lacks, such as a classifier."""
        module = f".{name.rpartition('.')[0]}"
        saved = any(module.endswith(f".{key}") for key in self._brought.saved)
        return isinstance(item, Whole) and saved and self._line(name) is None

    def _added(self, items: Mapping[str, Update]) -> Iterator[Step]:
        for name, item in items.items():
            if self._is_added(name, item) and isinstance(item, Whole):
                yield Step(Line(name, item.tensor.dtype, tuple(item.tensor.shape), "", ""), (item,))

    def _resized(self, line: Line, items: Sequence[Update]) -> Line:
        """Return ``line`` with the rows of a new value: an embedding or a head of another vocabulary."""
        module = line.name.removesuffix(_WEIGHT).removesuffix(_BIAS)
        saved = any(f".{module}".endswith(f".{key}") for key in self._brought.saved)
        if not self._brought.of_adapter or not (saved or tied_weights.has_tokens(module)):
            return line
        for item in items:
            shape = tuple(item.tensor.shape) if isinstance(item, Whole) else ()
            if shape and len(shape) == len(line.shape) and shape[1:] == line.shape[1:]:
                return replace(line, shape=shape)
        return line

    # -- fitting ---------------------------------------------------------------------------

    def _turned(self, pairs: Sequence[tuple[str, Update]]) -> Iterator[tuple[str, Update]]:
        """Yield the updates, transposed where the file stores its matrices as (in, out)."""
        ways = {name: _ways(self._lines[name], item) for name, item in pairs if not isinstance(item, Whole)}
        known = {name: turned for name, (straight, turned) in ways.items() if straight != turned}
        shapes = {name: line.shape for name, line in self._lines.items()}
        orientation = Orientation(shapes, known, self._brought.transposed)
        for name, item in pairs:
            if not isinstance(item, LowRank | Scale) or not item.turns:
                yield name, item
                continue
            transposed = orientation.is_transposed(name) if all(ways[name]) else ways[name][1]
            if transposed is None:
                self._problems.append(
                    f"{name} is square, and other matrices of the model lie both ways: which way is not known"
                )
            yield name, item.turned() if transposed else item

    def _why_not(self, line: Line, item: Update) -> str:
        group = self._coded.get(line.name)
        raw = isinstance(item, Whole) and item.tensor.dtype == line.dtype and not self._brought.of_adapter
        if group is not None and not raw:
            return f"{line.name} cannot be updated: {group.reason(line.name)}"
        return _misfit(line, item)

    def _step(self, line: Line, items: Sequence[Update]) -> Step:
        """Return a step that sets the new value first, if there is one, and then applies the factors."""
        whole = [item for item in items if isinstance(item, Whole)]
        others = [item for item in items if not isinstance(item, Whole)]
        if len(whole) > 1 or len(others) > 1:
            self._problems.append(f"{line.name} has {len(items)} updates")
        if whole and others and updates.is_value(whole[0].tensor, line):
            whole = []
        return Step(line, (*whole, *others))

    def _scaled_biases(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Yield a step for each bias beside a weight whose rows are scaled: that scales its output."""
        taken = {step.line.name for step in steps}
        for step in steps:
            item = step.updates[-1]
            bias = self._lines.get(step.line.name.removesuffix(_WEIGHT) + _BIAS)
            if isinstance(item, Scale) and item.with_bias and bias and bias.name not in taken:
                yield Step(bias, (Scale(item.factors.reshape(-1)),))

    # -- ties ----------------------------------------------------------------------------

    def _of_tied(self) -> set[str]:
        """Return the names of updates for tied modules that have no tensor of their own.

        Updates that would make tied modules differ are noted as a problem.
        """
        ties = self._ties
        if not ties.certain or not self._brought.of_adapter:
            return set()
        modules = {name: self._named[name].removesuffix(_WEIGHT) for name in self._brought.updates}
        modules = {name: module for name, module in modules.items() if module in ties}
        stored = {module for module in ties.modules if module + _WEIGHT in self._lines}
        touched = {name: module for name, module in modules.items() if self._changes(name)}
        values = [self._brought.updates[name] for name in touched]
        everywhere = set(touched.values()) >= set(ties.modules)
        # PEFT gives trained tokens to both, without being asked.
        together = self._brought.ties or (bool(values) and all(isinstance(one, Rows) for one in values))
        shared = together and set(touched.values()) >= stored
        if touched and not (all(map(updates.same, values, values[1:])) and (everywhere or shared)):
            self._problems.append(_torn(ties, sorted(set(touched.values()))))
        return {name for name, module in modules.items() if module not in stored}

    def _changes(self, name: str) -> bool:
        item = self._brought.updates[name]
        line = self._line(name) or self._lines.get(self._ties.modules[0] + _WEIGHT)
        return not (isinstance(item, Whole) and line is not None and updates.is_value(item.tensor, line))


def _torn(ties: TiedWeights, modules: Sequence[str]) -> str:
    others = [module for module in ties.modules if module not in modules]
    all_of_them = " and ".join(ties.modules)
    if not others:
        return f"{all_of_them} are tied, and the adapter changes them differently: they have one tensor"
    return (
        f"{all_of_them} are tied (config.json), and the adapter changes {' and '.join(modules)} alone: "
        "a loader would tie them again and change them all"
    )


def _experts(name: str) -> str:
    """Return an explanation if ``name`` is one of experts or routers, which differ in a file; else ""."""
    fused = any(part in name for part in (".experts", ".gate.", ".router.")) or name.endswith(".gate")
    return " (experts and routers have other names in memory than in the file)" if fused else ""


def _ways(line: Line, item: Update) -> tuple[bool, bool]:
    """Return whether ``item`` fits as it is, and whether it fits transposed."""
    if not isinstance(item, LowRank | Scale) or not item.turns or len(line.shape) != 2:
        return True, False
    return not _misfit(line, item), not _misfit(line, item.turned())


# -- one tensor ------------------------------------------------------------------------------


def _misfit(line: Line, item: Update) -> str:
    """Return why ``item`` cannot update ``line``; "" if it can."""
    shape = tuple(line.shape)
    columns = math.prod(shape[1:])
    if not isinstance(item, Whole) and not arith.has_values(line.dtype):
        return f"{line.name} is {line.dtype}, which holds no numbers that an update could change"
    if isinstance(item, LowRank):
        wanted = (item.u.shape[0], item.v.shape[0])
        if len(shape) < 2 or wanted != (shape[0], columns):
            return f"{line.name} is {list(shape)}, the factors are for {list(wanted)}"
        norms = wanted[item.by_column] if item.magnitude is None else item.magnitude.size
        return (
            ""
            if norms == wanted[item.by_column]
            else f"{line.name} is {list(shape)}, with {norms} magnitudes"
        )
    if isinstance(item, Rows):
        return _row_misfit(line, item)
    if isinstance(item, Slices):
        return ""
    if isinstance(item, Scale):
        return "" if _broadcasts(item.factors.shape, shape) else _other(line, item.factors.shape)
    if isinstance(item, Sparse):
        return _sparse_misfit(line, item)
    if item.tensor.dtype != line.dtype and not all(map(arith.has_values, (item.tensor.dtype, line.dtype))):
        return f"{line.name} is {line.dtype}, its update {item.tensor.dtype}"
    return "" if tuple(item.tensor.shape) == shape else _other(line, item.tensor.shape)


def _row_misfit(line: Line, item: Rows) -> str:
    if len(line.shape) != 2 or line.shape[1] != item.tensor.shape[1]:
        return _other(line, item.tensor.shape)
    inside = min(item.indices) >= 0 and max(item.indices) < line.shape[0]
    return (
        "" if inside else f"{line.name} has {line.shape[0]} rows, and the adapter has one of a token outside"
    )


def _other(line: Line, shape: Sequence[int]) -> str:
    return f"{line.name} is {list(line.shape)}, its update {list(shape)}"


def _broadcasts(part: Sequence[int], whole: Sequence[int]) -> bool:
    padded = (1,) * (len(whole) - len(part)) + tuple(part)
    return len(padded) == len(whole) and all(p in (1, w) for p, w in zip(padded, whole, strict=True))


def _sparse_misfit(line: Line, item: Sparse) -> str:
    if item.shape is not None and item.shape != tuple(line.shape):
        return _other(line, item.shape)
    size = math.prod(line.shape)
    inside = not item.indices.size or (item.indices.min() >= 0 and item.indices.max() < size)
    return "" if inside else f"{line.name} has {size} elements, and the update has indices outside"
