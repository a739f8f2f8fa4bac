"""The skeleton of a merge result: that of one side, or of a new file from the format's writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from theta.errors import FormatError, UsageError
from theta.formats import TensorSpec, safetensors, writers
from theta.formats.archives import npz
from theta.formats.plan import Plan
from theta.merging.states import Conflict
from theta.merging.strategies import Policy
from theta.store.format import listings
from theta.store.format import skeleton as skeletons
from theta.store.format.manifest import Line, Manifest
from theta.store.format.skeleton import Extent, Field, Literal, Segment, Skeleton
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

CONTAINER: Final = "(container)"

Container = tuple[str, str]
"""The id of a skeleton, and the format of the file."""


def conflict() -> Conflict:
    """Return the conflict about changes of both sides outside of the tensors."""
    return Conflict(CONTAINER, None, None, None)


def merge(
    objects: Objects,
    pack: PackWriter,
    base: Manifest | None,
    sides: Sequence[Manifest],
    lines: Sequence[Line],
    policy: Policy,
) -> Container | None:
    """Return the container of a result with ``lines``; None when the sides conflict outside of them."""
    chosen = _chosen(base, sides)
    if chosen is not None and _specs(chosen.lines) == _specs(lines):
        return chosen.skeleton, chosen.format
    if len({side.format for side in sides}) == 1 and all(_is_plain(objects, side) for side in sides):
        found = _rewritten(objects, pack, base, sides, lines, policy)
        if found is not None:
            return found, sides[0].format
        if sides[0].format == safetensors.NAME:
            return None
    return _picked(base, sides, lines, policy)


def _chosen(base: Manifest | None, sides: Sequence[Manifest]) -> Manifest | None:
    """Return a side with the changed skeleton, or ours if none changed it; None when they differ."""
    before = base.skeleton if base else None
    changed = [side for side in sides if side.skeleton != before]
    if not changed:
        return sides[0]
    return changed[0] if len({side.skeleton for side in changed}) == 1 else None


def _specs(lines: Sequence[Line]) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(line.name, line.dtype, line.shape) for line in lines}


def _picked(
    base: Manifest | None, sides: Sequence[Manifest], lines: Sequence[Line], policy: Policy
) -> Container | None:
    """Return the container of the side that the policy picks, if it has exactly the tensors ``lines``."""
    strategy = policy(conflict())
    if strategy is None:
        return None
    number = strategy.side(CONTAINER, len(sides))
    side = base if strategy.name == "base" else sides[number or 0]
    if side is None or _specs(side.lines) != _specs(lines):
        return None
    return side.skeleton, side.format


def is_fixed(objects: Objects, versions: Sequence[Manifest], lines: Sequence[Line]) -> bool:
    """Return whether none of ``versions`` has tensors like ``lines``, or is a file that can get them."""
    wanted = _specs(lines)
    return not any(_specs(one.lines) == wanted or _is_plain(objects, one) for one in versions)


def laid_out(objects: Objects, pack: PackWriter, like: Manifest, lines: Sequence[Line]) -> str | None:
    """Return the skeleton of a file like ``like`` with the tensors ``lines``; None when no writer can."""
    if _specs(like.lines) == _specs(lines):
        return like.skeleton
    if not _is_plain(objects, like):
        return None
    metadata = _metadata(objects, like) if like.format == safetensors.NAME else None
    anew = _new_skeleton(like.format, lines, metadata)
    return anew.write(pack) if anew else None


def statistics(pack: PackWriter, store: str, lines: tuple[Line, ...]) -> Manifest:
    """Write a safetensors file of ``lines``."""
    anew = _new_skeleton(safetensors.NAME, lines)
    if anew is None:
        raise UsageError(f"{store}: no safetensors file can have these tensors")
    return listings.write(pack, Manifest(safetensors.NAME, store, anew.write(pack), lines))


# -- a new file ------------------------------------------------------------------------------


def _is_plain(objects: Objects, side: Manifest) -> bool:
    """Return whether the file has only tensors, and metadata if it is a safetensors file.

    Then a new file can replace it.  Files of other formats may have more, such as nested objects and
    key-value pairs, which the writers omit.  These are detected by comparing the skeleton with that of a
    new file with the same tensors.
    """
    if side.format == safetensors.NAME:
        return True
    if side.format not in writers.WRITERS:
        return False
    known = skeletons.read(objects, side.skeleton)
    if side.format == npz.NAME:
        return b"'fortran_order': True" not in known.literal and b"'descr': '>" not in known.literal
    places = {name: offset for name, offset, _ in known.extents()}
    anew = _new_skeleton(side.format, sorted(side.lines, key=lambda line: places.get(line.name, 0)))
    return anew is not None and anew.literal == known.literal and _unranked(anew) == _unranked(known)


def _unranked(skeleton: Skeleton) -> list[Segment]:
    """Return the segments without the order in which fields are computed, which may vary."""
    segments = skeleton.segments
    return [replace(segment, rank=0) if isinstance(segment, Field) else segment for segment in segments]


def _rewritten(
    objects: Objects,
    pack: PackWriter,
    base: Manifest | None,
    sides: Sequence[Manifest],
    lines: Sequence[Line],
    policy: Policy,
) -> str | None:
    metadata: Mapping[str, str] | None = None
    if sides[0].format == safetensors.NAME:
        merged, settled = _merged_metadata(objects, base, sides, policy)
        if not settled:
            return None
        metadata = merged
    for side in (*sides, *([base] if base else [])):
        # A result equal to one side keeps that side's file, so that git sees no change.
        same = side.format == sides[0].format and _specs(side.lines) == _specs(lines)
        if same and _has_metadata(objects, side, metadata):
            return side.skeleton
    anew = _new_skeleton(sides[0].format, lines, metadata)
    return anew.write(pack) if anew else None


def _has_metadata(objects: Objects, side: Manifest, metadata: Mapping[str, str] | None) -> bool:
    """Return whether ``side`` is a safetensors file with this ``metadata``, or another format."""
    if side.format != safetensors.NAME:
        return True
    return (_metadata(objects, side) or {}) == dict(metadata or {})


def _new_skeleton(
    format_name: str, lines: Sequence[Line], metadata: Mapping[str, str] | None = None
) -> Skeleton | None:
    """Return the skeleton of a new file with the tensors ``lines``; None when no writer can."""
    specs = [TensorSpec(line.name, line.dtype, line.shape) for line in lines]
    try:
        return _skeleton(writers.plan(format_name, specs, metadata))
    except FormatError:
        return None


def _skeleton(plan: Plan) -> Skeleton:
    """Return the skeleton of a planned file without values; its derived fields are not verified."""
    parts: list[tuple[int, int, Segment]] = [
        (tensor.offset, tensor.length, Extent(tensor.length, tensor.name)) for tensor in plan.layout.tensors
    ]
    parts += [
        (field.offset, field.width, Field(field.width, field.op, field.order, rank, field.arguments))
        for rank, field in enumerate(plan.layout.derived)
    ]
    parts += [(start, len(data), Literal(len(data))) for start, data in plan.literals]
    parts.sort(key=lambda part: (part[0], part[1] > 0))
    return Skeleton(tuple(segment for _, _, segment in parts), b"".join(data for _, data in plan.literals))


# -- the metadata of safetensors ---------------------------------------------------------------


def _merged_metadata(
    objects: Objects, base: Manifest | None, sides: Sequence[Manifest], policy: Policy
) -> tuple[dict[str, str] | None, bool]:
    """Merge the metadata three-way by key; return it, and whether all keys could be settled."""
    before = _metadata(objects, base) if base and base.format == safetensors.NAME else None
    found = [_metadata(objects, side) for side in sides]
    merged: dict[str, str] = {}
    for key in sorted((before or {}).keys() | set().union(*(data or {} for data in found))):
        values = [(data or {}).get(key) for data in found]
        value, settled = _merged_value((before or {}).get(key), values, policy)
        if not settled:
            return None, False
        if value is not None:
            merged[key] = value
    return merged or (None if found[0] is None else {}), True


def _merged_value(
    before: str | None, values: Sequence[str | None], policy: Policy
) -> tuple[str | None, bool]:
    changed = [value for value in values if value != before]
    if not changed:
        return before, True
    if len(set(changed)) == 1:
        return changed[0], True
    strategy = policy(conflict())
    if strategy is None:
        return None, False
    number = strategy.side(CONTAINER, len(values))
    return before if strategy.name == "base" else values[number or 0], True


def _metadata(objects: Objects, manifest: Manifest) -> dict[str, str] | None:
    return safetensors.read_metadata(skeletons.read(objects, manifest.skeleton).literal)
