"""``theta commit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import (
    NO_NOTICE,
    open_session,
    report_added,
    report_left_out,
    report_uncovered,
    tell_full_disk,
    whole,
)

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.look.commit_summary import Summary
    from theta.porcelain.stage.staging import Added
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress

app = typer.Typer(add_completion=False)


_TELLS: Final = {"--dry-run", "--porcelain", "--short", "--long", "--null"}
"""Options with which git commits nothing."""
_STAGES: Final = {"--patch", "--interactive", "--pathspec-from-file"}
"""Options with which git itself chooses what to stage."""


@app.command(context_settings=PASS)
def commit(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print what was committed as JSON."),
) -> int:
    """Record a new version of checkpoints and files (git commit's options apply).

    Unlike git's, -a also takes new files that a tracked pattern matches (ignored ones aside), and
    says so: a checkpoint that nobody committed is overwritten by the next training step.
    """
    session = open_session()
    asked = of_git(context)
    names = {option.name for option in asked.options}
    if names & _TELLS:
        return session.repo.git().in_directory(Path.cwd()).show(*NO_NOTICE, "commit", *asked.given)
    if not asked.known or names & _STAGES:
        return whole(session, "commit", asked.given)
    with session.exclusive():
        with console.progress("adding") as progress:
            added = _prepare(session, asked, progress)
        code, summary = _commit(session, asked)
    quiet = asked.has("--quiet")
    if not (as_json or quiet):
        report_added(added)
    if code == 0 and summary is not None:
        if as_json or not quiet:
            report_summary(session, summary, as_json=as_json)
        report_left_out(session, "in this commit")
        report_uncovered(session, summary.new_files)
    return code


def _prepare(session: Session, asked: Arguments, progress: Progress | None) -> list[Added]:
    from theta.porcelain.stage import committing

    everything = asked.has("--all")
    return committing.prepare(session, Path.cwd(), asked.words, everything=everything, progress=progress)


def _commit(session: Session, asked: Arguments) -> tuple[int, Summary | None]:
    """Let git make the commit; returns its exit code, and what the commit holds."""
    from theta.git.run import DEFER, DEFER_FILES
    from theta.porcelain.merge import recording
    from theta.porcelain.stage import committing

    before = session.repo.head()
    # The index of 'git commit PATH' is a temporary one, which only the hooks get to see.
    # The message of a merge may come from anywhere, and only a hook sees it.
    by_hooks = asked.words or recording.is_open(session)
    git = session.repo.git(extra=DEFER_FILES if by_hooks else DEFER).in_directory(Path.cwd())
    committing.check_identity(session)
    code = tell_full_disk(session, git.show(*_no_notice(session, asked), "commit", "--quiet", *asked.given))
    return code, committing.finish(session, before)


def _no_notice(session: Session, asked: Arguments) -> tuple[str, ...]:
    """The setting with which git is silent of sparse checkouts, unless other programs would get to see it."""
    from theta.porcelain.setup import installing

    written = any(asked.value(name) for name in ("--message", "--file", "--reuse-message", "--fixup"))
    silent = (written and not asked.has("--edit")) or _commits_nothing(session, asked)
    return NO_NOTICE if silent and not installing.has_other_hooks(session.repo) else ()


def _commits_nothing(session: Session, asked: Arguments) -> bool:
    """Whether git will say that there is nothing to commit, before it opens an editor."""
    from theta.porcelain.workspace import in_progress

    if (
        asked.words
        or asked.has("--amend")
        or asked.has("--allow-empty")
        or in_progress.current(session.repo).name == "merge"
    ):
        return False
    if session.repo.head() is None:
        return False
    return session.repo.git().run("diff-index", "--cached", "--quiet", "HEAD", check=False).code == 0


def report_summary(session: Session, summary: Summary, *, as_json: bool) -> None:
    """Say what a new commit holds."""
    from theta.porcelain.look import commit_summary

    if as_json:
        console.out(json.dumps({"theta.commit/v1": summary.as_json()}))
        return
    for text in commit_summary.headline(session, summary):
        console.note(text)
    for path, changes in summary.checkpoints.items():
        console.note(f" {changes.told(path)}")
