"""The request and the result of ``theta diff``: changed checkpoints, and the changed tensors of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from theta.errors import no_tensor
from theta.lazy import Module
from theta.porcelain.look import diffing
from theta.porcelain.look.diffing import Compared, Numbers, Sides
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.changes import Change

if TYPE_CHECKING:
    from theta.merging.states import Conflict
    from theta.porcelain.look import adapter_updates, number_parts
    from theta.porcelain.look.adapter_updates import ModuleUpdate
else:
    adapter_updates = Module("theta.porcelain.look.adapter_updates")
    number_parts = Module("theta.porcelain.look.number_parts")

PATCHES: Final = (
    *("--cached", "--staged", "--exit-code", "--patch", "-u", "--unified", "--function-context", "--color"),
    *("--no-color", "--word-diff", "--word-diff-regex", "--color-words", "--color-moved", "--color-moved-ws"),
    *("--ignore-all-space", "--ignore-space-change", "--ignore-space-at-eol", "--ignore-cr-at-eol"),
    *("--ignore-blank-lines", "--ignore-matching-lines", "--minimal", "--patience", "--histogram"),
    *("--diff-algorithm", "--indent-heuristic", "--inter-hunk-context", "--text", "--textconv", "--ext-diff"),
    *("--src-prefix", "--dst-prefix", "--no-prefix", "--line-prefix", "--full-index", "--binary"),
)
"""Options of git's patch output; the tables of tensors are printed before the patches."""


@dataclass(frozen=True)
class DiffRequest:
    """The two sides of a diff, and what to show of it.

    Attributes:
        sides: each a revision, the index or the worktree.
        paths: files and directories relative to the current directory; empty for everything.
        tensors: a glob for names of tensors; None for all of them.
        numbers: read the values and compute how far they are apart.
    """

    sides: Sides
    paths: Sequence[str] = ()
    tensors: str | None = None
    numbers: bool = False

    def wants(self, change: Change | Conflict) -> bool:
        """Return whether the name of the tensor matches the glob."""
        return self.tensors is None or fnmatchcase(change.name, self.tensors)


@dataclass(frozen=True)
class DiffResult:
    """The differences in order of path; ``known`` are the paths of all checkpoints on both sides."""

    checkpoints: tuple[Compared, ...]
    known: frozenset[str]


@dataclass(frozen=True)
class TensorChanges:
    """A changed checkpoint and its selected tensors.

    Attributes:
        compared: the two versions.
        tensors: the selected tensors.
        numbers: name -> statistics, for those that these can be computed of.
        modules: the updates of an adapter, for the selected factors.
        same: with numbers, the names of selected tensors that did not change.
    """

    compared: Compared
    tensors: tuple[Change, ...]
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    modules: Sequence[ModuleUpdate] = ()
    same: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the changes as plain data."""
        item, rows = self.compared, [asdict(change) for change in self.tensors]
        for row in rows:
            if (numbers := self.numbers.get(row["name"])) is not None:
                row["stats"] = asdict(numbers)
        modules = {"modules": [asdict(one) for one in self.modules]} if self.modules else {}
        return {
            "path": item.path,
            "files": list(item.paths),
            "container": item.changes.container,
            "unchanged": item.changes.unchanged,
            "tensors": rows,
            **modules,
        }


def diff(session: Session, request: DiffRequest, progress: Progress | None = None) -> DiffResult:
    """Compare the checkpoints of two sides by digest; :func:`tensors` gives the details of one.

    With a glob, those are left out of which no changed tensor matches it.  Raises :class:`NotFoundError` if
    no tensor does, changed or not: that is a slip, as it is in a rule of a merge.
    """
    pair = request.sides
    session.expect_trees(filter(None, (pair.old, pair.new)))
    known = {*diffing.on_side(session, pair.old), *diffing.on_side(session, pair.new or "")}
    wanted = _below(known, [session.from_root(path) for path in request.paths]) if request.paths else None
    found = diffing.compare(session, pair, wanted, progress)
    if request.tensors is not None:
        found = [item for item in found if any(map(request.wants, item.changes.tensors))]
        if not found:
            both = (diffing.on_side(session, pair.old), diffing.on_side(session, pair.new or ""))
            lines = (line for side in both for one in side.manifests.values() for line in one.lines)
            check_glob([] if session.index.conflicts else [line.name for line in lines], request.tensors)
    if request.numbers:
        diffing.expect(session, found, request.tensors)
    return DiffResult(tuple(found), frozenset(known))


def check_glob(names: Collection[str], glob: str) -> None:
    """Raise :class:`NotFoundError` if there are ``names`` of tensors, and none that ``glob`` matches."""
    if names and not any(fnmatchcase(name, glob) for name in names):
        raise no_tensor(glob, [*dict.fromkeys(names)])


def _below(names: set[str], roots: Sequence[str]) -> set[str]:
    return {name for name in names for root in roots if root in (".", name) or name.startswith(root + "/")}


def tensors(
    session: Session,
    request: DiffRequest,
    item: Compared,
    progress: Progress | None = None,
    watch: Callable[[Change, Numbers | None], None] | None = None,
) -> TensorChanges:
    """Return the tensors of ``item`` that ``request`` selects, with numbers if it wants them.

    ``watch`` gets each tensor as soon as it has been read; factors of adapters are left out.
    """
    kept = tuple(filter(request.wants, item.changes.tensors))
    modules = modules_of(session, request, item, kept)
    if not request.numbers:
        return TensorChanges(item, kept, modules=modules)
    nbytes = sum(change.new.nbytes for change in kept if change.new is not None)
    begin(progress, "comparing", nbytes, item.path)
    found, products = {}, {one.module for one in modules}
    for change, numbers in _numbers(session, item, kept, nbytes):
        found[change.name] = numbers
        if watch is not None and diffing.module_of(change.name) not in products:
            watch(change, numbers)
        if progress is not None and change.new is not None:
            progress(change.new.nbytes)
    measured = {name: one for name, one in found.items() if one is not None}
    return TensorChanges(item, kept, measured, modules, _same(session, request, item))


def _same(session: Session, request: DiffRequest, item: Compared) -> Sequence[str]:
    """Return the names of the selected tensors that did not change, renamed ones among them."""
    changed = {change.name for change in item.changes.tensors if change.status != "R"}
    names = (name for name in diffing.names_after(session, item) if name not in changed)
    return [name for name in names if fnmatchcase(name, request.tensors or "*")]


def _numbers(
    session: Session, item: Compared, kept: Sequence[Change], nbytes: int
) -> Iterator[tuple[Change, Numbers | None]]:
    """Yield the changes with their statistics, by threads or by the workers of an engine."""
    engine = session.engine(nbytes)
    if engine is None:
        yield from ((change, diffing.numbers(session, item, change)) for change in kept)
        return
    with session.engaged():
        yield from number_parts.each(engine, session, item, kept)


def modules_of(
    session: Session, request: DiffRequest, item: Compared, kept: tuple[Change, ...]
) -> Sequence[ModuleUpdate]:
    """Return the updates of an adapter of which the factors ``kept`` changed; none for other checkpoints."""
    if not any(diffing.module_of(change.name) for change in kept):
        return ()
    chosen = replace(item, changes=replace(item.changes, tensors=kept))
    return adapter_updates.changed(session, request.sides, chosen, of_base=request.numbers)


def as_json(session: Session, request: DiffRequest, item: Compared) -> dict[str, Any]:
    """Return the changes of ``item`` as plain data."""
    return tensors(session, request, item).as_json()
