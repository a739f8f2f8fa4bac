"""``theta undo``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.porcelain.care import undoing

app = typer.Typer(add_completion=False)

_ID = 10


@app.command(context_settings=HELP)
def undo(as_json: bool = typer.Option(False, "--json", help="Print what was undone as JSON.")) -> int:
    """Undo the last command of theta: branches, tags, index and files are as before it.

    'theta undo' once more does it again. A file that the command did not write stays as it is: after
    'theta commit -a' and 'theta undo' the changes are there, and not committed. Refused when refs, index or
    a file that the command wrote changed since, when a merge or rebase is in progress or was before the
    command, and when another worktree uses the branch. What was fetched or pushed stays, as does what others
    moved meanwhile; what 'restore', 'stash' and 'reset --hard' threw away does not come back.
    In repositories without checkpoints git does all, and no record is kept.
    """
    session = open_session()
    with terminal.progress("undoing") as progress:
        done = undoing.undo(session, progress)
    if as_json:
        reports.as_json("undo", asdict(done))
        return 0
    console.note(f"undid '{done.line}'; 'theta undo' does it again")
    for name, (before, now) in done.refs.items():
        console.note(f" {name}: {before[:_ID] or 'not there'} -> {now[:_ID] or 'not there'}")
    for path in done.files:
        console.note(f" {path}: as before")
    for path in done.left:
        console.warn(f"{path}: left as it is, because it is not what the command wrote")
    if done.losing:
        console.warn("what that command threw away without being committed is not kept anywhere")
    return 0
