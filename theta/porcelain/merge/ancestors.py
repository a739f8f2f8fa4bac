"""The common ancestor of a checkpoint where histories cross and there are several best ones.

Git merges the ancestors first and takes that for the base, conflicts and all (merge-ort's recursion).
Here the same is done tensor by tensor; where ancestors are in conflict, the one that is neither side
stands for the base, so that the sides are in conflict too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from theta.git.commit_graph import merge_bases
from theta.merging.states import same
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest

Candidates = tuple[Line | None, ...]
"""The versions of a tensor that an ancestor may have: one, or those that are in conflict."""


def crossed(
    session: Session, commits: Sequence[str], ours: Manifest | None, theirs: Manifest | None
) -> Manifest | None:
    """The base of ``ours`` and ``theirs``, whose best common ancestors are ``commits``."""
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
    """Name -> what the merge of ``commits`` has."""
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
