"""``theta commit``: stage what is asked for, let git make the commit, tell what it holds."""

from __future__ import annotations

from pathlib import Path

from theta.errors import IdentityError
from theta.porcelain.look.commit_summary import Summary, summarize
from theta.porcelain.merge import recording
from theta.porcelain.stage import adding, staging
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace import agreement, coverage, index_closure
from theta.porcelain.workspace.session import Session
from theta.progress import Progress


def prepare(
    session: Session,
    cwd: Path,
    paths: list[str],
    *,
    everything: bool,
    progress: Progress | None,
) -> list[Added]:
    """Stage the checkpoints that the commit takes, and bring ``.theta/`` into agreement.

    ``everything`` takes new files too where a tracked pattern matches them: git's ``-a`` would leave
    them behind, and training then overwrites the only copy.
    """
    agreement.refresh(session, progress)
    added: list[Added] = []
    if everything or paths:
        git = session.repo.git().in_directory(cwd)
        specs = paths or [":(top)"]
        selection = adding.select(session, git, specs, update=True, force=False)
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


def finish(session: Session, before: str | None) -> Summary | None:
    """Settle after git made a commit; answers what it holds, or none where HEAD did not move."""
    fresh = session.again()
    agreement.settle(fresh)
    head = fresh.repo.head()
    if head is None or head == before:
        return None
    return summarize(fresh, head)
