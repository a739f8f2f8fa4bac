"""The base of a merge when histories criss-cross and there are several merge bases.

Git's merge-ort merges the merge bases first and uses the result, with its conflicts, as the base.  This
module does the same tensor by tensor.  If the merge bases conflict in a tensor, the base is a version
that equals neither side, so that the sides conflict too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from theta.git.commit_graph import merge_bases
from theta.merging.states import same
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest

Candidates = tuple[Line | None, ...]
"""The version of a tensor in the base, or all versions in conflict; None for an absent tensor."""


def crossed(
    session: Session, commits: Sequence[str], ours: Manifest | None, theirs: Manifest | None
) -> Manifest | None:
    """Return the base of ``ours`` and ``theirs``, whose merge bases are ``commits``; None if none has it."""
    anchor = ours or theirs
    store = anchor.store if anchor else ""
    sides = (session.at(commit).by_store.get(store) for commit in commits)
    found = [manifest for manifest in sides if manifest is not None]
    if len(found) < 2:
        return found[0] if found else None
    lines = (
        _base(
            candidates, ours.by_name.get(name) if ours else None, theirs.by_name.get(name) if theirs else None
        )
        for name, candidates in sorted(_virtual(session, commits, store).items())
    )
    skeletons = [manifest.skeleton for manifest in found]
    taken = {side.skeleton for side in (ours, theirs) if side}
    skeleton = next((oid for oid in skeletons if oid not in taken), skeletons[0])
    return replace(found[0], skeleton=skeleton, lines=tuple(line for line in lines if line), groups=())


def _base(candidates: Candidates, ours: Line | None, theirs: Line | None) -> Line | None:
    if len(candidates) == 1:
        return candidates[0]
    return next((line for line in candidates if not (same(line, ours) or same(line, theirs))), None)


def _virtual(session: Session, commits: Sequence[str], store: str) -> dict[str, Candidates]:
    """Merge ``commits`` and return name -> candidates of each tensor of ``store``."""
    merged = _alone(session, commits[0], store) if commits else {}
    for other in commits[1:]:
        before = _virtual(session, merge_bases(session.repo, commits[0], other), store)
        merged = _joined(before, merged, _alone(session, other, store))
    return merged


def _alone(session: Session, commit: str, store: str) -> dict[str, Candidates]:
    manifest = session.at(commit).by_store.get(store)
    return {line.name: (line,) for line in manifest.lines} if manifest else {}


def _joined(
    before: Mapping[str, Candidates], ours: Mapping[str, Candidates], theirs: Mapping[str, Candidates]
) -> dict[str, Candidates]:
    found: dict[str, Candidates] = {}
    for name in ours.keys() | theirs.keys():
        base, left, right = (side.get(name, (None,)) for side in (before, ours, theirs))
        if _equal(left, right) or _equal(right, base):
            found[name] = left
        else:
            found[name] = right if _equal(left, base) else (*left, *right)
    return found


def _equal(one: Candidates, other: Candidates) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
