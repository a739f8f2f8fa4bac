"""Bringing commit, index and worktree into agreement, after git or theta changed one of them."""

from __future__ import annotations

from theta import _fs
from theta.errors import MissingObjectsError
from theta.porcelain import install, mend, staging, worktree
from theta.porcelain.session import Session
from theta.porcelain.worktree import State
from theta.progress import Progress


def settle(session: Session, progress: Progress | None = None, *, files: bool = True) -> list[str]:
    """Mend HEAD, sync the index, fill in checkpoint files; answers warnings.

    In the middle of a rebase no commit is mended: that is done when it is over.  Without ``files``
    manifests in place of files stay: a git that goes on would take a filled file for a change.
    """
    notes = [] if session.repo.in_progress() else mend_noted(session, None)
    staging.sync(session)
    install.clear_stores(session.repo)
    missing = worktree.complete(session, progress=progress) if files else []
    notes += [f"{path}: objects are missing; 'theta restore {path}' completes it" for path in missing]
    if files:
        _fs.remove(session.repo.private / "resync")
    return notes


def mend_noted(session: Session, commits: set[str] | None) -> list[str]:
    """Mend ``commits`` (none: HEAD) and say so; answers the lines to show."""
    try:
        done = mend.mend_head(session) if commits is None else mend.mend_range(session, commits)
    except MissingObjectsError as error:
        return [f"HEAD cannot be mended: {error}"]
    if done is None:
        return []
    return [f"brought .theta/ of {done.count} commit(s) into agreement; HEAD is now {done.new[:12]}"]


def refresh(session: Session, progress: Progress | None = None) -> dict[str, worktree.Found]:
    """Examine every staged checkpoint and give unchanged ones fresh stat data in the index."""
    staged = session.staged()
    found = {path: worktree.examine(session, path, entry.oid, progress) for path, entry in staged.items()}
    same = {path: staged[path].oid for path, item in found.items() if item.state is State.SAME}
    worktree.refresh_stat(session, same)
    session.cache.save()
    return found
