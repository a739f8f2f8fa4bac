"""The skeleton of a merge result: one side's, or a new file by the format's writer."""

from __future__ import annotations

from collections.abc import Sequence

from theta.formats import TensorSpec, safetensors
from theta.merging.states import Conflict
from theta.merging.strategies import Policy
from theta.store import skeleton as skeletons
from theta.store.manifest import Line, Manifest
from theta.store.objects import Objects
from theta.store.packs import PackWriter
from theta.store.skeleton import Extent, Literal, Skeleton

CONTAINER = "(container)"


def conflict() -> Conflict:
    """The conflict that stands for what both sides changed outside of the tensors."""
    return Conflict(CONTAINER, None, None, None)


def merge(
    objects: Objects,
    pack: PackWriter,
    sides: tuple[Manifest | None, Manifest, Manifest],
    lines: Sequence[Line],
    policy: Policy,
) -> str | None:
    """The skeleton id for a result with ``lines``; none where both sides' changes need a decision."""
    base, ours, theirs = sides
    chosen = _chosen(base, ours, theirs)
    for side in [chosen] if chosen is not None else [ours, theirs]:
        if _specs(side.lines) == _specs(lines) and (chosen is not None or ours.skeleton == theirs.skeleton):
            return side.skeleton
    if {ours.format, theirs.format} == {safetensors.NAME}:
        return _rewritten(objects, pack, sides, lines, policy)
    return _picked(sides, lines, policy)


def _chosen(base: Manifest | None, ours: Manifest, theirs: Manifest) -> Manifest | None:
    before = base.skeleton if base else None
    if ours.skeleton == theirs.skeleton or theirs.skeleton == before:
        return ours
    return theirs if ours.skeleton == before else None


def _specs(lines: Sequence[Line]) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(line.name, line.dtype, line.shape) for line in lines}


def _picked(
    sides: tuple[Manifest | None, Manifest, Manifest], lines: Sequence[Line], policy: Policy
) -> str | None:
    """Without a writer only a whole side will do, and only if it holds just these tensors."""
    strategy = policy(conflict())
    if strategy is None:
        return None
    side = {"base": sides[0], "theirs": sides[2]}.get(strategy.name, sides[1])
    return side.skeleton if side is not None and _specs(side.lines) == _specs(lines) else None


def _rewritten(
    objects: Objects,
    pack: PackWriter,
    sides: tuple[Manifest | None, Manifest, Manifest],
    lines: Sequence[Line],
    policy: Policy,
) -> str | None:
    metadata = [_metadata(objects, side) if side else None for side in sides]
    merged, settled = _merge_metadata(metadata[0] or {}, metadata[1] or {}, metadata[2] or {}, policy)
    if not settled:
        return None
    specs = [TensorSpec(line.name, line.dtype, line.shape) for line in lines]
    header, order = safetensors.plan(specs, merged or (None if metadata[1] is None else {}))
    sizes = {line.name: line.nbytes for line in lines}
    extents = [Extent(sizes[name], name) for name in order]
    return Skeleton((Literal(len(header)), *extents), header).write(pack)


def _metadata(objects: Objects, manifest: Manifest) -> dict[str, str] | None:
    return safetensors.read_metadata(skeletons.read(objects, manifest.skeleton).literal)


def _merge_metadata(
    base: dict[str, str], ours: dict[str, str], theirs: dict[str, str], policy: Policy
) -> tuple[dict[str, str], bool]:
    merged: dict[str, str] = {}
    for key in sorted(base.keys() | ours.keys() | theirs.keys()):
        before, left, right = base.get(key), ours.get(key), theirs.get(key)
        if left != right and left != before and right != before:
            strategy = policy(conflict())
            if strategy is None:
                return {}, False
            value = {"theirs": right, "base": before}.get(strategy.name, left)
        else:
            value = right if left == before else left
        if value is not None:
            merged[key] = value
    return merged, True
