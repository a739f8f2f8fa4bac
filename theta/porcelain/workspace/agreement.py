"""Bringing commit, index and worktree into agreement, after git or theta changed one of them.

Plain git makes commits whose ``.theta/`` does not agree with their manifests when no hook runs:
``rebase --continue`` after a conflict, a merge that paired identical renamed files, disabled hooks.  The
manifest is authoritative.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from theta import _notes
from theta.errors import ManifestError, MissingObjectsError, NewerFormatError
from theta.git import commit_graph
from theta.git.commit_graph import unpublished
from theta.git.object_values import Commit, Tree
from theta.git.repository import STORES
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.workspace import closures, unsettled, worktree
from theta.porcelain.workspace.checkpoints import Checkpoints
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store import closure
from theta.store.changes import counted
from theta.store.format.manifest import Manifest, has_conflict_markers

_KEPT: Final = "told-kept"
"""The note of a wrong commit that others may have, which stays as it is."""


def settle(
    session: Session,
    progress: Progress | None = None,
    *,
    files: bool = True,
    on_purpose: bool = False,
    exchange: Exchange | None = None,
) -> list[str]:
    """Mend HEAD, sync the index, fill in checkpoint files; return warnings.

    During a rebase no commit is mended.  A commit that others may have is mended only ``on_purpose``.
    Without ``files`` manifests stay in place of files: a git that continues would see a filled file
    as changed.  ``exchange`` has the old files open.
    """
    notes = [] if session.repo.in_progress() else mend_noted(session, None, on_purpose=on_purpose)
    closures.sync(session)
    sparse_patterns.clear_stores(session.repo)
    missing = worktree.complete(session, progress, exchange) if files else []
    notes += _put_ours(session, progress) if files else []
    words = ((session.place(path), session.word(path)) for path in missing)
    notes += [f"{path}: objects are missing; 'theta restore {word}' completes it" for path, word in words]
    if files:
        _notes.drop(session.repo.private / "resync")
    return notes


def fill(session: Session, progress: Progress | None = None, files: Exchange | None = None) -> None:
    """Update ``.theta/`` and the files of the worktree after git wrote manifests."""
    closures.sync(session)
    worktree.complete(session, progress=progress, files=files)


def mend_noted(session: Session, commits: set[str] | None, *, on_purpose: bool = False) -> list[str]:
    """Mend ``commits`` (None for HEAD) and return lines that report it."""
    try:
        if commits is None:
            done = mend_head(session, on_purpose=on_purpose)
        else:
            done = mend_range(session, commits, on_purpose=on_purpose)
    except (ManifestError, MissingObjectsError) as error:
        return [f"HEAD cannot be mended: {error}"]
    if done is None:
        return []
    notes = [_kept(session, oid) for oid in done.kept]
    if done.count:
        notes.append(f"rebuilt .theta/ of {counted(done.count, 'commit')}; HEAD is now {done.new[:12]}")
    return [note for note in notes if note]


def _kept(session: Session, oid: str) -> str:
    """Return the warning about a wrong commit that others may have; "" if it was given before."""
    told = session.repo.private / _KEPT
    if _notes.read(told) == oid:
        return ""
    _notes.write(told, oid)
    return (
        f".theta/ of commit {oid[:12]} does not agree with its manifests; others may have that commit, "
        "so it stays as it is ('theta fsck --mend' rewrites it); the next commit has it right"
    )


def before_git(session: Session) -> None:
    """Make ready for a git that moves HEAD or writes files: stat data, texts of conflicts."""
    worktree.refresh(session)
    watch(session)


# -- conflicts that git leaves --------------------------------------------------------------


def watch(session: Session) -> None:
    """Note which files hold git's text of a conflict, before theta runs a git that may leave others."""
    session.torn = frozenset(_texts(session))


def _put_ours(session: Session, progress: Progress | None) -> list[str]:
    """Put ours in place of each text of a conflict that came since :func:`watch`; return lines to show.

    A program can read ours.  A text that was there before stays: the user may have edited it.
    """
    if session.torn is None:
        return []
    lines: list[str] = []
    for path in sorted(_texts(session) - session.torn):
        ours = session.index.stages[path][unsettled.OURS]
        with contextlib.suppress(ManifestError, MissingObjectsError, NewerFormatError):
            worktree.put_back(session, [(path, ours.oid, ours.mode)], progress)
            unsettled.forget_choice(session, path)
            lines.append(
                f"{session.place(path)} is in conflict; its file is ours until 'theta resolve' settles it"
            )
    return lines


def _texts(session: Session) -> set[str]:
    """Return the paths in conflict, with ours, whose file holds git's text of the conflict."""
    found = session.index.conflicts
    places = {path: session.repo.worktree / path for path in found if unsettled.OURS in found[path]}
    texts = ((path, worktree.peek(place)) for path, place in places.items())
    return {path for path, text in texts if text is not None and has_conflict_markers(text)}


# -- commits -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mended:
    """The result of :func:`mend_range`.

    Attributes:
        new: the new tip.
        count: number of rewritten commits.
        kept: wrong commits that were not rewritten because others may have them.
    """

    new: str
    count: int
    kept: tuple[str, ...] = ()


def _all_read(session: Session, found: Checkpoints) -> list[Manifest]:
    """Return the manifests of ``found``; raises :class:`ManifestError` if one cannot be read."""
    read: list[Manifest] = []
    for path, one in found.items():
        try:
            read.append(session.manifest(one.oid))
        except ManifestError as error:
            raise ManifestError(f"{path}: {error}") from error
    return read


def mend_head(session: Session, *, on_purpose: bool = False) -> Mended | None:
    """Rewrite the commit at HEAD if its ``.theta/`` is wrong (never during a rebase)."""
    if session.repo.in_progress() or closures.head_agrees(session):
        return None
    head = session.repo.head()
    return mend_range(session, {head}, on_purpose=on_purpose) if head else None


def mend_range(session: Session, commits: Iterable[str], *, on_purpose: bool = False) -> Mended | None:
    """Rewrite the wrong ones of ``commits`` that are ancestors of HEAD, and all commits after them.

    A commit that others may have is rewritten only ``on_purpose``, and not for stores that no manifest
    names.  Author, committer, message and encoding stay the same, signatures are dropped.  HEAD moves by
    compare-and-swap.
    Returns None when nothing was wrong.
    """
    repo, wanted = session.repo, set(commits)
    head = repo.head()
    if head is None or head not in wanted:
        return None
    ordered = commit_graph.oldest_first(repo, head, wanted)
    session.expect_trees(wanted)
    wrong = {
        oid for oid in (commit.id for commit in ordered) if not closures.agrees(session, repo.tree_of(oid))
    }
    own = unpublished(repo, wanted) if wrong else set[str]()
    wrong -= {oid for oid in wrong - own if closures.holds(session, repo.tree_of(oid))}
    if not wrong:
        return None
    free = wanted if on_purpose else own
    mapping: dict[str, str] = {}
    with session.change() as change:
        for commit in ordered:
            oid = commit.id
            if oid in free and (new := _rewritten(session, commit, mapping, mend=oid in wrong)) != oid:
                mapping[oid] = new
        if head in mapping:
            change.move("HEAD", mapping[head], head, "theta: .theta/ brought into agreement")
    return Mended(mapping.get(head, head), len(mapping), tuple(sorted(wrong - free)))


def _rewritten(session: Session, commit: Commit, mapping: dict[str, str], *, mend: bool) -> str:
    tree = commit.tree
    if mend:
        tree = mended_tree(session, session.repo.whole_tree(tree))
    parents = [*commit.parents]
    if tree == commit.tree and not any(parent in mapping for parent in parents):
        return commit.id
    data = _with(commit.data, tree, [mapping.get(parent, parent) for parent in parents])
    return commit_graph.write_commit(session.repo, data)


def mended_tree(session: Session, tree: Tree) -> str:
    """Write ``tree`` with the closure of its manifests as ``.theta/``; return its id.

    Raises :class:`ManifestError` if a manifest cannot be read, and :class:`MissingObjectsError`.
    """
    manifests = _all_read(session, closures.checkpoints(session, tree))
    wanted = closure.expected(manifests)
    session.repo.promised.expect(wanted.values())
    for directory, oid in wanted.items():
        if not session.repo.obtains(oid):
            raise MissingObjectsError(f"{directory}: its objects are not in this repository")
    with session.objects.writing(keep=True) as pack:
        stores = closure.stores_tree(pack, manifests)
    return commit_graph.with_directory(session.repo, tree, STORES, stores)


def _with(raw: bytes, tree: str, parents: list[str]) -> bytes:
    """Return the raw commit with ``tree`` and ``parents`` replaced and without signature."""
    head, _, body = raw.partition(b"\n\n")
    kept: list[bytes] = []
    dropping = False
    for line in head.split(b"\n"):
        dropping = line.startswith(b"gpgsig") or (dropping and line.startswith(b" "))
        if not dropping and not line.startswith((b"tree ", b"parent ")):
            kept.append(line)
    rows = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents), *kept]
    return b"\n".join(rows) + b"\n\n" + body
