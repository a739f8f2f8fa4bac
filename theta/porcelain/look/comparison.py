"""The request and the result of ``theta diff``: changed checkpoints, and the changed tensors of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from theta.porcelain.look import diffing
from theta.porcelain.look.diffing import Compared, Numbers, Sides
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.changes import Change

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

    def wants(self, change: Change) -> bool:
        """Return whether the name of the tensor matches the glob."""
        return self.tensors is None or fnmatchcase(change.name, self.tensors)


@dataclass(frozen=True)
class DiffResult:
    """The differences in order of path; ``known`` are the paths of all checkpoints on both sides."""

    checkpoints: tuple[Compared, ...]
    known: frozenset[str]


@dataclass(frozen=True)
class TensorChanges:
    """A changed checkpoint and its selected tensors; ``numbers`` has those that can be computed."""

    compared: Compared
    tensors: tuple[Change, ...]
    numbers: Mapping[str, Numbers] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the changes as plain data."""
        item, rows = self.compared, [asdict(change) for change in self.tensors]
        for row in rows:
            if (numbers := self.numbers.get(row["name"])) is not None:
                row["stats"] = asdict(numbers)
        return {
            "path": item.path,
            "files": list(item.paths),
            "container": item.changes.container,
            "unchanged": item.changes.unchanged,
            "tensors": rows,
        }


def diff(session: Session, request: DiffRequest, progress: Progress | None = None) -> DiffResult:
    """Compare the checkpoints of two sides by digest; :func:`tensors` gives the details of one."""
    pair = request.sides
    session.expect_trees(filter(None, (pair.old, pair.new)))
    known = {*diffing.on_side(session, pair.old), *diffing.on_side(session, pair.new or "")}
    wanted = _below(known, [session.from_root(path) for path in request.paths]) if request.paths else None
    found = diffing.compare(session, pair, wanted, progress)
    if request.numbers:
        diffing.expect(session, found, request.tensors)
    return DiffResult(tuple(found), frozenset(known))


def _below(names: set[str], roots: Sequence[str]) -> set[str]:
    return {name for name in names for root in roots if root in (".", name) or name.startswith(root + "/")}


def tensors(
    session: Session, request: DiffRequest, item: Compared, progress: Progress | None = None
) -> TensorChanges:
    """Return the tensors of ``item`` that ``request`` selects, with numbers if it wants them."""
    kept = tuple(filter(request.wants, item.changes.tensors))
    if not request.numbers:
        return TensorChanges(item, kept)
    begin(progress, "comparing", sum(change.new.nbytes for change in kept if change.new), item.path)
    found = {}
    for change in kept:
        found[change.name] = diffing.numbers(session, item, change)
        if progress is not None and change.new is not None:
            progress(change.new.nbytes)
    return TensorChanges(item, kept, {name: one for name, one in found.items() if one is not None})


def as_json(session: Session, request: DiffRequest, item: Compared) -> dict[str, Any]:
    """Return the changes of ``item`` as plain data."""
    return tensors(session, request, item).as_json()
