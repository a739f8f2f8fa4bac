"""The steps before and after ``git commit``: stage checkpoints, check the identity, summarize."""

from __future__ import annotations

from theta.errors import IdentityError
from theta.porcelain.look.commit_summary import Summary, summarize
from theta.porcelain.merge import recording
from theta.porcelain.stage import adding, staging
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace import agreement, coverage, index_closure
from theta.porcelain.workspace.session import Session
from theta.progress import Progress


def prepare(
    session: Session, paths: list[str], *, everything: bool, progress: Progress | None = None
) -> list[Added]:
    """Stage the checkpoints at ``paths`` or all changed ones, and update ``.theta/`` in the index.

    ``everything`` also stages new files that a tracked pattern matches: ``git commit -a`` would skip
    them, and the next training run would overwrite the only copy.
    """
    agreement.refresh(session, progress)
    added: list[Added] = []
    if everything or paths:
        git = session.repo.git().in_directory(session.cwd)
        selection = adding.select(session, git, paths, update=True, force=False)
        if everything:
            selection = selection.including(coverage.newcomers(session, git, [":(top)"]))
        added = adding.add(session, selection, progress)
    raw = staging.new_raw(session, index_closure.sync(session))
    staging.refuse_pointers(session, raw)
    recording.tell(session)
    return added


def check_identity(session: Session) -> None:
    """Raise :class:`IdentityError` if git has no identity, before an editor opens."""
    if session.repo.git().run("var", "GIT_COMMITTER_IDENT", check=False).code:
        raise IdentityError(
            "git does not know who you are",
            hint='git config --global user.name "Your Name"; git config --global user.email you@example.com',
        )


def settled(session: Session) -> tuple[str, ...]:
    """Bring index, ``.theta/`` and worktree into agreement after git made a commit; return warnings."""
    return tuple(agreement.settle(session.again()))


def new_commit(session: Session, before: str | None) -> Summary | None:
    """Return the summary of HEAD; None when HEAD is still at ``before``."""
    fresh = session.again()
    head = fresh.repo.head()
    return None if head is None or head == before else summarize(fresh, head)


def finish(session: Session, before: str | None) -> Summary | None:
    """Settle after git made a commit and return its summary; None when HEAD did not move."""
    settled(session)
    return new_commit(session, before)
