"""What theta does in git's hooks.  Each function answers the lines to show; raising refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from theta import _notes
from theta.errors import BusyError, ThetaError
from theta.git import processes
from theta.git.index import Entry, read_entries
from theta.git.repository import STORES
from theta.porcelain.merge import recording
from theta.porcelain.setup import sparse_patterns
from theta.porcelain.stage import staging
from theta.porcelain.workspace import agreement, coverage, in_progress, index_closure, mend, worktree
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class HookRefusedError(ThetaError):
    """A hook stops the git command that it belongs to."""


def pre_commit(session: Session, index: Path, *, alone: bool = True) -> list[str]:
    """Rebuild ``.theta/`` in the index that is being committed; refuse raw checkpoints.

    ``alone``: theta does not drive the git of this hook, and tells nothing itself.
    """
    raw = staging.new_raw(session, index_closure.sync(session, index), index)
    staging.refuse_pointers(session, raw)
    for path in raw:
        problem = f"{path} is staged as raw bytes, not as a checkpoint"
        raise HookRefusedError(problem, hint=f"theta add {path}")
    if session.index_of(index).conflicts:
        raise HookRefusedError("a checkpoint is still in conflict", hint="theta resolve")
    return _hints(session, index) if alone else []


def _hints(session: Session, index: Path) -> list[str]:
    """What the commit leaves out, or takes as plain bytes, and whoever commits may not have meant."""
    lines = []
    if left := coverage.newcomers(session, session.repo.git(), [":(top)"]):
        lines.append(coverage.left_out_line(left, "in this commit"))
    if new := coverage.uncovered(session, _new_files(session, index)):
        lines.append(coverage.uncovered_line(session, new, session.repo.worktree))
    return lines


def _new_files(session: Session, index: Path) -> list[str]:
    base = session.repo.head() or _EMPTY_TREE
    command = ["diff-index", "--cached", "--no-renames", "--diff-filter=A", "--name-only", "-z", base]
    return session.repo.git(index=index).changes(*command, "--", ".", f":(exclude,top){STORES}")


def prepare_commit_msg(session: Session, index: Path, args: Sequence[str]) -> list[str]:
    """Tell in the message what was done to checkpoints in conflict, wherever the message comes from."""
    if args and args[1:2] != ["commit"]:  # which is the message of another commit
        recording.tell_in(session, session.repo.worktree / args[0], index)
    return []


def post_commit(session: Session, progress: Progress | None = None) -> list[str]:
    """Mend the new commit if it needs it, and the real index after ``git commit PATH``."""
    return _settle(session, progress)


def pre_merge_commit(session: Session, index: Path) -> list[str]:
    """Stop a merge whose result is not in agreement: this hook cannot change its tree."""
    before = _ids(read_entries(index))
    index_closure.sync(session, index)
    if before != _ids(read_entries(index)):
        raise HookRefusedError(
            "the merge left .theta/ behind; it is mended now", hint="conclude it with 'git commit'"
        )
    return []


def _ids(entries: list[Entry]) -> dict[tuple[str, int], str]:
    return {(entry.path, entry.stage): entry.oid for entry in entries}


def post_merge(session: Session, progress: Progress | None = None) -> list[str]:
    """After a merge or a fast-forward: commit, index and files in agreement."""
    return _settle(session, progress)


def post_checkout(session: Session, progress: Progress | None = None) -> list[str]:
    """After a checkout: index and files in agreement; of a rebase that goes on, only the index."""
    return _settle(session, progress, files=not in_progress.goes_on(session.repo))


def post_rewrite(
    session: Session, rewritten: Sequence[tuple[str, str]], progress: Progress | None = None
) -> list[str]:
    """After a rebase or an amend: mend the new commits (old, new)."""
    return agreement.mend_noted(session, {new for _, new in rewritten}) + _settle(session, progress)


def post_index_change(session: Session, progress: Progress | None = None) -> list[str]:
    """After the filter ran and the index was written: ``.theta/`` in the index follows."""
    flag = session.repo.private / "resync"
    if (session.repo.gitdir / "index.lock").exists():
        return []
    with contextlib.suppress(BusyError):
        index_closure.sync(session)
        sparse_patterns.clear_stores(session.repo)
        if in_progress.goes_on(session.repo):
            return []  # with the stat data that git has in memory
        worktree.complete(session, progress=progress)
        # git may hold an older index in memory and write that: ask again until its command is over.
        if not processes.is_alive(_notes.read(flag) or ""):
            _notes.drop(flag)
    return []


def _settle(session: Session, progress: Progress | None, *, files: bool = True) -> list[str]:
    with contextlib.suppress(BusyError):
        return agreement.settle(session, progress, files=files)
    return []


def pre_push(session: Session, updates: Sequence[tuple[str, str]]) -> list[str]:
    """Refuse to push commits (local id, remote id) whose manifests name what ``.theta/`` lacks."""
    for local, remote in updates:
        if set(local) == {"0"}:
            continue
        hidden = [f"^{remote}"] if session.repo.has(remote) else ["--not", "--remotes"]
        for oid in session.repo.git().run("rev-list", local, *hidden).text.split():
            if not mend.agrees(session, session.repo.tree_of(oid)):
                raise HookRefusedError(
                    f"commit {oid[:12]} lacks objects of its checkpoints in .theta/", hint="theta fsck --mend"
                )
    return []


SIMPLE: Final[dict[str, Callable[[Session, Progress | None], list[str]]]] = {
    "post-commit": post_commit,
    "post-merge": post_merge,
    "post-checkout": post_checkout,
    "post-applypatch": post_checkout,
    "post-index-change": post_index_change,
}
