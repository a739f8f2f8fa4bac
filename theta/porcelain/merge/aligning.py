"""Reordering theirs after ours before a checkpoint is merged (``--align``).

Theirs in the new order is in no commit.  It is stored in a temporary directory, the merge is made there, and
what its result needs is copied to the repository.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from theta.merging import engine
from theta.merging.alignment import orthogonal, reordering, specs
from theta.merging.alignment.axes import Heads
from theta.merging.alignment.orthogonal import Turned
from theta.merging.alignment.reordering import Reordering
from theta.merging.alignment.specs import Alignment
from theta.merging.engine import MergeOptions, Outcome
from theta.merging.strategies import Policy
from theta.porcelain.merge import dry_run
from theta.porcelain.merge.versions import Versions
from theta.porcelain.workspace.checkpoints import Checkpoints, model_of
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format import listings
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

_CONFIG: Final = "config.json"
_MOST_CONFIG: Final = 1 << 20


@dataclass
class AlignedFiles:
    """The files of one model on both sides, whose units are ordered together.

    Attributes:
        ours: the files of our version.
        theirs: the files of their version.
        heads: the attention heads that our configuration tells, or None.
        kind: the kind of model that it tells, or "".
    """

    ours: Sequence[Manifest]
    theirs: Sequence[Manifest]
    heads: Heads | None = None
    kind: str = ""
    _found: Reordering | Turned | None = field(default=None, repr=False)

    def reordering(
        self, objects: Objects, asked: Alignment | None, progress: Progress | None
    ) -> Reordering | Turned:
        """Return the order of theirs, or its directions, which are found once for all files."""
        assert asked is not None
        if self._found is None and asked.way == orthogonal.WAY:
            self._found = orthogonal.find(objects, self.ours, self.theirs, self.heads, self.kind)
        elif self._found is None:
            self._found = reordering.find(objects, self.ours, self.theirs, asked, self.heads, progress)
        return self._found


class Models:
    """The models whose files a merge joins.

    Args:
        versions: the commits that are merged.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._pairs: dict[str, AlignedFiles] = {}

    def of(self, path: str, *sides: Manifest) -> AlignedFiles:
        """Return the files of the model that ``sides`` at ``path`` are of: ours and theirs."""
        name = model_of(path)
        if name not in self._pairs:
            trees = self._versions.trees[1:]
            ours, theirs = (_files(tree, name, side) for tree, side in zip(trees, sides, strict=True))
            config = _parsed(self._versions.texts(path, _CONFIG)[1])
            self._pairs[name] = AlignedFiles(
                ours, theirs, specs.of_config(config), str(config.get("model_type", ""))
            )
        return self._pairs[name]


def _files(tree: Checkpoints, name: str, side: Manifest) -> list[Manifest]:
    """Return the files of model ``name`` in ``tree``; only ``side`` if it is none of them."""
    found = [tree.manifests[path] for path in sorted(tree.models().get(name, ())) if path in tree.manifests]
    return found if side in found else [side]


def _parsed(data: bytes | None) -> Mapping[str, Any]:
    """Return a ``config.json``; {} for none, or one that cannot be read."""
    if data is None or len(data) > _MOST_CONFIG:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def merge(
    session: Session,
    pack: PackWriter,
    model: AlignedFiles,
    sides: tuple[Manifest | None, Manifest, Manifest],
    policy: Policy,
    options: MergeOptions,
    progress: Progress | None,
) -> Outcome:
    """Merge as :func:`engine.merge` does, with theirs in the order of ours."""
    base, ours, theirs = sides
    options = replace(options, files=options.files[:1], model=None)
    with _scratch(session) as apart:
        found = model.reordering(apart, options.align, progress)
        with apart.writing() as own:
            moved = found.apply(apart, own, theirs)
        with apart.writing() as own:
            outcome = engine.merge(apart, own, base, (ours, moved), policy, options, progress)
        if outcome.manifest is not None:
            known = {tree for side in sides if side is not None for tree in _trees(side)}
            outcome.manifest = _adopted(apart, session.objects, pack, outcome.manifest, known)
            if outcome.kept is not None:
                before = _trees(options.kept) if options.kept is not None else ()
                outcome.kept = _adopted(apart, session.objects, pack, outcome.kept, before)
    return outcome


@contextmanager
def _scratch(session: Session) -> Iterator[Objects]:
    """Return a context manager of objects that are written to no repository."""
    if isinstance(session.objects, dry_run.Rehearsed):
        yield session.objects
        return
    with dry_run.rehearsal(session) as apart:
        yield apart.objects


def _adopted(
    source: Objects, target: Objects, pack: PackWriter, manifest: Manifest, known: Collection[str]
) -> Manifest:
    """Copy what ``manifest`` needs to ``pack``, except the ``known`` trees and what ``target`` has."""

    def copy(oid: str) -> str:
        return oid if target.has(oid) else pack.blob(source.chunk(oid))

    for tree in sorted(_trees(manifest) - {*known}):
        if source.has(tree):
            files = source.tree(tree).items()
            pack.tree([(name, mode, copy(oid)) for name, (mode, oid) in files])
    return listings.write(pack, manifest)


def _trees(manifest: Manifest) -> set[str]:
    """Return the trees of the tensors and of the skeleton."""
    return {manifest.skeleton, *(line.tree for line in manifest.lines)}
