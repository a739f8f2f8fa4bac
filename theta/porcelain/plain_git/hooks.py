"""Git's hooks.  Each function returns the lines to show, and raises to stop the git command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _notes
from theta.errors import BusyError, ThetaError
from theta.git import in_progress, processes
from theta.git.backends.index_entries import Entry
from theta.git.repository import STORES
from theta.lazy import Module
from theta.porcelain.setup import installing, sparse_patterns
from theta.porcelain.stage import staging
from theta.porcelain.workspace import agreement, closures, coverage, worktree
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

if TYPE_CHECKING:
    from theta.porcelain.merge import recording
    from theta.porcelain.share import outgoing
else:
    outgoing = Module("theta.porcelain.share.outgoing")
    recording = Module("theta.porcelain.merge.recording")


class HookRefusedError(ThetaError):
    """A hook stops the git command that runs it."""


def pre_commit(session: Session, index: Path, *, alone: bool = True, git: str = "") -> list[str]:
    """Rebuild ``.theta/`` in the index that is being committed; refuse raw checkpoints.

    ``alone``: no theta command runs this git, so the hook gives the hints itself.  ``git`` is the id of the
    process of git, where it is known.
    """
    raw = staging.new_raw(session, closures.sync(session, index, to_commit=True), index)
    staging.refuse_pointers(session, raw)
    for path in raw:
        problem = f"{path} is staged as raw bytes, not as a checkpoint"
        raise HookRefusedError(problem, hint=f"theta add {session.word(path)}")
    if session.index_of(index).conflicts:
        raise HookRefusedError("a checkpoint is still in conflict", hint="theta resolve")
    _note_agreement(session, index, git)
    return _hints(session, index) if alone else []


def _note_agreement(session: Session, index: Path, git: str) -> None:
    """Tell the post-commit hook of the same git whether the commit is made of an index that agrees.

    Git writes the tree of the commit from the index as this hook leaves it.  If that is the index of the
    worktree too, which git does not write again, then commit and index agree.
    """
    note = session.repo.private / "agreed"
    is_last = not installing.comes_before_others(session.repo, "pre-commit")
    if git and is_last and index == session.repo.index_path and not session.repo.in_progress():
        _notes.write(note, git + "\n")
    else:
        _notes.drop(note)


def _hints(session: Session, index: Path) -> list[str]:
    """Return hints about new files that the commit leaves out or takes as plain bytes."""
    lines = []
    if left := coverage.newcomers(session, session.repo.git(), [":(top)"]):
        lines.append(coverage.left_out_line(session, left, "in this commit"))
    new = _new_files(session, index)
    if uncovered := coverage.uncovered(session, new):
        lines.append(coverage.uncovered_line(session, uncovered))
    if to_lfs := coverage.to_lfs(session, new):
        lines.append(coverage.to_lfs_line(session, to_lfs))
    return lines


def _new_files(session: Session, index: Path) -> list[str]:
    base = session.repo.head() or session.repo.format.empty_tree
    command = ["diff-index", "--cached", "--no-renames", "--diff-filter=A", "--name-only", "-z", base]
    return session.repo.git(index=index).changes(*command, "--", ".", f":(exclude,top){STORES}")


def prepare_commit_msg(session: Session, index: Path, args: Sequence[str]) -> list[str]:
    """Update the trailers in the message, from which the merge of checkpoints can be repeated."""
    if args and args[1:2] != ["commit"]:  # "commit" is the message of another commit
        recording.tell_in(session, session.repo.worktree / args[0], index)
    return []


def post_commit(session: Session, progress: Progress | None = None) -> list[str]:
    """Mend the new commit if necessary, and the real index after ``git commit PATH``."""
    return _settle(session, progress)


def pre_merge_commit(session: Session, index: Path) -> list[str]:
    """Stop a merge whose ``.theta/`` does not agree, because this hook cannot change the tree."""
    before = _ids(session.repo.read_index(index))
    closures.sync(session, index, to_commit=True)
    if before != _ids(session.repo.read_index(index)):
        raise HookRefusedError(
            "the merge left .theta/ behind; it is mended now", hint="conclude it with 'git commit'"
        )
    return []


def _ids(entries: list[Entry]) -> dict[tuple[str, int], str]:
    return {(entry.path, entry.stage): entry.oid for entry in entries}


def post_merge(session: Session, progress: Progress | None = None) -> list[str]:
    """Bring commit, index and files into agreement after a merge or a fast-forward."""
    return _settle(session, progress)


def post_checkout(session: Session, progress: Progress | None = None) -> list[str]:
    """Bring index and files into agreement after a checkout; only the index while a rebase continues."""
    return _settle(session, progress, files=not in_progress.goes_on(session.repo))


def post_applypatch(session: Session, progress: Progress | None = None) -> list[str]:
    """Bring index and files into agreement after a patch.

    A checkpoint is filled in while git has the index in memory, because its trees come with the commit.  Git
    then writes the stat data of the manifest; behind the last patch it does no more.
    """
    lines = post_checkout(session, progress)
    if in_progress.is_last_patch(session.repo):
        worktree.refresh(session, progress)
    return lines


def post_rewrite(
    session: Session, rewritten: Sequence[tuple[str, str]], progress: Progress | None = None
) -> list[str]:
    """Mend the new commits after a rebase or an amend; ``rewritten`` are pairs (old, new)."""
    return agreement.mend_noted(session, {new for _, new in rewritten}) + _settle(session, progress)


def post_index_change(session: Session, progress: Progress | None = None) -> list[str]:
    """Update ``.theta/`` after the filter ran and git wrote the index."""
    flag = session.repo.private / "resync"
    if (session.repo.gitdir / "index.lock").exists():
        return []
    with contextlib.suppress(BusyError):
        closures.sync(session)
        sparse_patterns.clear_stores(session.repo)
        if in_progress.goes_on(session.repo):
            return []  # git has the stat data of the files in memory
        worktree.complete(session, progress=progress)
        # git may have an older index in memory and write that: keep the flag until its command ends.
        mark = _notes.read(flag) or ""
        ends_now = mark == processes.owner() and processes.only_adds()
        if ends_now or not processes.is_alive(mark, _notes.written(flag)):
            _notes.drop(flag)
    return []


def _settle(session: Session, progress: Progress | None, *, files: bool = True) -> list[str]:
    with contextlib.suppress(BusyError):
        return agreement.settle(session, progress, files=files)
    return []


def pre_push(session: Session, updates: Sequence[tuple[str, str]], remote: str) -> list[str]:
    """Refuse to push commits (local id, remote id) whose manifests name objects missing in ``.theta/``.

    A lazy clone does not push to ``remote`` (a name or a URL) what neither of them has.
    """
    updates = [(local, there) for local, there in updates if set(local) != {"0"}]
    _refuse_broken(session, updates)
    outgoing.refuse_missing(session, remote, [local for local, _ in updates])
    return []


def _refuse_broken(session: Session, updates: Sequence[tuple[str, str]]) -> None:
    for local, remote in updates:
        hidden = [f"^{remote}"] if session.repo.has(remote) else ["--not", "--remotes"]
        for oid in session.repo.git().run("rev-list", local, *hidden).text.split():
            if not closures.holds(session, session.repo.tree_of(oid)):
                raise HookRefusedError(
                    f"commit {oid[:12]} lacks objects of its checkpoints in .theta/", hint="theta fsck --mend"
                )


SIMPLE: Final[dict[str, Callable[[Session, Progress | None], list[str]]]] = {
    "post-commit": post_commit,
    "post-merge": post_merge,
    "post-checkout": post_checkout,
    "post-applypatch": post_applypatch,
    "post-index-change": post_index_change,
}
