"""``theta rebase``, ``cherry-pick`` and ``revert``: git's commands, past stops that checkpoints make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.cli import console, deciding, reports
from theta.cli.args import Given, parted
from theta.cli.common import drive_untouched, open_session, refused, report_summary, say_full_disk
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.commands import merge_request as requests
    from theta.porcelain.commands import sequence as sequences
    from theta.porcelain.commands.sequence import SequenceResult
    from theta.porcelain.merge import same_stores
    from theta.porcelain.workspace.session import Session
else:
    requests = Module("theta.porcelain.commands.merge_request")
    same_stores = Module("theta.porcelain.merge.same_stores")
    sequences = Module("theta.porcelain.commands.sequence")


def sequence(name: str, doc: str) -> Passing:
    """Return a command that drives ``git NAME``, with all its options."""

    def command(
        given: Given,
        strategy: deciding.Strategies = None,
        rule: deciding.Rules = None,
        recipe: deciding.RecipePath = None,
        seed: deciding.Seed = None,
        allow_nan: deciding.AllowNan = False,
        no_prompt: deciding.NoPrompt = False,
        as_json: deciding.MoveWanted = False,
    ) -> int:
        with reports.moved(as_json):
            session = open_session()
            if recipe is not None:
                raise UsageError(
                    f"{recipe} names models, which only a merge has", hint="use -X STRATEGY and --rule"
                )
            options = requests.TensorOptions(strategy or (), rule or (), seed=seed, allow_nan=allow_nan)
            return _run(session, name, given, options, Terminal(no_prompt=no_prompt))

    command.__doc__ = doc
    app = Passing(None)
    app.command(command)
    return app


def _run(
    session: Session, name: str, given: Given, options: requests.TensorOptions, terminal: Terminal
) -> int:
    console.quiet = console.quiet or not {"-q", "--quiet"}.isdisjoint(parted(given.args)[0])
    if not options.only_ours() and _changes_none(session, given):
        return drive_untouched(session, name, options.strategies, given.args)
    request = sequences.SequenceRequest(name, given.args, options)
    return refused(session, _told(session, sequences.sequence(session, request, terminal)))


def _changes_none(session: Session, given: Given) -> bool:
    """Return whether commits are picked or reverted that change no checkpoint."""
    if given.name == "rebase":
        return False
    asked = given.of_git()
    steps = any(map(asked.has, ("--continue", "--skip", "--abort", "--quit")))
    return asked.known and not steps and same_stores.applies(session, asked.words)


def _told(session: Session, result: SequenceResult) -> int:
    """Tell the result of a sequence, without the lines shown at its stops; return the exit code."""
    for summary in result.commits:
        report_summary(session, summary)
    for line in result.concluded:
        console.note(line)
    if result.empty:
        console.note("nothing to commit: HEAD has none of the changes any more")
    if result.one_by_one:
        console.err("hint: with --no-commit git stops here; run the command again for the other commits")
    if result.full:
        say_full_disk()
    for line in result.notes:
        console.warn(line)
    return result.code
