"""``theta rebase``, ``cherry-pick`` and ``revert``: git's commands, past stops that checkpoints make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from theta.cli import console, deciding
from theta.cli.args import PASS, plain
from theta.cli.common import ended, open_session
from theta.errors import UsageError

if TYPE_CHECKING:
    from theta.porcelain.commands.decision import Decision
    from theta.porcelain.workspace.session import Session


def sequence(name: str, doc: str) -> typer.Typer:
    """A typer app that drives ``git NAME``, with all its options."""

    def command(
        context: typer.Context,
        strategy: deciding.Strategies = None,
        rule: deciding.Rules = None,
        recipe: deciding.RecipePath = None,
        seed: deciding.Seed = None,
        allow_nan: deciding.AllowNan = False,
        no_prompt: deciding.NoPrompt = False,
    ) -> int:
        from theta.porcelain.commands import decision

        session = open_session()
        if recipe is not None:
            raise UsageError(
                f"{recipe} names models, which only a merge has", hint="use -X STRATEGY and --rule"
            )
        terminal = deciding.Terminal(no_prompt=no_prompt)
        options = deciding.options(strategy, rule, None, None, seed, allow_nan)
        args = plain(context.args)
        decision.check_step_rules(session, options, [name, *args])
        decided = decision.decide(session, options, terminal)
        return run(session, name, args, decided, terminal)

    command.__doc__ = doc
    app = typer.Typer(add_completion=False)
    app.command(context_settings=PASS)(command)
    return app


def run(session: Session, name: str, args: list[str], decision: Decision, terminal: deciding.Terminal) -> int:
    """Run ``git NAME ARGS``, settle checkpoints wherever it stops, and let it go on.

    The lock is held while theta works, not while git does: a rebase may run commands of the user.
    """
    from theta.porcelain.drive import overwrites, rebasing, sequencing
    from theta.porcelain.workspace import agreement

    before = session.repo.head()
    with session.exclusive():
        agreement.refresh(session)
        if "--continue" in args:
            if name == "rebase" and (notes := rebasing.repair(session)) is not None:
                return _concluded(session, notes)
            if code := _settle(session, decision, terminal, whole=True):
                return code
        checked = overwrites.options(session.again(), [name, *args])
    gits = [] if {"--continue", "--skip", *sequencing.ENDS} & set(args) else decision.gits
    with session.driving():
        session.moving(*args)
        git = sequencing.git(session, name)
        code = ended(session, git.show(*checked, name, *gits, *args))
    while code and not sequencing.ENDS & set(args):
        step = _past_stop(session, name, args, decision, terminal)
        if step is None:
            break
        code = step
    _finish(session, name, before)
    return code


def _concluded(session: Session, notes: list[str]) -> int:
    from theta.porcelain.workspace import agreement

    for line in [*notes, *agreement.settle(session.again())]:
        console.note(line)
    return 0


def _past_stop(
    session: Session, name: str, args: list[str], decision: Decision, terminal: deciding.Terminal
) -> int | None:
    """Settle a stop and go on; return the exit code, or None when theta cannot settle it."""
    from theta.porcelain.drive import overwrites, sequencing
    from theta.porcelain.merge import resolving

    fresh = session.again()
    if not resolving.is_stopped(fresh):
        return None
    with fresh.exclusive():
        if decision.side:
            sequencing.favour(fresh, decision.side)
        if _settle(fresh, decision, terminal):
            return None
    if not sequencing.is_under_way(fresh, name):
        return 0
    if name == "revert" and sequencing.drop_empty(fresh):
        console.note("nothing to commit: HEAD has none of the changes any more")
        return None
    if {"-n", "--no-commit"} & set(args):
        console.err("hint: with --no-commit git stops here; run the command again for the other commits")
        return None
    editor = sequencing.quiet_editor(fresh, name, args)
    checked = overwrites.options(fresh, [name, "--continue"])
    with fresh.driving():
        return ended(fresh, sequencing.git(fresh, name, editor).show(*checked, name, "--continue"))


def _settle(session: Session, decision: Decision, terminal: deciding.Terminal, *, whole: bool = False) -> int:
    """Settle the checkpoints in conflict; return 0 when nothing is in conflict any more."""
    from theta.porcelain.commands import settling

    return int(bool(settling.settle_stop(session, decision, terminal, whole=whole).unmerged))


def _finish(session: Session, name: str, before: str | None) -> None:
    from theta.porcelain.drive import sequencing
    from theta.porcelain.workspace import agreement

    fresh = session.again()
    with fresh.exclusive(), console.progress("writing checkpoints") as progress:
        notes = sequencing.finish(fresh, name, before)
        notes += agreement.settle(session.again(), progress)
    for line in notes:
        console.warn(line)
