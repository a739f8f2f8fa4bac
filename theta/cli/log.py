"""``theta log``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, report_files, reports
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.cli.run_words import shows_checkpoints
from theta.errors import NotFoundError, UsageError
from theta.git.options import Option
from theta.lazy import Module
from theta.porcelain.look import history
from theta.porcelain.look.history import FORM, SELECT

if TYPE_CHECKING:
    import typer

    from theta.cli import show_text
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.commands import histories
    from theta.porcelain.look import diffing, showing
    from theta.porcelain.stage import run_steps
    from theta.porcelain.workspace.session import Session
else:
    diffing = Module("theta.porcelain.look.diffing")
    histories = Module("theta.porcelain.commands.histories")
    run_steps = Module("theta.porcelain.stage.run_steps")
    show_text = Module("theta.cli.show_text")
    showing = Module("theta.porcelain.look.showing")
    typer = Module("typer")

app = Passing(("--tensor=", "--json", "--run=", "--sort=", "--html=", "--md"))


@app.command
def log(
    given: Given,
    tensor: Annotated[
        str | None,
        typer.Option(
            "--tensor", metavar="GLOB", help="Show only commits that changed tensors matching GLOB."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print commits and tensors as JSON.")] = False,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Show the steps of this training run.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="METRIC", help="With --run: by this metric, lowest value first."),
    ] = None,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Draw graph, bytes and metrics on a page.")
    ] = None,
    md: Annotated[bool, typer.Option("--md", help="Print the commits as Markdown.")] = False,
) -> int:
    """Show the history, without the files below .theta/ (git log's options and pathspecs apply).

    --stat tells for each commit what it changed, by tensor; -p the updates of an adapter, by module.
    """
    session = open_session(worktree=False)
    given = _of_run(session, given, run, sort)
    asked = given.of_git()
    console.colour = asked.colours() or console.colour
    git = session.repo.git().in_directory(Path.cwd())
    if session.repo.head() is None and not asked.words and not asked.has("--all"):
        raise NotFoundError("your current branch does not have any commits yet")
    pictured = html is not None or md
    ours = tensor is not None or as_json or pictured
    if not ours and _by_patch(asked) and shows_checkpoints(session) and showing.has_adapters(session):
        return show_text.patches(session, git, asked)
    if not ours and not (asked.known and _by_tensor(asked) and shows_checkpoints(session)):
        if not asked.options:
            diffing.split(git, asked)
        return git.show(
            "log", *(history.without_stores(git, "log", asked) if shows_checkpoints(session) else asked.given)
        )
    if ours:
        _refuse_others(asked, as_json or pictured)
    if pictured:
        report_files.check(html, md, as_json)
        found = histories.log(session, histories.LogRequest(asked, tensor))
        return report_files.log(session, found, report_files.Drawing(html, as_json))
    return _print(session, git, asked, tensor, as_json=as_json)


def _of_run(session: Session, given: Given, run: str | None, sort: str | None) -> Given:
    """Return ``given`` with the revisions of a training run in front."""
    if run is None:
        if sort is not None:
            raise UsageError("--sort orders the steps of a run", hint="theta log --run NAME --sort METRIC")
        return given
    steps = run_steps.steps(session, run)
    if sort is None:
        return Given(given.name, [run_steps.ref_of(run), *given.args])
    ranked = [step.commit for step in run_steps.ranked(steps, sort)]
    return Given(given.name, ["--no-walk=unsorted", *ranked, *given.args])


def _by_tensor(asked: Arguments) -> bool:
    """Return whether --stat was given, and no option that does not go with theta's form of it."""
    return asked.has("--stat") and asked.value("--stat") is None and asked.only("--stat", *SELECT, *FORM)


def _by_patch(asked: Arguments) -> bool:
    """Return whether -p was given, and no option that does not go with theta's form of it."""
    return asked.known and asked.has("--patch") and asked.only("--patch", *SELECT, *FORM)


def _refuse_others(asked: Arguments, as_json: bool) -> None:
    kept = (*SELECT, "--stat", *(() if as_json else FORM))
    for option in asked.options:
        if option.name not in kept:
            raise UsageError(f"{option.name} does not go with {'this form' if as_json else '--tensor'}")
    if not asked.known:
        raise UsageError("git does not take these options; see 'git log -h'")


def _as_shown(session: Session, asked: Arguments) -> Arguments:
    """Return the line with what git adds to it on a terminal."""
    more = [Option("--color", "always")] if console.palette("diff").on else []
    if console.on_screen() and session.repo.config.get("log.decorate") in (None, "auto"):
        more.append(Option("--decorate", "short"))
    return replace(asked, options=(*more, *asked.options))


def _print(session: Session, git: Git, asked: Arguments, tensor: str | None, *, as_json: bool) -> int:
    found = histories.log(session, histories.LogRequest(asked, tensor))
    if as_json:
        reports.as_json("log", [item.as_json() for item in found.commits])
        return 0
    spaced, asked = history.is_spaced(asked), _as_shown(session, asked)
    for number, item in enumerate(found.commits):
        if spaced and number:
            console.out()
        text = history.told(git, item, asked, found.paths)
        console.out(*text.split("\n"), painted=True)
        if spaced and " | " not in text and item.checkpoints:
            console.out()
        for path, changes in item.checkpoints.items():
            console.out(changes.row(path))
    return 0
