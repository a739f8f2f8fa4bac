"""Bringing commit, index and worktree into agreement, after git or theta changed one of them."""

from __future__ import annotations

from theta import _notes
from theta.errors import ManifestError, MissingObjectsError
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.workspace import index_closure, mend, worktree
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.worktree import State
from theta.progress import Progress
from theta.store.changes import counted


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
    index_closure.sync(session)
    sparse_patterns.clear_stores(session.repo)
    missing = worktree.complete(session, progress, exchange) if files else []
    notes += [f"{path}: objects are missing; 'theta restore {path}' completes it" for path in missing]
    if files:
        _notes.drop(session.repo.private / "resync")
    return notes


def fill(session: Session, progress: Progress | None = None, files: Exchange | None = None) -> None:
    """Update ``.theta/`` and the files of the worktree after git wrote manifests."""
    index_closure.sync(session)
    worktree.complete(session, progress=progress, files=files)


def mend_noted(session: Session, commits: set[str] | None, *, on_purpose: bool = False) -> list[str]:
    """Mend ``commits`` (None for HEAD) and return lines that report it."""
    try:
        if commits is None:
            done = mend.mend_head(session, on_purpose=on_purpose)
        else:
            done = mend.mend_range(session, commits, on_purpose=on_purpose)
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
    told = session.repo.private / "told-kept"
    if _notes.read(told) == oid:
        return ""
    _notes.write(told, oid)
    return (
        f".theta/ of commit {oid[:12]} does not agree with its manifests; others may have that commit, "
        "so it stays as it is ('theta fsck --mend' rewrites it)"
    )


def refresh(session: Session, progress: Progress | None = None) -> dict[str, worktree.Found]:
    """Examine every staged checkpoint and give unchanged ones fresh stat data in the index."""
    staged = session.index
    found = {path: worktree.examine(session, path, entry.oid, progress) for path, entry in staged.items()}
    same = {path: staged[path].oid for path, item in found.items() if item.state is State.SAME}
    worktree.refresh_stat(session, same)
    session.cache.save()
    return found
