"""Steps that several commands share: opening a session, driving git, staging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import console, terminal
from theta.errors import ThetaError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git import in_progress
    from theta.porcelain.drive import running
    from theta.porcelain.drive.running import Driven
    from theta.porcelain.look import version_changes
    from theta.porcelain.look.version_changes import Summary
    from theta.porcelain.setup import installing
    from theta.porcelain.stage.staging import Added
    from theta.porcelain.workspace import coverage
    from theta.porcelain.workspace.session import Session
else:
    coverage = Module("theta.porcelain.workspace.coverage")
    in_progress = Module("theta.git.in_progress")
    installing = Module("theta.porcelain.setup.installing")
    running = Module("theta.porcelain.drive.running")
    version_changes = Module("theta.porcelain.look.version_changes")

NO_NOTICE: Final = ("-c", "core.sparseCheckout=false")
"""For a git that only tells of the worktree: it says nothing of the share of files that is checked out."""


def open_session(*, worktree: bool = True) -> Session:
    """Open a session of the repository here, after undoing what dead commands left in its files.

    It is set up if it has checkpoints, unless the command needs no ``worktree``.
    """
    from theta.porcelain.workspace.session import Session

    session = Session.here(".")
    console.repository = session.repo
    _ = session.repo.worktree if worktree else None  # a bare repository has none, and says so
    if not session.repo.is_bare:
        session.journal.heal()
        if worktree and uses_theta(session):
            installing.ensure(session.repo)
            console.hints(installing.ensure_durable(session.repo))
        if session.journal.owes_files:
            _warn(running.fill_owed(session, terminal.progress))
    return session


def uses_theta(session: Session) -> bool:
    """Return whether this repository has anything to do with theta."""
    return installing.is_used(session.repo)


def session_or_none() -> Session | None:
    """Like :func:`open_session`, but return None without a usable repository."""
    try:
        return open_session()
    except ThetaError:
        return None


def drive(session: Session, *args: str, refresh: bool = True, hooks: bool = False) -> int:
    """Run ``git ARGS`` on the terminal with theta's work around it, and tell theta's part."""
    is_set_up, tell, shown = uses_theta(session), terminal.heard, terminal.progress
    done = running.drive(session, *args, refresh=refresh, hooks=hooks, tell=tell, shown=shown)
    if not is_set_up:
        open_session()  # what git brought may have the first checkpoints of the worktree
    return stopped(session, told(done))


def drive_untouched(session: Session, name: str, strategies: Sequence[str], args: Sequence[str]) -> int:
    """Let git join or apply commits that have the same checkpoints; all output is git's."""
    words = (name, *(f"-X{strategy}" for strategy in strategies), *args)
    return stopped(session, told(running.drive(session, *words, shown=terminal.progress)))


def stopped(session: Session, code: int) -> int:
    """Say what goes on where a git that ended with ``code`` left checkpoints in conflict; return the code."""
    if code and (fresh := session.again()).index.conflicts:
        then = f"; then '{go_on}'" if (go_on := in_progress.current(fresh.repo).go_on) else ""
        console.err(f"hint: 'theta resolve' settles the checkpoints in conflict{then}")
    return refused(session, code)


def refused(session: Session, code: int) -> int:
    """Name checkpoints in plain bytes, which git takes for edited, if it ended with ``code``; return that."""
    if code and not (fresh := session.again()).index.conflicts and (plain := coverage.plain(fresh)):
        console.err(f"hint: {coverage.plain_line(fresh, plain)}")
    return code


def told(done: Driven) -> int:
    """Tell theta's part of a git command; return its exit code."""
    if done.full:
        say_full_disk()
    _warn(done.notes)
    return done.code


def say_full_disk() -> None:
    """Say that the disk is full."""
    console.err("error: no space is left on the disk of the repository")
    console.err("hint: free some space and repeat the command")


def fill_submodules(session: Session) -> None:
    """Set up the submodules that have checkpoints, and fill those in."""
    _warn(running.fill_submodules(session, terminal.progress))


def _warn(notes: Iterable[str]) -> None:
    for line in notes:
        console.warn(line)


def report_added(added: Sequence[Added]) -> None:
    """Print warnings, and one line for each checkpoint that was staged."""
    for item in added:
        if item.note:
            console.warn(f"{item.path}: {item.note}; tracked as plain bytes")
        if item.warning:
            console.warn(item.warning)
        if item.newcomer:
            console.note(f"{item.path}: new file of a tracked pattern, included")
        if item.new or item.changed:
            console.note(f"{item.path}: {item.summary()}")


def report_left_out(session: Session, paths: Sequence[str], where: str) -> None:
    """Warn of new files of tracked patterns that are not ``where`` they were expected."""
    if paths:
        console.warn(coverage.left_out_line(session, paths, where))


def report_uncovered(session: Session, paths: Sequence[str]) -> None:
    """Warn of new files that look like checkpoints and that no pattern covers."""
    if paths:
        console.warn(coverage.uncovered_line(session, paths))


def report_summary(session: Session, summary: Summary) -> None:
    """Say what a new commit holds."""
    for text in version_changes.headline(session, summary):
        console.note(text)
    for path, changes in summary.checkpoints.items():
        console.note(f" {changes.told(path)}")
