"""``theta resolve``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from theta.cli import console, deciding
from theta.cli.args import PASS, plain
from theta.cli.common import open_session
from theta.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from theta.cli.deciding import Decision
    from theta.porcelain.merge.joining import How, Merged
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def resolve(
    context: typer.Context,
    strategy: deciding.Strategies = None,
    rule: deciding.Rules = None,
    recipe: deciding.RecipePath = None,
    seed: deciding.Seed = None,
    allow_nan: deciding.AllowNan = False,
    statistics: deciding.Statistics = None,
    no_prompt: deciding.NoPrompt = False,
) -> int:
    """Settle the checkpoints in conflict, whoever left them: git or theta, a merge, a rebase, a stash.

    Stages the results and writes the files; commits nothing. 'ours' is what is checked out (in a
    rebase: the branch that is rebased on). Tensors of equal value settle by themselves; without -X
    and without a terminal the others stay in conflict (exit code 1). Other files are left to an editor.
    """
    session = open_session()
    paths = [arg for arg in plain(context.args) if arg != "--"]
    if unknown := [arg for arg in paths if arg.startswith("-")]:
        raise UsageError(f"no such option: {unknown[0]}", hint="theta resolve --help")
    options = deciding.Options(
        strategy or [], rule or [], recipe, None, seed, allow_nan, statistics or [], no_prompt
    )
    decision = deciding.decide_here(session, options)
    with session.exclusive():
        return settle(session, decision, paths)


def settle(
    session: Session, decision: Decision, paths: list[str] | None = None, *, quiet: bool = False
) -> int:
    """Settle what is in conflict, tell what was done and what goes on; return the exit code."""
    from theta.porcelain.merge import resolving

    fresh = session.again()
    only = resolving.unmerged(fresh, paths) if paths else None
    if paths and not only:
        resolving.check_paths(fresh, paths)
    if not resolving.unmerged(fresh) or only == []:
        resolving.fill(fresh)  # .theta/ alone may be in conflict, and is no matter of the user's
        if not quiet:
            console.note("nothing is in conflict")
        return 0
    how = replace(decision.how, whole=True)
    merged = deciding.asking(how, lambda how: resolving.resolve(fresh, how, only, decision.base))
    return told(fresh, merged, how, quiet=quiet)


def told(session: Session, merged: Merged, how: How, *, quiet: bool = False) -> int:
    """Tell what was settled and what goes on; return the exit code."""
    from theta.cli import conflicts
    from theta.porcelain.workspace import in_progress

    if conflicts.told(session, merged, how):
        return int(ExitCode.DIFFERENCES)
    if not quiet:
        go_on = in_progress.current(session.repo).go_on
        tail = f"; conclude with '{go_on}'" if go_on else ""
        console.note(f"all conflicts are settled and staged{tail}")
        if not go_on and "refs/stash" in session.repo.refs:
            console.err("hint: git keeps a stash that conflicted; remove it with 'theta stash drop'")
    return 0
