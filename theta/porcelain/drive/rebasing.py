"""Repairing an interrupted rebase before ``git rebase --continue`` and ``--abort``.

Git moves a step from the list of steps to do to that of steps done *before* it does it.  If git is killed
or the disk is full during a step, ``--continue`` silently skips it: a commit is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import ThetaError
from theta.git import commit_graph, state_files
from theta.git.object_format import is_id
from theta.git.object_values import Commit
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.porcelain.workspace import agreement, rollback, worktree
from theta.porcelain.workspace.session import Session

_PICKS: Final = {"pick", "p", "reword", "r", "edit", "e", "squash", "s", "fixup", "f"}
_STOPPED: Final = (
    state_files.REBASE_HEAD,
    state_files.MERGE_HEAD,
    state_files.REBASE_STOPPED,
    state_files.REBASE_AMEND,
)
"""State files of a rebase that git itself stopped at a step."""


def repair(session: Session) -> list[str] | None:
    """Prepare an interrupted rebase for ``--continue``.

    An unfinished step is put back on the list.  A rebase that was killed before its first step is aborted,
    and one killed after its last step is concluded: then lines that report it are returned.
    Returns None when git has to continue.
    """
    gitdir = session.repo.gitdir
    if not (gitdir / state_files.REBASE_MERGE).is_dir():
        return None
    if not (gitdir / state_files.REBASE_DONE).exists():
        _give_up(session, _text(session, state_files.REBASE_ONTO).strip())
        return ["the rebase was not begun; nothing is changed"]
    _redo(session)
    return _conclude(session)


def clear(session: Session) -> None:
    """Take an unfinished step out of index and worktree, where it may be in the way of ``--abort``."""
    if (commit := _unfinished(session)) is not None:
        _to_head(session, commit.id, _applied(session.repo, commit))


def _give_up(session: Session, onto: str) -> None:
    """Abort a rebase whose git was killed before the first step, perhaps while it checked out ``onto``."""
    if not session.repo.is_detached:
        _require(_to_head(session, onto), f"checked out {onto[:12]}")
    session.repo.git().run("rebase", "--abort" if session.repo.is_detached else "--quit")


def _require(own: list[str], deed: str) -> None:
    """Raise if ``own``, files that the user changed since the kill, is not empty."""
    if own:
        raise ThetaError(
            f"the rebase was killed while it {deed}, and {own[0]} was changed since",
            hint="take your changes out of the worktree, then repeat 'theta rebase --continue'",
        )


def _redo(session: Session) -> None:
    """Put the last step back on the list if it was not finished."""
    if (commit := _unfinished(session)) is None:
        return
    _require(_to_head(session, commit.id, _applied(session.repo, commit)), f"applied {commit.id[:12]}")
    done = split_lines(_text(session, state_files.REBASE_DONE))
    _write(session, state_files.REBASE_TODO, f"{done[-1]}\n{_text(session, state_files.REBASE_TODO)}")
    _write(session, state_files.REBASE_DONE, "".join(f"{row}\n" for row in done[:-1]))


def _unfinished(session: Session) -> Commit | None:
    """Return the commit of the last step; None if git finished it, or stopped at it."""
    done = split_lines(_text(session, state_files.REBASE_DONE))
    step = done[-1].split() if done else []
    if len(step) < 2 or step[0] not in _PICKS or _is_stopped(session.repo.gitdir):
        return None
    commit = session.repo.commit_or_none(step[1]) if is_id(step[1]) else None
    return None if commit is None or _is_finished(session, commit) else commit


def _text(session: Session, name: str) -> str:
    return state_files.text(session.repo.gitdir / name)


def _write(session: Session, name: str, text: str) -> None:
    _fs.write_atomic(session.repo.gitdir / name, text.encode("utf-8", "surrogateescape"))


def _is_stopped(gitdir: Path) -> bool:
    """Return whether git stopped at the last step: for a conflict, an edit, or a failed commit."""
    failed = (state_files.CHERRY_PICK_HEAD, state_files.REBASE_MESSAGE)
    return state_files.exists(gitdir, *_STOPPED) or all(state_files.exists(gitdir, name) for name in failed)


def _applied(repo: Repository, commit: Commit) -> str:
    """Return the tree of ``commit`` applied to HEAD; git records it only after writing its files."""
    if len(commit.parents) != 1:
        return ""
    git = repo.git()
    ours = git.run("commit-tree", "HEAD^{tree}", "-p", commit.parents[0], "-m", "HEAD").text.strip()
    done = git.run("merge-tree", "--write-tree", "--no-messages", ours, commit.id, check=False)
    return done.text.partition("\n")[0].strip()


def _to_head(session: Session, toward: str, applied: str = "") -> list[str]:
    """Reset index and files to HEAD if the repository has all their content.

    Otherwise nothing is changed, and the files with other content are returned.
    """
    repo, trees = session.repo, rollback.files(session.repo, [toward])
    git, known = repo.git(), ("HEAD", rollback.merged(repo), applied)
    sides = [trees, *(rollback.files(repo, [name]) for name in known)]
    changed = {*git.lines("diff-index", "--cached", "--name-only", "-z", "HEAD"), *rollback.dirty(repo)}
    own = [
        path
        for path in sorted(changed)
        if not rollback.is_stored(repo, path, trees.get(path))
        and not any(_holds(session, path, side.get(path)) for side in sides)
    ]
    if not own:
        git.run("reset", "-q", "--hard")
        rollback.remove_new(repo, trees)
    return own


def _holds(session: Session, path: str, oid: str | None) -> bool:
    """Return whether the file at ``path`` is the checkpoint of manifest ``oid``."""
    if oid is None or session.manifest_or_none(oid) is None:
        return False
    return worktree.examine(session, path, oid).state is not worktree.State.MODIFIED


def _is_finished(session: Session, commit: Commit) -> bool:
    """Return whether ``commit`` was applied: git has noted it as rewritten, or HEAD is the new commit."""
    oid = commit.id
    for name in state_files.REBASE_REWRITTEN:
        if any(row.startswith(oid) for row in split_lines(_text(session, name))):
            return True
    now = session.repo.head()
    head = session.repo.commit_or_none(now) if now else None
    if head is None:
        return True
    same = head.author == commit.author
    return same or head.id == commit.id or commit_graph.descends(session.repo, head.id, commit.id)


def _conclude(session: Session) -> list[str] | None:
    """End a rebase whose branch was already moved, because git refuses to move it again.

    Returns lines that report it; None when the rebase is not at that point.
    """
    branch, onto = (
        _text(session, name).strip() for name in (state_files.REBASE_BRANCH, state_files.REBASE_ONTO)
    )
    rows = split_lines(_text(session, state_files.REBASE_TODO))
    if not branch.startswith("refs/heads/") or any(row and not row.startswith("#") for row in rows):
        return None
    git, head = session.repo.git(), session.repo.head()
    if head is None or git.run("rev-parse", "--verify", "-q", branch, check=False).text.strip() != head:
        return None
    if head == _text(session, state_files.REBASE_FROM).strip():
        return None
    git.run("symbolic-ref", "-m", "rebase (finish)", "HEAD", branch)
    git.run("rebase", "--quit")
    new = git.run("rev-list", f"{onto}..HEAD").text.split()
    notes = agreement.mend_noted(session, set(new))
    return [f"the rebase of {branch.removeprefix('refs/heads/')} is concluded", *notes]
