"""Merging versions of a checkpoint, tensor by tensor.

A tensor that at most one side changed is copied as its line and never read.  A policy decides about a
tensor that several sides changed.  If it has to be computed, that is done on threads, once for each
distinct value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypeGuard, TypeVar

from theta.errors import UsageError
from theta.merging import computing, depth, geometry, result_file
from theta.merging.adapters.factor_pairs import AdapterMerge
from theta.merging.adapters.scales import Scales
from theta.merging.coded import Coded
from theta.merging.computing import Task
from theta.merging.shapes import by_token, grown_rows
from theta.merging.shapes.by_token import TokenMerge, TokenOrder
from theta.merging.states import Conflict, Settled, WholeModel, same, three_way
from theta.merging.storing import Outlet, Streamed, stored_bytes
from theta.merging.strategies import SIDES, Policy, Strategy, factor_names
from theta.parallel import ordered
from theta.progress import Progress, begin
from theta.store.format import listings
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Skeleton
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter
from theta.store.read import coming_file
from theta.store.read.coming_file import OldFile
from theta.store.write import layer_plan
from theta.store.write.layer_plan import Planned, Ready
from theta.store.write.snapshot import sorted_lines

if TYPE_CHECKING:
    from theta.merging.alignment.specs import Alignment

_IN_FLIGHT: Final = 192 << 20
"""Approximate bytes of memory for all tensors that are merged at the same time."""

ROWS: Final = "rows"
_CODES: Final = "tokens have other ids on the sides, and its codes and scales are not merged row by row"
MergeScope = Literal["conflicts", "all"]


class Sink(Protocol):
    """A receiver of the tensors that a merge computes; threads may write to it at once."""

    def put(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Take ``data``, which begins at ``offset`` of tensor ``name``."""
        ...

    def done(self, name: str, digest: str) -> None:
        """Note that tensor ``name`` is whole, and its digest."""
        ...


@dataclass(frozen=True)
class Delivered:
    """A tensor that another process computed.

    Attributes:
        line: the line of the tensor, which is stored.
        is_put: whether all of its bytes are where the sink has them.
    """

    line: Line
    is_put: bool


class TaskWorkers(Protocol):
    """Other processes that compute tensors."""

    def deliver(
        self, tasks: Sequence[Task], sink: Sink | None, progress: Progress | None
    ) -> Sequence[Delivered] | None:
        """Compute and store each of ``tasks``; None to leave them to threads.

        Their outlets are those of ``sink``, to which other processes may write as well.
        """
        ...


@dataclass(frozen=True)
class MergeOptions:
    """The options of a merge.

    Attributes:
        scope: ``conflicts`` computes only tensors that several sides changed, like git; ``all`` also
            those that one side changed, from the values of all sides.
        seed: the seed of random strategies.
        allow_nan: accept new NaNs and infinities.
        statistics: for each side the checkpoint of weights for fisher, regmean and smear, or None.
        dry_run: write nothing, but report what would be stored.
        without: numbers of sides (ours is 0) that are not inputs for tensors they did not change;
            only with scope ``all``.
        files: for each side a file that may have the same content, such as that of the worktree, or
            None; chunks read there are not decoded if their digests match.
        dtype: dtype of all floats of the result, or None to leave them as they are.
        align: how theirs is reordered before it is merged; done by the caller of :func:`merge`.
        adapters: for each side the scales of the adapter that the checkpoint is, or None.
        keeps: a strategy keeps a statistic for the next merge.
        kept: what it kept at the base, or None.
        kept_store: the name of the store of what it keeps.
        model: returns the tensors of the model that the checkpoint is a shard of, or None.
        by_token: rows of embeddings are matched by token where vocabularies differ: by the tokenizer
            with this id, or by that of the result if it is empty; None matches rows by their number.
        tokens: the tokens of the rows, if they are matched by token; set by the caller of :func:`merge`.
        coming: called after all decisions with the id and the table of the skeleton; returns a sink for
            the result, or None.
        workers: other processes that compute the result, if it is large.
    """

    scope: MergeScope = "conflicts"
    seed: int = 0
    allow_nan: bool = False
    statistics: tuple[Manifest | None, ...] = ()
    dry_run: bool = False
    without: tuple[int, ...] = ()
    files: tuple[OldFile | None, ...] = ()
    dtype: str | None = None
    align: Alignment | None = None
    adapters: tuple[Scales | None, ...] = ()
    keeps: bool = False
    kept: Manifest | None = None
    kept_store: str = ""
    model: WholeModel | None = None
    by_token: str | None = None
    tokens: TokenOrder | None = None
    coming: Callable[[str, Skeleton], Sink | None] | None = None
    workers: TaskWorkers | None = None


@dataclass(frozen=True)
class RehearsedTensor:
    """The result of a dry run for one tensor.

    ``state`` is same, ours, theirs (theirs 2 ...), agreed, deleted, merged, rows, or conflict;
    ``stored`` is the number of bytes of new blobs.
    """

    name: str
    state: str
    strategy: str
    nbytes: int
    stored: int


@dataclass
class Outcome:
    """The merged checkpoint, or the conflicts that are left.

    Attributes:
        manifest: the result; None with conflicts, or in a dry run.
        conflicts: tensors without a decision.
        decided: name -> strategy that settled the tensor.
        rows: the report of a dry run.
        kept: the statistics that the strategies keep for the next merge, or None.
        rank: the rank that all factors of a merged adapter have, if its configuration has to say so.
        dtype: the dtype that all floats of the result have, if the configuration beside it has to say so.
    """

    manifest: Manifest | None = None
    conflicts: list[Conflict] = field(default_factory=list)
    decided: dict[str, str] = field(default_factory=dict)
    rows: list[RehearsedTensor] = field(default_factory=list)
    kept: Manifest | None = None
    rank: int | None = None
    dtype: str | None = None


Done = TypeVar("Done")
Choice: TypeAlias = Line | Task | Conflict | None
"""The decision about a tensor: a version, None to delete it, a task, or a conflict."""


def merge(
    objects: Objects,
    pack: PackWriter,
    base: Manifest | None,
    sides: Sequence[Manifest],
    policy: Policy,
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Merge versions of a checkpoint; only tensors that several sides changed are read.

    Args:
        objects: the objects of the repository.
        pack: receives new objects.
        base: the version of the common ancestor, or None.
        sides: our version, and that of each other branch.
        policy: returns the strategy of a conflict, or None to leave it; called in order of name, before
            anything is computed.
        options: scope, seed and so on.
        progress: counts the bytes of computed tensors.
    """
    if len(sides) < 2:
        raise UsageError("a merge needs two sides or more")
    return _Run(objects, pack, base, tuple(sides), policy, options or MergeOptions(), progress).outcome()


class _Run:
    """The merge of one checkpoint."""

    def __init__(
        self,
        objects: Objects,
        pack: PackWriter,
        base: Manifest | None,
        sides: tuple[Manifest, ...],
        policy: Policy,
        options: MergeOptions,
        progress: Progress | None,
    ) -> None:
        self._objects, self._pack, self._policy = objects, pack, policy
        self._base, self._sides, self._options = base, sides, options
        self._progress = progress
        self._positions = depth.positions(name for side in sides for name in side.by_name)
        self._places = [
            coming_file.places(objects, *pair) for pair in zip(sides, options.files, strict=False)
        ]
        self._places += [{} for _ in sides[len(self._places) :]] if self._places else []
        self._result = Outcome()
        self._absent = options.without
        if options.keeps and base is not None:
            idle = {number for number, side in enumerate(sides) if side.same_value(base)}
            self._absent = tuple(sorted({*options.without, *idle}))
        self._factors = AdapterMerge(sides, options.adapters, options.seed)

    def outcome(self) -> Outcome:
        ours, theirs, *others = self._sides
        result = self._result
        states = list(three_way(self._base, ours, theirs, *others, model=self._options.model))
        self._expect(states)
        choices = self._together([(state, self._choice(state)) for state in states])
        choices = self._with_all_factors(choices)
        choices = [(state, self._in_dtype(state, choice)) for state, choice in choices]
        result.conflicts += [choice for _, choice in choices if isinstance(choice, Conflict)]
        likes = [_like(choice) for _, choice in choices]
        result.dtype = self._told_dtype([line for line in likes if line is not None])
        container = self._container([line for line in likes if line is not None])
        if container is None and not result.conflicts:
            self._refuse_dtype([line for line in likes if line is not None])
            result.conflicts.append(result_file.conflict())
        if self._options.dry_run:
            result.rows = list(self._rows(choices))
        elif not result.conflicts and container is not None:
            skeleton, kind = container
            lines = [line for line in self._result_lines(choices, self._sink(skeleton)) if line is not None]
            whole = Manifest(kind, ours.store, skeleton, tuple(sorted_lines(lines)))
            result.manifest = listings.write(self._pack, whole)
            result.kept = self._kept(choices)
        return result

    def _told_dtype(self, likes: Sequence[Line]) -> str | None:
        """Return the dtype of all floats of the result, if it was asked for or sides have others."""
        if self._options.dtype is not None:
            return self._options.dtype
        of_sides = [_float_dtypes(side.lines) for side in self._sides]
        found = _float_dtypes(likes)
        return found.pop() if len(found) == 1 and any(one != of_sides[0] for one in of_sides) else None

    def _kept(self, choices: list[tuple[Settled | Conflict, Choice]]) -> Manifest | None:
        """Compute and write what the strategies keep for the next merge; None when there is nothing."""
        tasks = [(state, choice.kept()) for state, choice in choices if _keeps(choice)]
        if not tasks:
            return None
        names = {state.name for state, choice in choices if _like(choice) is not None}
        before = self._options.kept.by_name if self._options.kept else {}
        found = {line.name: line for line in self._result_lines([*tasks], None) if line is not None}
        lines = {name: line for name, line in {**before, **found}.items() if name in names}
        return result_file.statistics(
            self._pack, self._options.kept_store, tuple(sorted_lines(lines.values()))
        )

    def _expect(self, states: list[Settled | Conflict]) -> None:
        """Announce the tensors that are read if the policy decides about them."""
        names = [state.name for state in states if isinstance(state, Conflict) or self._is_all(state.name)]
        read = [side for side in (self._base, *self._sides, *self._options.statistics) if side is not None]
        for manifest in read:
            lines = filter(None, map(manifest.by_name.get, names))
            self._objects.expect({manifest.skeleton: 0} | {line.tree: line.nbytes for line in lines})

    def _is_all(self, name: str) -> bool:
        """Return whether ``name`` is computed even if only one side changed it."""
        first, *others = (side.by_name.get(name) for side in self._sides)
        return self._options.scope == "all" and not all(same(first, line) for line in others)

    def _container(self, lines: list[Line]) -> tuple[str, str] | None:
        if self._result.conflicts:
            return None
        ordered_lines = sorted_lines(lines)
        return result_file.merge(
            self._objects, self._pack, self._base, self._sides, ordered_lines, self._noted
        )

    def _refuse_dtype(self, lines: Sequence[Line]) -> None:
        """Raise :class:`UsageError` for a dtype that the file cannot have, whichever side is taken."""
        versions = [version for version in self._versions if version is not None]
        if self._options.dtype is not None and result_file.is_fixed(self._objects, versions, lines):
            kind = versions[-1].format
            raise UsageError(
                f"its tensors cannot get another dtype: this {kind} file has more than tensors",
                hint="leave out the dtype, or 'theta convert' both sides to safetensors first",
            )

    def _noted(self, conflict: Conflict) -> Strategy | None:
        """Ask the policy about a conflict outside of the tensors, and note its decision."""
        strategy = self._policy(conflict)
        if strategy is not None:
            self._result.decided[conflict.name] = str(strategy)
        return strategy

    # -- decisions -----------------------------------------------------------------------

    def _choice(self, state: Settled | Conflict) -> Choice:
        tokens = self._options.tokens
        if tokens is not None:
            lines = [version.by_name.get(state.name) if version else None for version in self._versions]
            if axes := tokens.axes(state.name, lines):
                why = _CODES if state.coded is not None else tokens.why_not(state.name, lines, axes)
                if not why:
                    return self._of_tokens(state, tokens, lines)
                return self._unmatched(state, tokens, lines, axes, why)
        if isinstance(state, Settled):
            return self._everywhere(state)
        if self._options.scope == "all":
            state = replace(state, everything=True, absent=self._absent)
        spans = grown_rows.grown(self._objects, state) if state.coded is None else ()
        if spans:
            self._result.decided[state.name] = ROWS
            return computing.taken(state, spans)
        return self._decided(state)

    @property
    def _versions(self) -> tuple[Manifest | None, ...]:
        return (self._base, *self._sides)

    def _of_tokens(
        self, state: Settled | Conflict, tokens: TokenOrder, lines: Sequence[Line | None]
    ) -> Choice:
        """Decide about a tensor whose rows are matched by token."""
        found = by_token.examined(self._objects, tokens, lines)
        if isinstance(found, str):
            return self._unmatched(state, tokens, lines, (0,), found)
        is_all = self._is_all(state.name)
        if found.whole is not None and not is_all:
            return found.whole
        if len(found.moved) < 2 and not is_all:
            self._result.decided[state.name] = ROWS
            return _taken_by_token(state.name, found, found.moved)
        asked = found.conflict(state.name, everything=is_all, absent=self._absent)
        strategy = self._policy(asked)
        if strategy is None or not strategy.applies(asked):
            return asked
        self._result.decided[state.name] = str(strategy)
        return self._by_token(found, asked, strategy)

    def _unmatched(
        self,
        state: Settled | Conflict,
        tokens: TokenOrder,
        lines: Sequence[Line | None],
        axes: Collection[int],
        why: str,
    ) -> Choice:
        """Decide about a tensor of tokens that is only taken whole; ``why`` is a clause."""
        if isinstance(state, Settled):
            if tokens.is_right(state.line, lines, axes):
                return state.line
            base, ours, theirs, *others = lines
            state = Conflict(state.name, base, ours, theirs, tuple(others), coded=state.coded)
        return self._decided(replace(state, reason=why))

    def _by_token(self, found: TokenMerge, asked: Conflict, strategy: Strategy) -> Task:
        """Return the task that merges the rows which several sides have by ``strategy``."""
        name, number = asked.name, strategy.side(asked.name, len(asked.sides), asked.absent)
        whole = found.conflict(name, everything=True)
        if strategy.name == "base" and asked.base is not None:
            taken = computing.taken(replace(whole, others=(*whole.others, asked.base)), ())
            return computing.by_tokens(taken, found.plan_of_base())
        if strategy.name in SIDES or (number is not None and strategy.takes(strategy.narrowed(asked))):
            return _taken_by_token(name, found, [number or 0])
        numbers = asked.changed_numbers if asked.everything else found.moved
        task = computing.task(whole, strategy, self._positions.get(name, 0.0), self._options)
        return computing.by_tokens(task, found.plan(numbers if number is None else [number]))

    def _everywhere(self, state: Settled) -> Choice:
        """Decide about a tensor without conflict: with scope all, a strategy that applies computes it."""
        lines = [side.by_name.get(state.name) for side in self._sides]
        before = self._base.by_name.get(state.name) if self._base else None
        kept = self._options.kept
        is_kept = self._options.keeps and kept is not None and state.name in kept.by_name
        agreed = all(same(lines[0], line) for line in lines[1:])
        unasked = agreed and not is_kept and not (self._options.keeps and not same(lines[0], before))
        if self._options.scope != "all" or unasked or state.coded is not None:
            return state.line
        asked = Conflict(state.name, before, lines[0], lines[1], tuple(lines[2:]), True, self._absent)
        if agreed and not self._is_keeper(asked):
            return state.line
        choice = self._decided(asked)
        return state.line if isinstance(choice, Conflict) else choice

    def _is_keeper(self, conflict: Conflict) -> bool:
        """Return whether the strategy for a tensor keeps a statistic."""
        strategy = self._policy(conflict)
        return strategy is not None and strategy.keeps_statistic

    def _decided(self, conflict: Conflict) -> Choice:
        strategy = self._policy(conflict)
        if strategy is not None and strategy.name == factor_names.PEFT:
            return self._factor(conflict, strategy) or conflict
        if strategy is None or not strategy.applies(conflict):
            return conflict
        self._result.decided[conflict.name] = str(strategy)
        if strategy.name in SIDES:
            side: Line | None = getattr(conflict, strategy.name)
            return side
        conflict = strategy.narrowed(conflict)
        if strategy.takes(conflict):
            return conflict.changed[0]
        options = self._options
        place = self._positions.get(conflict.name, 0.0)
        found = computing.task(conflict, strategy, place, options)
        if not self._places:
            return found
        places = (self._places[number].get(conflict.name) for number in conflict.changed_numbers)
        return replace(found, places=tuple(places))

    def _factor(self, conflict: Conflict, strategy: Strategy) -> Task | None:
        """Return the task of a factor of an adapter; None if the tensor is none."""
        made = self._factors.made(conflict.name, strategy)
        if made is None:
            return None
        self._result.decided[conflict.name] = str(strategy)
        return Task(conflict, strategy, {}, made=made)

    def _with_all_factors(
        self, choices: list[tuple[Settled | Conflict, Choice]]
    ) -> list[tuple[Settled | Conflict, Choice]]:
        """Return the choices with the other factor of each module too, and all where their rank changes."""
        tasks = {state.name: one for state, one in choices if isinstance(one, Task) and one.made is not None}
        if not tasks:
            return choices
        self._result.rank = self._factors.rank
        pairs = {id(one.made.pair) for one in tasks.values() if one.made is not None}
        strategy = next(iter(tasks.values())).strategy
        found: list[tuple[Settled | Conflict, Choice]] = []
        for state, choice in choices:
            made = None if state.name in tasks else self._factors.made(state.name, strategy)
            if made is not None and (self._factors.rank is not None or id(made.pair) in pairs):
                lines = [side.by_name.get(state.name) for side in self._sides]
                asked = Conflict(state.name, None, lines[0], lines[1], tuple(lines[2:]))
                found.append((state, self._factor(asked, strategy)))
            else:
                found.append((state, choice))
        return found

    def _together(
        self, choices: list[tuple[Settled | Conflict, Choice]]
    ) -> list[tuple[Settled | Conflict, Choice]]:
        """Return the choices with codes and scales in conflict unless all of a group come from one side."""
        decided = self._result.decided
        chosen: dict[Coded, set[str | None]] = {}
        for state, _ in choices:
            if isinstance(state, Conflict) and state.coded is not None:
                chosen.setdefault(state.coded, set()).add(decided.get(state.name))
        torn = {group for group, sides in chosen.items() if len(sides) > 1}
        for state, _ in choices if torn else ():
            if state.coded in torn:
                decided.pop(state.name, None)
        return [
            (state, state) if isinstance(state, Conflict) and state.coded in torn else (state, choice)
            for state, choice in choices
        ]

    def _in_dtype(self, state: Settled | Conflict, choice: Choice) -> Choice:
        """Return ``choice``, in the dtype that was asked for if it is of another float dtype."""
        dtype = self._options.dtype
        if dtype is None or state.coded is not None or isinstance(choice, Conflict):
            return choice
        if isinstance(choice, Task):
            return replace(choice, dtype=dtype)
        is_other = choice is not None and choice.dtype != dtype and geometry.is_real(choice.dtype)
        return computing.cast(choice, dtype) if choice is not None and is_other else choice

    # -- results -------------------------------------------------------------------------

    def _sink(self, skeleton: str) -> Sink | None:
        """Begin the new file; return None when none is wanted or its skeleton is not stored yet."""
        begin = self._options.coming
        if begin is None or not self._objects.has(skeleton):
            return None
        return begin(skeleton, skeletons.read(self._objects, skeleton))

    def _computed(self, todo: Sequence[Task], compute: Callable[[Objects, Task], Done]) -> Iterator[Done]:
        """Yield the results of ``todo`` in order, computed by threads of this process."""
        return ordered(partial(compute, self._objects), todo, computing.weight, _IN_FLIGHT)

    def _distinct(self, tasks: list[Task], sink: Sink | None) -> list[Task]:
        """Return ``tasks`` in order, one for all tied tensors, and announce them."""
        first: dict[tuple[object, ...], Task] = {}
        compare = layer_plan.worth_comparing(item.like.nbytes for item in tasks)
        for item in tasks:
            known = first.setdefault(item.key, replace(item, compare=compare))
            if sink is not None:
                known.outlets.append(Outlet(sink.put, item.like.name))
        begin(self._progress, "merging", sum(item.like.nbytes for item in first.values()))
        return list(first.values())

    def _delivered(self, todo: Sequence[Task], sink: Sink | None) -> Iterator[Delivered] | None:
        """Return the results of ``todo`` in order, if other processes compute them, which see the inputs."""
        workers = self._options.workers if self._objects.are_shared else None
        found = workers.deliver(todo, sink, self._progress) if workers is not None else None
        return None if found is None else iter(found)

    def _ready(self, objects: Objects, item: Task) -> Line | Streamed | Ready:
        """Compute ``item``; its objects are made here too, on the thread that has its bytes."""
        found = computing.compute(objects, item)
        return found.ready(self._pack) if isinstance(found, Planned) else found

    def _result_lines(
        self, choices: list[tuple[Settled | Conflict, Choice]], sink: Sink | None
    ) -> Iterator[Line | None]:
        """Yield the lines of the result; new tensors are written to the pack as soon as they are computed."""
        tasks = [choice for _, choice in choices if isinstance(choice, Task)]
        todo = self._distinct(tasks, sink)
        delivered = self._delivered(todo, sink)
        results = self._computed(todo, self._ready) if delivered is None else delivered
        known: dict[tuple[object, ...], Line] = {}
        made: set[tuple[object, ...]] = set()
        for state, choice in choices:
            if isinstance(choice, Task):
                if choice.key not in known:
                    found = next(results)
                    known[choice.key] = self._write(found)
                    made |= {choice.key} if _is_put(found) else set()
                    if delivered is None:
                        self._report(choice.like.nbytes)
                if sink is not None and choice.key in made:
                    sink.done(state.name, known[choice.key].digest)
                yield replace(known[choice.key], name=state.name)
            elif not isinstance(choice, Conflict):
                yield choice

    def _write(self, computed: Line | Planned | Streamed | Ready | Delivered) -> Line:
        if isinstance(computed, Delivered):
            return computed.line
        return computed if isinstance(computed, Line) else computed.write(self._pack)

    def _report(self, nbytes: int) -> None:
        if self._progress is not None:
            self._progress(nbytes)

    # -- a dry run -----------------------------------------------------------------------

    def _rows(self, choices: list[tuple[Settled | Conflict, Choice]]) -> Iterator[RehearsedTensor]:
        """Yield the report of a dry run for each tensor."""
        todo = self._distinct([choice for _, choice in choices if isinstance(choice, Task)], None)
        results = self._computed(todo, computing.compute)
        sizes: dict[tuple[object, ...], int] = {}
        for state, choice in choices:
            name, how = state.name, self._result.decided.get(state.name, "")
            if isinstance(choice, Conflict):
                yield RehearsedTensor(name, "conflict", "", _nbytes(choice), 0)
            elif isinstance(choice, Task):
                stored = 0
                if choice.key not in sizes:
                    found = next(results)
                    stored = 0 if isinstance(found, Line) else stored_bytes(found)
                    sizes[choice.key] = stored
                    self._report(choice.like.nbytes)
                state_name = ROWS if how == ROWS else "merged"
                how += " by token" if choice.tokens is not None else ""
                yield RehearsedTensor(name, state_name, how, choice.like.nbytes, stored)
            else:
                yield RehearsedTensor(
                    name, self._state_of(name, choice), how, choice.nbytes if choice else 0, 0
                )

    def _state_of(self, name: str, line: Line | None) -> str:
        """Return the state of a tensor whose version in the result is ``line``."""
        before = self._base.by_name.get(name) if self._base else None
        if same(line, before):
            return "same"
        if line is None:
            return "deleted"
        whose = [number for number, side in enumerate(self._sides) if same(line, side.by_name.get(name))]
        if len(whose) > 1:
            return "agreed"
        number = whose[0] if whose else 0
        return ("ours", "theirs")[number] if number < 2 else f"theirs {number}"


def _is_put(computed: Line | Planned | Streamed | Ready | Delivered) -> bool:
    """Return whether the outlets have the bytes: not those of a version that was stored before."""
    return computed.is_put if isinstance(computed, Delivered) else not isinstance(computed, Line)


def _float_dtypes(lines: Iterable[Line]) -> set[str]:
    return {line.dtype for line in lines if geometry.is_real(line.dtype)}


def _like(choice: Choice) -> Line | None:
    """Return a line with the dtype and shape of the tensor in the result; None for no tensor."""
    if isinstance(choice, Task):
        return choice.like
    return None if isinstance(choice, Conflict) else choice


def _taken_by_token(name: str, found: TokenMerge, chosen: Sequence[int]) -> Task:
    """Return the task that takes rows of the side ``chosen``, and where it has none of any other."""
    whole = found.conflict(name, everything=True)
    return computing.by_tokens(computing.taken(whole, ()), found.plan(chosen))


def _keeps(choice: Choice) -> TypeGuard[Task]:
    return isinstance(choice, Task) and choice.strategy.keeps_statistic


def _nbytes(conflict: Conflict) -> int:
    return max((side.nbytes for side in conflict.sides if side is not None), default=0)
