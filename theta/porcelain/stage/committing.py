"""Around a commit that git makes: what is staged for it, who makes it, what it holds."""

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
    """Stage the checkpoints that the commit takes, and bring ``.theta/`` into agreement.

    ``everything`` takes new files too where a tracked pattern matches them: git's ``-a`` would leave
    them behind, and training then overwrites the only copy.
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
    """Raise :class:`IdentityError` before an editor opens for a commit that git will refuse."""
    if session.repo.git().run("var", "GIT_COMMITTER_IDENT", check=False).code:
        raise IdentityError(
            "git does not know who you are",
            hint='git config --global user.name "Your Name"; git config --global user.email you@example.com',
        )


def settled(session: Session) -> tuple[str, ...]:
    """Bring all into agreement after git made a commit; returns warnings."""
    return tuple(agreement.settle(session.again()))


def new_commit(session: Session, before: str | None) -> Summary | None:
    """What the commit holds that HEAD moved to; None when HEAD is still at ``before``."""
    fresh = session.again()
    head = fresh.repo.head()
    return None if head is None or head == before else summarize(fresh, head)


def finish(session: Session, before: str | None) -> Summary | None:
    """Settle after git made a commit; returns what it holds, or None when HEAD did not move."""
    settled(session)
    return new_commit(session, before)
