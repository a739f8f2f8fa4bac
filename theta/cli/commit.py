"""``theta commit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console, reports, terminal, untold
from theta.cli.args import Given
from theta.cli.common import (
    NO_NOTICE,
    open_session,
    report_added,
    report_left_out,
    report_summary,
    report_uncovered,
    say_full_disk,
    stopped,
    told,
)
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.lazy import Module

if TYPE_CHECKING:
    import typer

    from theta.porcelain.commands import commits
    from theta.porcelain.commands.commits import CommitResult
    from theta.porcelain.drive import running
    from theta.porcelain.workspace.session import Session
else:
    commits = Module("theta.porcelain.commands.commits")
    running = Module("theta.porcelain.drive.running")
    typer = Module("typer")

app = Passing(("--json",))


_TELLS: Final = {"--dry-run", "--porcelain", "--short", "--long", "--null"}
"""Options with which git commits nothing."""
_STAGES: Final = {"--patch", "--interactive", "--pathspec-from-file"}
"""Options with which git itself chooses what to stage."""


@app.command
def commit(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was committed as JSON.")] = False,
) -> int:
    """Record a new version of checkpoints and files (git commit's options apply).

    Unlike git's, -a also takes new files that a tracked pattern matches (ignored ones aside), and
    says so: a checkpoint that nobody committed is overwritten by the next training step.
    """
    session = open_session()
    asked = given.of_git()
    names = {option.name for option in asked.options}
    if names & _TELLS:
        return session.repo.git().in_directory(session.cwd).show(*NO_NOTICE, "commit", *asked.given)
    if not asked.known or names & _STAGES:
        return stopped(session, told(running.whole(session, "commit", *asked.given, shown=terminal.progress)))
    result = commits.commit(session, commits.CommitRequest(asked), Terminal())
    if result.full:
        say_full_disk()
    _report(session, result, quiet=asked.has("--quiet"), as_json=as_json)
    return stopped(session, result.code)


def _report(session: Session, result: CommitResult, *, quiet: bool, as_json: bool) -> None:
    if not (as_json or quiet):
        report_added(result.added)
    for line in result.notes:
        console.warn(line)
    if result.code or result.summary is None:
        return
    if as_json:
        reports.as_json("commit", result.as_json())
    elif not quiet:
        report_summary(session, result.summary)
    report_left_out(session, result.left_out, "in this commit")
    report_uncovered(session, result.uncovered)
    if result.to_lfs:
        untold.tell_of_lfs(session, result.to_lfs)
