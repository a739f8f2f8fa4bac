"""Three versions of a checkpoint become one, tensor by tensor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from theta.codecs import dense
from theta.codecs.base import Tensor
from theta.merging import containers, strategies
from theta.merging.states import Conflict, Settled, three_way
from theta.merging.strategies import Policy, Strategy
from theta.store import layering, layers
from theta.store.manifest import Line, Manifest
from theta.store.objects import Objects
from theta.store.packs import PackWriter
from theta.store.parallel import ordered
from theta.store.restore import Restorer, checked_chunk
from theta.store.snapshot import sorted_lines


@dataclass
class Outcome:
    """The merged checkpoint, or the conflicts that are left."""

    manifest: Manifest | None = None
    conflicts: list[Conflict] = field(default_factory=list)
    decided: dict[str, str] = field(default_factory=dict)


def merge(
    objects: Objects,
    pack: PackWriter,
    base: Manifest | None,
    ours: Manifest,
    theirs: Manifest,
    policy: Policy,
) -> Outcome:
    """Merge; only tensors that both sides changed are read.

    Args:
        objects: the repository's objects.
        pack: where merged tensors go.
        base: the common ancestor's version, if there is one.
        ours: our version.
        theirs: their version.
        policy: decides conflicts, or leaves them.
    """
    outcome = Outcome()
    lines: list[Line] = []
    for state in three_way(base, ours, theirs):
        line = state.line if isinstance(state, Settled) else _settle(objects, pack, state, policy, outcome)
        if line is not None:
            lines.append(line)
    if not outcome.conflicts:
        lines = sorted_lines(lines)
        skeleton = containers.merge(objects, pack, (base, ours, theirs), lines, policy)
        if skeleton is None:
            outcome.conflicts.append(containers.conflict())
        else:
            outcome.manifest = Manifest(ours.format, ours.store, skeleton, tuple(lines))
    return outcome


def _settle(
    objects: Objects, pack: PackWriter, conflict: Conflict, policy: Policy, outcome: Outcome
) -> Line | None:
    strategy = policy(conflict)
    if strategy is None or not strategy.applies(conflict):
        outcome.conflicts.append(conflict)
        return None
    outcome.decided[conflict.name] = str(strategy)
    if strategy.name in strategies.SIDES:
        side: Line | None = getattr(conflict, strategy.name)
        return side
    return _averaged(objects, pack, conflict, strategy)


def _averaged(objects: Objects, pack: PackWriter, conflict: Conflict, strategy: Strategy) -> Line:
    ours, theirs = conflict.ours, conflict.theirs
    assert ours is not None
    assert theirs is not None
    restorer = Restorer(objects)
    left, right = restorer.record(ours), restorer.record(theirs)
    if not left.chunks:
        return ours
    views = layers.top(objects, left), layers.top(objects, right)

    def work(number: int) -> bytes:
        one = checked_chunk(views[0], left, number, ours.name)
        other = checked_chunk(views[1], right, number, theirs.name)
        return strategies.average(one, other, ours.dtype, strategy.alpha)

    numbers = range(len(left.chunks))
    if ours.nbytes > layering.LARGEST:
        coded = ordered(lambda number: _coded(work(number), ours.dtype), numbers)
        return layering.write_dense(pack, ours.name, ours.dtype, ours.shape, coded)
    pieces = list(ordered(work, numbers))
    parts = [(len(raw), hashlib.sha256(raw).digest()) for raw in pieces]
    new = Tensor.from_bytes(b"".join(pieces), ours.dtype, ours.shape)
    return layering.plan(objects, ours.name, new, parts, [ours, theirs]).write(pack)


def _coded(raw: bytes, dtype: str) -> layering.Coded:
    return len(raw), hashlib.sha256(raw).digest(), dense.encode(raw, dtype)
