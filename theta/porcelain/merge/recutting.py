"""Merging a sharded model that one branch cut anew: by tensor, into the files of that branch.

Git sees deleted and added files there.  Each file of the branch that cut the model anew is merged with
what the other versions have of its tensors, in whichever of their files; so nothing is moved, and a
skeleton fits as it is.  Tensors that only the other branch has go to the last file.
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
"""Path -> manifest, of one model in one version."""

BothAndBase = tuple[Manifest, Manifest, Manifest]
"""Base, ours and theirs."""


@dataclass(frozen=True)
class Recut:
    """A model that was cut anew: what to merge for each file of the result, and the files that go."""

    targets: Mapping[str, BothAndBase]
    gone: frozenset[str]

    @property
    def paths(self) -> set[str]:
        """The files of all versions."""
        return self.targets.keys() | self.gone


def recut(session: Session, pack: PackWriter, trees: Sequence[Checkpoints]) -> list[Recut]:
    """The models whose files are others in one of ``trees``: base, ours, theirs.

    What the merges need and no commit has goes into ``pack``.
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
    """The version (1 ours, 2 theirs) whose files the result has; none where there is nothing to choose."""
    if not (base and ours and theirs) or base == ours == theirs:
        return None
    if ours == base:
        return 2
    return 1 if theirs in (base, ours) else None  # both cut it anew, differently: a conflict


def _only(files: Manifests, paths: Iterable[str]) -> Manifests:
    return {path: files[path] for path in sorted(paths) if path in files}


def _targets(
    objects: Objects, pack: PackWriter, sides: Sequence[Manifests], at: int
) -> dict[str, BothAndBase]:
    """The merges for the files of version ``at``; none where a version's files do not go together."""
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
    """The tensors of all files; none where two of them disagree, or there are no files."""
    found: dict[str, Line] = {}
    for manifest in manifests:
        for line in manifest.lines:
            if not found.setdefault(line.name, line).same_value(line):
                return None
    return found or None


def _part(
    objects: Objects, pack: PackWriter, like: Manifest, lines: Mapping[str, Line], names: set[str]
) -> Manifest | None:
    """The file ``like`` with the tensors ``names`` as another version has them; none if it cannot be made."""
    chosen = tuple(lines[name] for name in sorted(names & lines.keys()))
    skeleton = result_file.laid_out(objects, pack, like, chosen)
    return replace(like, skeleton=skeleton, lines=chosen, groups=()) if skeleton else None
