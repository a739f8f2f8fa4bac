"""How checkpoints in conflict were settled, and what is left in conflict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from theta.merging.recipes import Recipe
from theta.merging.states import Conflict
from theta.porcelain.merge import answers, resolving
from theta.porcelain.merge.joining import How, Merged
from theta.porcelain.workspace import in_progress
from theta.porcelain.workspace.session import Session


@dataclass(frozen=True)
class SettledFile:
    """A checkpoint that was settled.

    Attributes:
        path: where it is.
        tensors: how many it has; None when it was removed.
        decided: tensor -> the strategy that settled it, of those that no rule of git settles.
    """

    path: str
    tensors: int | None
    decided: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settlement:
    """The checkpoints that were settled, and those that were not.

    Attributes:
        settled: the checkpoints that were settled.
        conflicts: path -> the tensors in conflict, of checkpoints that were not.
        unmerged: all paths in conflict, those of other files too.
        asked: the recipe that was followed.
        go_on: the command that concludes the unfinished operation; empty if there is none.
        idle: nothing was in conflict.
        stash: no operation is unfinished, and git keeps a stash, which may have conflicted.
    """

    settled: Sequence[SettledFile] = ()
    conflicts: Mapping[str, Sequence[Conflict]] = field(default_factory=dict)
    unmerged: Sequence[str] = ()
    asked: Recipe = field(default_factory=Recipe)
    go_on: str = ""
    idle: bool = False
    stash: bool = False


def of(merged: Merged, asked: Recipe, unmerged: Iterable[str] = (), go_on: str = "") -> Settlement:
    """Return the settlement of ``merged``, with the decisions of ``asked``."""
    settled = [
        SettledFile(path, len(manifest.lines), dict(merged.decided.get(path, {})))
        for path, manifest in merged.resolved.items()
    ]
    settled += [SettledFile(path, None) for path in merged.removed]
    conflicts = {path: tuple(found) for path, found in merged.conflicts.items()}
    return Settlement(tuple(settled), conflicts, tuple(unmerged), asked, go_on)


def in_index(session: Session, merged: Merged, how: How) -> Settlement:
    """Return what ``merged`` left in the index; decisions of rules in open checkpoints stay as answers."""
    unmerged = resolving.unmerged(session)
    if unmerged:
        answers.keep_ruled(session, resolving.conflicts(session), merged.decided, how.asked())
    go_on = in_progress.current(session.repo).go_on
    stash = not go_on and "refs/stash" in session.repo.refs
    return replace(of(merged, how.asked(), unmerged, go_on), stash=stash)
