"""Merging several branches at once, like git's octopus.

Like git's octopus, the branches are merged one after the other, each with its own merge base.  A tensor
that these steps leave in conflict is then settled once, with the values of all branches: the average of
ten contributors is one average, not nine in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from theta.errors import UsageError
from theta.git import commit_graph
from theta.git.commit_graph import octopus_base
from theta.lazy import Module
from theta.merging import engine
from theta.merging.result_file import CONTAINER
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy
from theta.porcelain.merge import in_memory, joining, keeping
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.merge.joining import How
from theta.porcelain.merge.versions import Stages, Versions, configuration, whole_model
from theta.porcelain.workspace.checkpoints import Checkpoints
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta.porcelain.merge import token_matching
else:
    token_matching = Module("theta.porcelain.merge.token_matching")


def join(session: Session, heads: Sequence[str], how: How, base: str | None = None) -> Joined:
    """Merge all ``heads`` (ours first) in memory; the paths of the result have stage 0 only.

    ``base`` replaces the common ancestor of all heads.
    """
    if len(heads) == 2:
        return in_memory.join(session, heads[0], heads[1], how, base)
    if how.options.align is not None:
        raise UsageError("--align reorders one branch at a time", hint="merge one branch after the other")
    steps = _Steps(session)
    joined = steps.join(heads)
    if not joined.clean:
        return joined
    tree = session.repo.whole_tree(in_memory.result_tree(session, joined.tree, joined.merged))
    paths: dict[str, Stages] = {path: {0: one.oid} for path, one in session.of_tree(tree).items()}
    result = Joined(tree, paths, joined.versions)
    with session.objects.writing(keep=True) as pack:
        together = _Together(session, pack, heads, how, steps.asked)
        together.settle(result, base or octopus_base(session.repo, heads))
    return result


@dataclass
class _Steps:
    """Merges the branches one after the other, and takes ours for each tensor in conflict.

    ``asked`` collects store -> names of these tensors.
    """

    session: Session
    asked: dict[str, set[str]] = field(default_factory=dict)

    def join(self, heads: Sequence[str]) -> Joined:
        current, *others = heads
        for at, other in enumerate(others):
            asked: dict[str, set[str]] = {}
            joined = in_memory.join(self.session, current, other, _noting(asked))
            for path, manifest in joined.merged.resolved.items():
                self.asked.setdefault(manifest.store, set()).update(asked.get(path, ()))
            if not joined.clean or at == len(others) - 1:
                break
            current = self._commit(joined, [current, other])
        return joined

    def _commit(self, joined: Joined, parents: list[str]) -> str:
        """Write a commit of the result, which no ref names: ``git merge-tree`` merges commits only."""
        tree = in_memory.result_tree(self.session, joined.tree, joined.merged)
        return commit_graph.unnamed_commit(self.session.repo, tree, parents)


def _noting(asked: dict[str, set[str]]) -> How:
    """Return a ``How`` that takes ours for each conflict, and adds path -> name to ``asked``."""

    def by_path(path: str) -> How:
        def policy(conflict: Conflict) -> Strategy:
            asked.setdefault(path, set()).add(conflict.name)
            return Strategy("ours")

        return How(policy)

    return replace(by_path(""), by_path=by_path)


@dataclass
class _Together:
    """Settles the tensors that the steps left in conflict, with the values of all branches."""

    session: Session
    pack: PackWriter
    heads: Sequence[str]
    how: How
    asked: dict[str, set[str]]
    base: str | None = None

    def settle(self, result: Joined, base: str | None) -> None:
        self.base = base
        self.session.expect_trees(filter(None, (base, *self.heads)))
        versions = [Versions(self.session, revision, None, None) for revision in (base, *self.heads)]
        for path, stages in result.paths.items():
            joined = self.session.manifest_or_none(stages[0])
            if joined is not None and self.how.at(path).options.by_token is not None:
                token_matching.check_several(self.session, self.base, self.heads, path, joined.store)
            if self.how.at(path).options.keeps and keeping.is_kept(path):
                continue
            wanted = self.how.at(path).wants_all
            if joined is None or not (wanted or self.asked.get(joined.store)):
                continue
            before, *sides = (version.in_base(joined.store) for version in versions)
            found = [side for side in sides if side is not None]
            heads = [head for head, side in zip(self.heads, sides, strict=True) if side is not None]
            if len(found) > 1 and len({side.data for side in found}) > 1:
                own = [versions[0], *(v for v, side in zip(versions[1:], sides, strict=True) if side)]
                trees = [version.trees[0] for version in own]
                self._merge(path, joined, (before, *found), heads, trees, result)
        joining.tell_dtypes(result.versions, result.merged)

    def _merge(
        self,
        path: str,
        joined: Manifest,
        versions: tuple[Manifest | None, *tuple[Manifest, ...]],
        heads: Sequence[str],
        trees: Sequence[Checkpoints],
        result: Joined,
    ) -> None:
        before, *sides = versions
        how = self.how.at(path)
        if any(".lora_" in line.name for line in joined.lines):
            found = [configuration(self.session, head, path, joined.store) for head in heads]
            how = replace(how, configurations=found)
        if not how.everything:
            asked = self.asked.get(joined.store, set())
            sides = [_only(side, joined, asked) for side in sides]
        workers = joining.workers(self.session, joined)
        options = replace(how.options, adapters=how.scales, model=whole_model(trees, path), workers=workers)
        if options.keeps:
            options = keeping.prepared(self.session, path, trees, options)
        outcome = engine.merge(
            self.session.objects, self.pack, before, sides, how.policy, options, how.progress
        )
        result.merged.add(path, outcome, how.configurations, dry_run=how.options.dry_run)


def _only(side: Manifest, joined: Manifest, asked: set[str]) -> Manifest:
    """Return ``joined`` with the tensors in ``asked`` as ``side`` has them."""
    lines: dict[str, Line] = {name: line for name, line in joined.by_name.items() if name not in asked}
    lines |= {name: line for name, line in side.by_name.items() if name in asked}
    skeleton = side.skeleton if CONTAINER in asked else joined.skeleton
    ordered = tuple(lines[name] for name in sorted(lines))
    return replace(side, lines=ordered, skeleton=skeleton, groups=())
