"""Commits that theta makes itself: the branch moves, then index and files follow."""

from __future__ import annotations

from collections.abc import Iterable

from theta.errors import CorruptError, RefusedError
from theta.porcelain.drive import running
from theta.porcelain.setup import installing
from theta.porcelain.workspace.session import Session


def refuse_unclean(session: Session, paths: Iterable[str] = ()) -> None:
    """Raise :class:`RefusedError` if a tracked file (of ``paths``, or any) has changes.

    They would be lost, since files are brought to a new commit.
    """
    if session.repo.is_bare:
        return
    named = ["--", *(f":(top,literal){path}" for path in paths)] if paths else []
    words = ("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", *named)
    found = session.repo.git(extra={}).run(*words).text.splitlines()
    if found:
        raise RefusedError(
            f"{found[0][3:]} has changes that are not committed",
            hint="commit or stash them; then run the command again",
        )


def settle(session: Session) -> None:
    """Set up this clone, and bring index and files to the new HEAD, where nothing was changed before."""
    if session.repo.is_bare:
        return
    installing.ensure(session.repo)
    done = running.drive(session.again(), "reset", "--hard", aloud=False)
    if done.code:
        raise CorruptError("the files could not be brought to the new commit", hint="theta reset --hard")
