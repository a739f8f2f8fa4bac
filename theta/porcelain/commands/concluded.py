"""The commit of a merge that is settled."""

from __future__ import annotations

from collections.abc import Callable

from theta.porcelain.commands.merge_request import Ending, MergeResult
from theta.porcelain.commands.settlement import Settlement
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Driven, Said
from theta.porcelain.merge import answers, recording, trailers
from theta.porcelain.stage import committing
from theta.porcelain.workspace.session import Session


def conclude(
    session: Session, commit: Callable[[], Driven], found: Settlement, said: Said | None = None
) -> MergeResult:
    """Let ``commit`` make the commit; a hook that refuses it leaves the merge unfinished."""
    before, said = session.repo.head(), said or Said()
    committing.check_identity(session)
    recording.tell(session)
    trailers.conclude(session)
    done = commit()
    full = running.is_full(session, done.code)
    summary = committing.finish(session, before)
    said = Said((*said.out, *done.said.out), (*said.err, *done.said.err))
    if summary is None:
        return MergeResult(Ending.PREPARED, done.code, before, before, found, said=said, full=full)
    if done.code == 0:
        answers.forget(session)
        recording.forget(session)
    return MergeResult(Ending.MERGED, done.code, before, summary.commit, found, summary, said)
