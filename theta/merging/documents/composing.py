"""Computing the tensors of a document from its models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from theta.errors import UsageError
from theta.merging import coded, computing, geometry, storing
from theta.merging.coded import Coded
from theta.merging.computing import Task
from theta.merging.documents.recipe_document import Document
from theta.merging.documents.stacks import ResultTensor
from theta.merging.engine import MergeOptions, RehearsedTensor
from theta.merging.states import Conflict
from theta.merging.storing import Streamed
from theta.merging.strategies import SIDES, Strategy, is_averaged
from theta.parallel import ordered
from theta.progress import Progress, begin
from theta.store.format.manifest import Line
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.write.layer_plan import Planned, Ready

_IN_FLIGHT: Final = 192 << 20
"""Approximate bytes of memory for all tensors that are merged at the same time."""
_TAKEN: Final = "taken"
_HINT: Final = "give it a rule of its own under rules, such as NAME: ours"

Deed: TypeAlias = tuple[Line | Task, str]
"""A version that is taken as it is, or what computes one, and the name of the strategy."""


@dataclass(frozen=True)
class Composed:
    """A tensor of the result: its line, the file that its source is in, and how it was made."""

    line: Line
    place: str
    row: RehearsedTensor


def compose(
    objects: Objects,
    pack: PackWriter,
    document: Document,
    wanted: Sequence[ResultTensor],
    progress: Progress | None = None,
) -> list[Composed]:
    """Compute and store the tensors ``wanted`` of ``document``.

    Raises :class:`UsageError` for a tensor that the method does not go for.
    """
    groups = coded.groups((one.name, line.dtype) for one in wanted for line in one.inputs if line is not None)
    chosen = [_chosen(document, one, groups.get(one.name)) for one in wanted]
    tasks = {found.key: found for found, _ in chosen if isinstance(found, Task)}
    begin(progress, "merging", sum(task.like.nbytes for task in tasks.values()))
    results = ordered(partial(_ready, objects, pack), tasks.values(), computing.weight, _IN_FLIGHT)
    made: dict[tuple[object, ...], tuple[Line, int]] = {}
    for key, (computed, stored) in zip(tasks, results, strict=True):
        line = computed if isinstance(computed, Line) else computed.write(pack)
        made[key] = line, stored
        if progress is not None:
            progress(line.nbytes)
    return list(_told(wanted, chosen, made))


def _told(
    wanted: Sequence[ResultTensor], chosen: Sequence[Deed], made: dict[tuple[object, ...], tuple[Line, int]]
) -> Iterator[Composed]:
    counted: set[tuple[object, ...]] = set()
    for one, (found, how) in zip(wanted, chosen, strict=True):
        line, stored = made[found.key] if isinstance(found, Task) else (found, 0)
        if isinstance(found, Task):
            stored = 0 if found.key in counted else stored
            counted.add(found.key)
        is_old = any(line.tree == other.tree for other in (*one.inputs, one.base) if other is not None)
        state = _TAKEN if is_old else "merged"
        row = RehearsedTensor(one.name, state, how, line.nbytes, stored)
        yield Composed(replace(line, name=one.name), one.place, row)


def _ready(objects: Objects, pack: PackWriter, task: Task) -> tuple[Line | Streamed | Ready, int]:
    found = computing.compute(objects, task)
    if isinstance(found, Planned):
        return found.ready(pack), storing.stored_bytes(found)
    return found, 0 if isinstance(found, Line) else found.line.nbytes


# -- what becomes of a tensor ----------------------------------------------------------------


def _chosen(document: Document, one: ResultTensor, group: Coded | None) -> Deed:
    found, how = _decided(document, one, group)
    dtype = document.dtype
    if dtype is None or group is not None:
        return found, how
    if isinstance(found, Task):
        return replace(found, dtype=dtype), how
    if found.dtype != dtype and geometry.is_real(found.dtype):
        return computing.cast(found, dtype), how
    return found, how


def _decided(document: Document, one: ResultTensor, group: Coded | None) -> Deed:
    """Return what settles a tensor: one that a single input of several has is taken as it is."""
    numbers = [number for number, line in enumerate(one.inputs) if line is not None]
    lines = [line for line in one.inputs if line is not None]
    if not lines:
        assert one.base is not None
        return one.base, ""
    rule = next((entry.strategy for entry in document.rules if entry.matches(one.name)), None)
    if rule is not None and rule.name in SIDES:
        return _side(one, lines, rule.name), str(rule)
    if group is not None and len({line.digest for line in lines}) > 1:
        raise UsageError(f"{document.label}: {one.name}: {group.reason(one.name)}", hint=_HINT)
    is_number = all(is_averaged(line.dtype) for line in lines)
    if not is_number or group is not None or (len(lines) == 1 and len(one.inputs) > 1):
        return lines[0], ""
    strategy = rule or document.strategy(one.frame, numbers)
    return _task(document, one, lines, strategy), str(strategy)


def _side(one: ResultTensor, lines: Sequence[Line], name: str) -> Line:
    found = {"ours": lines[0], "theirs": lines[min(1, len(lines) - 1)], "base": one.base}[name]
    if found is None:
        raise UsageError(f"{one.name}: the recipe has no base to take")
    return found


def _task(document: Document, one: ResultTensor, lines: Sequence[Line], strategy: Strategy) -> Task:
    first, *others = lines
    if others:
        conflict = Conflict(one.name, one.base, first, others[0], tuple(others[1:]), True)
    else:  # the base as the other side, which is no input
        conflict = Conflict(one.name, one.base, first, one.base, (), True, (1,))
    conflict = strategy.narrowed(conflict)
    why = strategy.why_not(conflict)
    if why is not None:
        raise UsageError(f"{document.label}: {one.name}: {why}", hint=_HINT)
    if strategy.keeps_statistic:
        told = (
            f"{document.label}: {one.name}: {strategy.name} keeps a momentum, which a composed model has not"
        )
        raise UsageError(told, hint="merge the branches")
    options = MergeOptions(seed=document.seed, allow_nan=document.allow_nan)
    return computing.task(conflict, strategy, one.position, options)
