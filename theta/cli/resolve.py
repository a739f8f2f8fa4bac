"""``theta resolve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.cli import console, deciding
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.merging import recipe_files
    from theta.porcelain.commands import merge_request as requests
    from theta.porcelain.commands import settling
    from theta.porcelain.commands.merge_request import Settlement
else:
    recipe_files = Module("theta.merging.recipe_files")
    requests = Module("theta.porcelain.commands.merge_request")
    settling = Module("theta.porcelain.commands.settling")

app = Passing(None)


@app.command
def resolve(
    given: Given,
    strategy: deciding.Strategies = None,
    rule: deciding.Rules = None,
    recipe: deciding.RecipePath = None,
    seed: deciding.Seed = None,
    allow_nan: deciding.AllowNan = False,
    statistics: deciding.Statistics = None,
    no_prompt: deciding.NoPrompt = False,
) -> int:
    """Settle the checkpoints in conflict that git or theta left: after a merge, a rebase, a stash.

    Stages the results and writes the files; commits nothing. 'ours' is what is checked out (in a
    rebase: the branch that is rebased on). Tensors of equal value settle by themselves; without -X
    and without a terminal the others stay in conflict (exit code 1). Other files are left to an editor.
    """
    session = open_session()
    paths = [arg for arg in given.args if arg != "--"]
    if unknown := [arg for arg in paths if arg.startswith("-")]:
        raise UsageError(f"no such option: {unknown[0]}", hint="theta resolve --help")
    file = recipe_files.read(recipe) if recipe is not None else None
    options = requests.TensorOptions(
        strategy or (), rule or (), file, None, seed, allow_nan, statistics or ()
    )
    found = settling.resolve(session, options, paths, Terminal(no_prompt=no_prompt))
    if not found.unmerged:
        tell_next(found)
    return int(bool(found.unmerged))


def tell_next(found: Settlement) -> None:
    """Tell that nothing is in conflict any more, and what concludes the operation."""
    if found.idle:
        console.note("nothing is in conflict")
        return
    tail = f"; conclude with '{found.go_on}'" if found.go_on else ""
    console.note(f"all conflicts are settled and staged{tail}")
    if found.stash:
        console.err("hint: git keeps a stash that conflicted; remove it with 'theta stash drop'")
