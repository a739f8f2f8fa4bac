"""Steps around a use case of a program that changes a repository: setting up, and raising errors."""

from __future__ import annotations

from collections.abc import Sequence

from theta.errors import NoSpaceError, RefusedError
from theta.porcelain.commands.merge_request import Ending, MergeResult
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Said
from theta.porcelain.setup import installing
from theta.porcelain.workspace.session import Session


def ready(session: Session) -> Session:
    """Return ``session`` of a worktree, healed after dead commands and set up, as each command starts."""
    _ = session.repo.worktree
    session.journal.heal()
    if installing.is_used(session.repo):
        installing.ensure(session.repo)
        installing.ensure_durable(session.repo)
        running.fill_owed(session)
    return session


def check(code: int, said: Said, *, full: bool = False) -> None:
    """Raise what a git that ended with ``code`` said."""
    if full:
        raise NoSpaceError("no space is left on the disk of the repository", hint="free some and repeat it")
    if code:
        _refuse([*said.err, *said.out])


def check_merge(result: MergeResult) -> None:
    """Raise :class:`RefusedError` for a merge that was not begun, or that git did not commit."""
    if result.left:
        _refuse([f"an earlier merge is not concluded: {result.left}"], "continue_merge() or abort_merge()")
    if result.staged:
        _refuse([f"these files are staged and in the way: {', '.join(result.staged)}"], "commit them first")
    failed = result.code and result.ending in (Ending.REFUSED, Ending.PREPARED, Ending.MERGED)
    if result.full or failed:
        check(result.code, result.said, full=result.full)


def _refuse(lines: Sequence[str], hint: str = "") -> None:
    words = [line.removeprefix("error: ").removeprefix("fatal: ") for line in lines if line.strip()]
    raise RefusedError("\n".join(words) or "git refused it", hint=hint)
