"""What several commands share: opening a session, driving git, staging."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.errors import ThetaError

if TYPE_CHECKING:
    from theta.porcelain.stage.staging import Added
    from theta.porcelain.workspace.session import Session


NO_NOTICE: Final = ("-c", "core.sparseCheckout=false")
"""For a git that only tells of the worktree: it says nothing of the share of files that is checked out."""


def open_session(*, worktree: bool = True) -> Session:
    """The session of the repository here, set up where it has checkpoints."""
    from theta.porcelain.setup import installing
    from theta.porcelain.workspace.session import Session

    session = Session.here(".")
    if worktree:
        _ = session.repo.worktree
        session.journal.heal()
        if uses_theta(session):
            installing.ensure(session.repo)
            console.hints(installing.ensure_durable(session.repo))
    return session


def uses_theta(session: Session) -> bool:
    """Whether this repository has anything to do with theta."""
    from theta.porcelain.setup import installing

    return installing.is_used(session.repo)


def session_or_none() -> Session | None:
    """As :func:`open_session`, but none where there is no usable repository."""
    try:
        return open_session()
    except ThetaError:
        return None


def drive(session: Session, *args: str, refresh: bool = True, hooks: bool = False) -> int:
    """Run ``git ARGS`` on the terminal with theta's work around it, and tell theta's part."""
    from theta.porcelain.drive import running

    done = running.drive(session, *args, refresh=refresh, hooks=hooks, shown=console.progress)
    if done.full:
        say_full_disk()
    _warn(done.notes)
    return done.code


def whole(session: Session, name: str, args: Sequence[str]) -> int:
    """Run ``git NAME ARGS`` with theta's filter and hooks at work, as git alone would."""
    with session.journal.driving():
        git = session.repo.git(extra={}).in_directory(Path.cwd())
        code = ended(session, git.show(name, *args))
    after_git(session)
    return code


def ended(session: Session, code: int) -> int:
    """Put back what a git that failed had begun to write, and tell what stays; return its exit ``code``."""
    from theta.porcelain.drive import running

    done = running.ended(session, code)
    if done.full:
        say_full_disk()
    _warn(done.notes)
    return code


def say_full_disk() -> None:
    """Say that the disk is full."""
    console.err("error: no space is left on the disk of the repository")
    console.err("hint: free some space and repeat the command")


def after_git(session: Session) -> None:
    """Bring everything into agreement after a git command that theta does not know."""
    from theta.porcelain.drive import running

    if session.repo.is_read_only:
        return
    with session.change():
        _warn(running.settle(session, console.progress))


def fill_submodules(session: Session) -> None:
    """Set up the submodules that have checkpoints, and fill those in."""
    from theta.porcelain.drive import running

    _warn(running.fill_submodules(session, console.progress))


def _warn(notes: Iterable[str]) -> None:
    for line in notes:
        console.warn(line)


def report_added(added: Sequence[Added]) -> None:
    """Warnings and one line a checkpoint that was staged."""
    from theta.store.changes import counted

    for item in added:
        if item.note:
            console.warn(f"{item.path}: {item.note}; tracked as plain bytes")
        if item.warning:
            console.warn(item.warning)
        if item.newcomer:
            console.note(f"{item.path}: new file of a tracked pattern, included")
        if item.new:
            count, size = len(item.new), console.human(item.stat.st_size)
            console.note(
                f"{item.path}: {count} of {counted(len(item.manifest.lines), 'tensor')} new, "
                f"{console.human(item.stored)} stored ({size} in the file)"
            )


def report_left_out(session: Session, paths: Sequence[str], where: str) -> None:
    """One warning about new files of tracked patterns that are not ``where`` they were expected."""
    from theta.porcelain.workspace import coverage

    if paths:
        here = [os.path.relpath(session.repo.worktree / path) for path in paths]
        console.warn(coverage.left_out_line(here, where))


def report_uncovered(session: Session, paths: Sequence[str]) -> None:
    """One warning about new files that look like checkpoints and that no pattern covers."""
    from theta.porcelain.workspace import coverage

    if paths:
        console.warn(coverage.uncovered_line(session, paths, Path.cwd()))
