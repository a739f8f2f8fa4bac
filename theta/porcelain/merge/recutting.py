"""Merging a sharded model that one branch resharded.

Git sees deleted and added files.  Here each file of the resharded version is merged with the same tensors
of the other versions, whichever file these have them in.  So no tensor moves, and the skeletons stay
valid.  Tensors that only the other branch has go to the last file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from theta.merging import result_file
from theta.porcelain.workspace.checkpoints import Checkpoints
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

Manifests = Mapping[str, Manifest]
"""Path -> manifest of each file of one version of a model."""

BothAndBase = tuple[Manifest, Manifest, Manifest]
"""Base, ours and theirs."""


@dataclass(frozen=True)
class Recut:
    """A resharded model: base, ours and theirs for each file of the result, and the files it deletes."""

    targets: Mapping[str, BothAndBase]
    gone: frozenset[str]

    @property
    def paths(self) -> set[str]:
        """The paths of the files of all versions."""
        return self.targets.keys() | self.gone


def recut(session: Session, pack: PackWriter, trees: Sequence[Checkpoints]) -> list[Recut]:
    """Return the models that ours or theirs resharded; ``trees`` are base, ours, theirs.

    New objects that the merges need are written to ``pack``.
    """
    found: list[Recut] = []
    models = [tree.models() for tree in trees]
    for name in sorted(set().union(*models)):
        paths = [files.get(name, frozenset()) for files in models]
        at = _newly_cut(*paths)
        if at is not None:
            sides = [_only(tree.manifests, own) for tree, own in zip(trees, paths, strict=True)]
            targets = _targets(session.objects, pack, sides, at)
            if targets:
                found.append(Recut(targets, frozenset().union(*paths) - targets.keys()))
    return found


def _newly_cut(base: frozenset[str], ours: frozenset[str], theirs: frozenset[str]) -> int | None:
    """Return the version whose files the result has, 1 for ours, 2 for theirs; None if neither."""
    if not (base and ours and theirs) or base == ours == theirs:
        return None
    if ours == base:
        return 2
    return 1 if theirs in (base, ours) else None  # both resharded it differently: a conflict


def _only(files: Manifests, paths: Iterable[str]) -> Manifests:
    return {path: files[path] for path in sorted(paths) if path in files}


def _targets(
    objects: Objects, pack: PackWriter, sides: Sequence[Manifests], at: int
) -> dict[str, BothAndBase]:
    """Return path -> base, ours and theirs for the files of version ``at``.

    Empty if the files of a version disagree, or the formats differ.
    """
    joined = [tensors for files in sides if (tensors := _joined(files.values())) is not None]
    if len(joined) < len(sides) or len({each.format for files in sides for each in files.values()}) != 1:
        return {}
    files = sides[at]
    names = {path: {line.name for line in manifest.lines} for path, manifest in files.items()}
    names[max(files)] |= set().union(*joined) - set().union(*names.values())
    found: dict[str, BothAndBase] = {}
    for path, manifest in files.items():
        base, ours, theirs = (_part(objects, pack, manifest, lines, names[path]) for lines in joined)
        if base is None or ours is None or theirs is None:
            return {}
        found[path] = (base, ours, theirs)
    return found


def _joined(manifests: Iterable[Manifest]) -> dict[str, Line] | None:
    """Return the tensors of all files; None when two files disagree or there are none."""
    found: dict[str, Line] = {}
    for manifest in manifests:
        for line in manifest.lines:
            if not found.setdefault(line.name, line).same_value(line):
                return None
    return found or None


def _part(
    objects: Objects, pack: PackWriter, like: Manifest, lines: Mapping[str, Line], names: set[str]
) -> Manifest | None:
    """Return manifest ``like`` with the tensors ``names`` of ``lines``; None if its format cannot."""
    chosen = tuple(lines[name] for name in sorted(names & lines.keys()))
    skeleton = result_file.laid_out(objects, pack, like, chosen)
    return replace(like, skeleton=skeleton, lines=chosen, groups=()) if skeleton else None
