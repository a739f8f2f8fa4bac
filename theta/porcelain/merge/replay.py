"""Repeating a merge from its parents and trailers, and comparing the trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from theta.errors import NotFoundError, UsageError
from theta.git import commit_graph
from theta.git.object_values import Commit, Tree
from theta.merging.documents import token_ids
from theta.merging.documents.model_files import CONFIG
from theta.porcelain.merge import in_memory, octopus, trailers
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.merge.trailers import Round
from theta.porcelain.workspace.session import Session
from theta.progress import Progress


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    Attributes:
        commit: the commit that was replayed.
        tree: id of the tree that the replay wrote.
        by_hand: paths that the user had settled by hand; they were copied from the commit.
        differing: paths that differ from the commit.
        same: both trees are the same.
    """

    commit: str
    tree: str
    by_hand: Sequence[str] = ()
    differing: Sequence[str] = ()
    same: bool = False


def replay(session: Session, oid: str, progress: Progress | None = None) -> Replayed | None:
    """Repeat the merge of commit ``oid`` by its trailers; None when it merges nothing.

    Paths that the replay leaves in conflict were settled by hand, and are copied from the commit.  Raises
    :class:`UsageError` if the trailers tell of one of them, but not so that it can be settled.
    """
    commit = session.repo.commit(oid)
    rounds = trailers.rounds(session, oid)
    if not trailers.are_read(session, oid):
        raise _malformed(oid, "git does not read each of them as a trailer")
    heads = _heads(session, commit, rounds)
    if len(heads) < 2:
        return None
    joined = _joined(session, heads, rounds, progress)
    committed = session.repo.tree_of(oid)
    by_hand = sorted({*joined.open_files, *joined.merged.conflicts, *_own_texts(session, joined, committed)})
    _require_untold(oid, joined, rounds)
    tree = in_memory.result_tree(session, _with(session, joined, committed, by_hand), joined.merged)
    if tree == commit.tree:
        return Replayed(oid, tree, by_hand, same=True)
    again = session.repo.whole_tree(tree)
    return Replayed(oid, tree, by_hand, differing(session, again, committed))


def _own_texts(session: Session, joined: Joined, committed: Tree) -> Iterator[str]:
    """Drop, and yield, the files in which the user wrote something else.

    They tell a dtype, or name tokens by their ids.
    """
    for path, data in list(joined.merged.texts.items()):
        entry = committed.get(path)
        name = path.rpartition("/")[2]
        is_named = name == CONFIG or (name in token_ids.NAMING and joined.merged.tokens)
        if is_named and entry is not None and entry.id != session.repo.format.blob_id(data):
            del joined.merged.texts[path]
            yield path


def _require_untold(oid: str, joined: Joined, rounds: Sequence[Round]) -> None:
    """Raise :class:`UsageError` if a path that is in conflict may be one that a trailer tells of."""
    for path, conflicts in joined.merged.conflicts.items():
        if any(one.is_about(path) for one in rounds):
            raise _malformed(oid, f"it does not settle {path}#{conflicts[0].name}")
    unknown = sorted({path for one in rounds for path in one.paths} - joined.merged.seen)
    if unknown and (joined.merged.conflicts or joined.open_files):
        raise _malformed(oid, f"it names {unknown[0]}, which is not merged")


def _malformed(oid: str, reason: str) -> UsageError:
    return UsageError(f"{oid[:12]} has a malformed {trailers.TRAILER} trailer: {reason}")


def _heads(session: Session, commit: Commit, rounds: Sequence[Round]) -> list[str]:
    """Return the commits that were merged: the parents, or the parent and those named in the trailers."""
    parents = list(commit.parents)
    applied = next((one.applied for one in rounds if one.applied), ())
    if len(parents) != 1:  # a base without its history was merged: git compared files with the old base
        return in_memory.on_one_base(session, applied[0], parents) if len(applied) == 2 else parents
    squashed = next((one.squashed for one in rounds if one.squashed), ())
    for oid in (*applied, *squashed):
        if not session.repo.has(oid):
            raise NotFoundError(f"commit {oid[:12]}, which {commit.id[:12]} was made from, is not here")
    if len(applied) == 2:
        return in_memory.on_one_base(session, applied[0], [parents[0], applied[1]])
    return [*parents, *squashed]


def _joined(
    session: Session, heads: Sequence[str], rounds: Sequence[Round], progress: Progress | None
) -> Joined:
    """Merge ``heads`` by ``rounds``; each checkpoint is compared with the base of its round."""
    how = replace(trailers.how_of(session, rounds), progress=progress)
    bases = list(dict.fromkeys(one.base for one in rounds)) or [""]
    joined, *others = (octopus.join(session, heads, how, base or None) for base in bases)
    for base, other in zip(bases[1:], others, strict=True):
        _take(joined, other, [one for one in rounds if one.base == base], rounds)
    return joined


def _take(joined: Joined, other: Joined, own: Sequence[Round], rounds: Sequence[Round]) -> None:
    """Replace the checkpoints of ``joined`` that the rounds ``own`` settled by those of ``other``."""
    for path in joined.merged.seen | other.merged.seen:
        if next((one for one in rounds if one.is_about(path)), None) in own:
            joined.merged.replace(path, other.merged)


def _with(session: Session, joined: Joined, tree: Tree, paths: list[str]) -> Tree:
    """Return the merged tree with ``paths`` as in ``tree``."""
    found = {path: tree.get(path) for path in paths}
    changes = {path: (entry.id, entry.mode) if entry is not None else None for path, entry in found.items()}
    return session.repo.read_tree(commit_graph.edit_tree(session.repo, joined.tree, changes))


def differing(session: Session, one: Tree, other: Tree) -> list[str]:
    """Return the paths of the files that differ between two trees."""
    sides = [{path: entry.id for path, entry in session.repo.walk_blobs(tree)} for tree in (one, other)]
    return sorted(
        path for path in sides[0].keys() | sides[1].keys() if sides[0].get(path) != sides[1].get(path)
    )
