"""``theta commit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain, split_paths
from theta.cli.common import open_session, report_added, report_left_out, report_uncovered

if TYPE_CHECKING:
    from theta.porcelain.committing import Summary

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def commit(
    context: typer.Context,
    everything: bool = typer.Option(
        False, "--all", "-a", help="stage all changed files first, and new files of tracked patterns"
    ),
    as_json: bool = typer.Option(False, "--json", help="print what was committed as JSON"),
) -> int:
    """Record a new version of checkpoints and files (git commit's options apply).

    Unlike git's, -a also takes new files that a tracked pattern matches (ignored ones aside), and
    says so: a checkpoint that nobody committed is overwritten by the next training step.
    """
    from theta.git.run import DEFER, DEFER_FILES
    from theta.porcelain import committing, recording

    session = open_session()
    args = plain(context.args)
    _, paths = split_paths(args)
    with session.exclusive():
        with console.progress("adding") as progress:
            added = committing.prepare(
                session, Path.cwd(), args, paths, everything=everything, progress=progress
            )
        before = session.repo.head()
        flags = ["-a"] if everything else []
        quiet = [] if committing.shows_only(args) else ["--quiet"]
        # The index of 'git commit PATH' is a temporary one, which only the hooks get to see.
        # The message of a merge may come from anywhere, and only a hook sees it.
        by_hooks = committing.pathspecs(args) or recording.is_open(session)
        extra = DEFER_FILES if by_hooks else DEFER
        git = session.repo.git(extra=extra).in_directory(Path.cwd())
        committing.check_identity(session)
        code = git.show("commit", *quiet, *flags, *args)
        summary = committing.finish(session, before)
    if not as_json:
        report_added(added)
    if code == 0 and summary is not None:
        report_summary(summary, as_json=as_json)
        report_left_out(session, "in this commit")
        report_uncovered(session, summary.new_files)
    return code


def report_summary(summary: Summary, *, as_json: bool) -> None:
    """Say what a new commit holds."""
    if as_json:
        console.out(json.dumps({"theta.commit/v1": summary.as_json()}))
        return
    root = " (root-commit)" if summary.root else ""
    console.note(f"[{summary.branch}{root} {summary.commit[:10]}] {summary.subject}")
    for path, changes in summary.checkpoints.items():
        console.note(f" {path}: {changes.summary()}")
    if summary.files:
        console.note(f" {summary.files} file(s) changed")
