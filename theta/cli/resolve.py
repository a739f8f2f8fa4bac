"""``theta resolve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from theta.cli import deciding, reports
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.cli.terminal import Terminal
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import conflicts
    from theta.porcelain.commands import merge_request as requests
    from theta.porcelain.commands import settling
else:
    conflicts = Module("theta.cli.conflicts")
    requests = Module("theta.porcelain.commands.merge_request")
    settling = Module("theta.porcelain.commands.settling")

app = typer.Typer(add_completion=False)


@app.command(context_settings={**HELP, "allow_extra_args": True})
def resolve(
    context: typer.Context,
    strategy: deciding.Strategies = None,
    rule: deciding.Rules = None,
    recipe: deciding.RecipePath = None,
    seed: deciding.Seed = None,
    allow_nan: deciding.AllowNan = False,
    statistics: deciding.Statistics = None,
    dtype: deciding.Dtype = None,
    no_prompt: deciding.NoPrompt = False,
    as_json: deciding.MoveWanted = False,
) -> int:
    """Settle the checkpoints in conflict that git or theta left: after a merge, a rebase, a stash.

    Stages the results and writes the files; commits nothing. 'ours' is what is checked out (in a
    rebase: the branch that is rebased on). Tensors of equal value settle by themselves; without -X
    and without a terminal the others stay in conflict (exit code 1). Other files are left to an editor.
    """
    session = open_session()
    file = deciding.recipe_file(recipe) if recipe is not None else None
    options = requests.TensorOptions(
        strategy or (), rule or (), file, None, seed, allow_nan, statistics or (), dtype
    )
    with reports.moved(as_json):
        found = settling.resolve(session, options, context.args, Terminal(no_prompt=no_prompt))
        if not found.unmerged:
            conflicts.tell_next(found)
    return int(bool(found.unmerged))
