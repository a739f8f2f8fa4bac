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
from theta.merging.documents import token_rows
from theta.merging.documents.recipe_document import Document
from theta.merging.documents.stacks import ResultTensor
from theta.merging.documents.vocabularies import Vocabulary
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
    vocabulary: Vocabulary | None = None,
    progress: Progress | None = None,
) -> list[Composed]:
    """Compute and store the tensors ``wanted`` of ``document``, those with rows by token in ``vocabulary``.

    Raises :class:`UsageError` for a tensor that the method does not go for.
    """
    if vocabulary is not None:
        by_token = [one for one in wanted if token_rows.has_rows(one, vocabulary)]
        known = {id(one) for one in by_token}
        rest = [one for one in wanted if id(one) not in known]
        made_by_token = [_of_tokens(objects, pack, document, one, vocabulary) for one in by_token]
        return [*made_by_token, *compose(objects, pack, document, rest, None, progress)]
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


def _of_tokens(
    objects: Objects, pack: PackWriter, document: Document, one: ResultTensor, vocabulary: Vocabulary
) -> Composed:
    """Merge a tensor whose rows are those of tokens."""
    found, base = token_rows.aligned(objects, one, vocabulary)
    numbers = [number for number, matrix in enumerate(found) if matrix is not None]
    inputs = [matrix for matrix in found if matrix is not None]
    strategy = _rule(document, one) or document.strategy(one.frame, numbers, one.names)
    if not inputs and base is not None:
        inputs, base, strategy = [base], None, Strategy("passthrough")
    if strategy.name in SIDES:
        raise UsageError(f"{document.label}: {one.name} has rows by token, which no side has as they are")
    task = _task(document, token_rows.conflict(one, inputs, base), strategy, one.position)
    task = replace(task, dtype=document.dtype)
    parents = [line for line in (*one.inputs, one.base) if line is not None]
    planned = token_rows.compute(objects, task, inputs, base, parents)
    stored = storing.stored_bytes(planned) if isinstance(planned, Planned) else planned.line.nbytes
    line = planned.write(pack)
    row = RehearsedTensor(one.name, "merged", f"{strategy} by token", line.nbytes, stored)
    return Composed(replace(line, name=one.name), one.place, row)


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
    rule = _rule(document, one)
    if rule is not None and rule.name in SIDES:
        return _side(one, lines, rule.name), str(rule)
    if group is not None and len({line.digest for line in lines}) > 1:
        raise UsageError(f"{document.label}: {one.name}: {group.reason(one.name)}", hint=_HINT)
    is_number = all(is_averaged(line.dtype) for line in lines)
    if not is_number or group is not None or (len(lines) == 1 and len(one.inputs) > 1):
        return lines[0], ""
    strategy = rule or document.strategy(one.frame, numbers, one.names)
    return _task(document, _conflict(one, lines), strategy, one.position), str(strategy)


def _side(one: ResultTensor, lines: Sequence[Line], name: str) -> Line:
    found = {"ours": lines[0], "theirs": lines[min(1, len(lines) - 1)], "base": one.base}[name]
    if found is None:
        raise UsageError(f"{one.name}: the recipe has no base to take")
    return found


def _conflict(one: ResultTensor, lines: Sequence[Line]) -> Conflict:
    first, *others = lines
    if others:
        return Conflict(one.name, one.base, first, others[0], tuple(others[1:]), True)
    return Conflict(one.name, one.base, first, one.base, (), True, (1,))  # the base, which is no input


def _task(document: Document, conflict: Conflict, strategy: Strategy, position: float) -> Task:
    conflict = strategy.narrowed(conflict)
    why = strategy.why_not(conflict)
    if why is not None:
        raise UsageError(f"{document.label}: {conflict.name}: {why}", hint=_HINT)
    if strategy.keeps_statistic:
        told = f"{document.label}: {conflict.name}: {strategy.name} keeps a momentum"
        raise UsageError(f"{told}, which a composed model has not", hint="merge the branches")
    options = MergeOptions(seed=document.seed, allow_nan=document.allow_nan)
    found = computing.task(conflict, strategy, position, options)
    return replace(found, agreeing=_is_agreeing(found))


def _is_agreeing(task: Task) -> bool:
    """Return whether equal inputs are the result by the formula: a recipe is no merge of branches.

    ``b + lambda sum(w_i d_i)`` is ``x`` where no input differs from the base, and ``sum(w_i x_i)`` where
    weights are normalised; mergekit's linear rounds that too.
    """
    if task.method.needs_base:
        return task.base is not None and task.base.digest == task.sides[0].digest
    scaled = [task.values.get(key, True) for key in ("normalize", "normalize_weights")]
    return all(scaled) and task.values.get("variant") != "mergekit"


def _rule(document: Document, one: ResultTensor) -> Strategy | None:
    return next((entry.strategy for entry in document.rules if entry.matches(one.name)), None)
