"""``theta merge``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console, deciding, reports, searching
from theta.cli.args import Given
from theta.cli.common import drive_untouched, open_session, refused, report_summary, say_full_disk
from theta.cli.passing import Passing
from theta.cli.terminal import Terminal
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import conflicts, rehearse
    from theta.porcelain.commands import decision, merging
    from theta.porcelain.commands import merge_request as requests
    from theta.porcelain.commands.merge_request import GitOptions, MergeResult, TensorOptions
    from theta.porcelain.look import version_changes
    from theta.porcelain.merge import same_stores
    from theta.porcelain.workspace.session import Session
else:
    conflicts = Module("theta.cli.conflicts")
    decision = Module("theta.porcelain.commands.decision")
    merging = Module("theta.porcelain.commands.merging")
    rehearse = Module("theta.cli.rehearse")
    requests = Module("theta.porcelain.commands.merge_request")
    same_stores = Module("theta.porcelain.merge.same_stores")
    version_changes = Module("theta.porcelain.look.version_changes")

app = Passing(None)

_GO_ON: Final = "theta merge --continue"


@app.command
def merge(
    given: Given,
    strategy: deciding.Strategies = None,
    rule: deciding.Rules = None,
    recipe: deciding.RecipePath = None,
    scope: deciding.Scope = None,
    seed: deciding.Seed = None,
    allow_nan: deciding.AllowNan = False,
    statistics: deciding.Statistics = None,
    dtype: deciding.Dtype = None,
    align: deciding.Align = None,
    align_spec: deciding.AlignSpec = None,
    search: searching.Axes = None,
    score: searching.ScoreBy = "",
    minimize: searching.Minimize = False,
    search_by: searching.Way = "",
    trials: searching.Trials = 0,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Show what would become of each tensor; change nothing."
    ),
    as_json: deciding.JsonWanted = False,
    html: deciding.PageFile = None,
    md: deciding.MarkdownWanted = False,
    replay: deciding.Replay = None,
    go_on: bool = typer.Option(
        False, "--continue", help="Settle the remaining conflicts and commit the merge."
    ),
    abort: bool = typer.Option(False, "--abort", help="Abort the merge; restore what was before it."),
    no_commit: bool = typer.Option(False, "--no-commit", help="Stop before the commit."),
    no_prompt: deciding.NoPrompt = False,
) -> int:
    """Join histories: files as git merges them, checkpoints tensor by tensor.

    A tensor that one side changed is taken. One that both changed is settled by -X or --rule, or
    asked for on a terminal, or left as a conflict (exit code 1) that 'theta resolve' settles. Several
    branches are joined at once. How tensors were settled stands in the commit as a Theta-Merge
    trailer. git merge's other options apply; 'theta help merging-workflows' tells more.
    """
    apart = as_json and not (dry_run or html is not None or md or replay is not None)
    with reports.moved() if apart else nullcontext():
        session, terminal = open_session(), Terminal(no_prompt=no_prompt)
        line = given.of_git()
        if not line.known:
            words = " ".join(line.given)
            raise UsageError(f"git merge lists no such option: '{words}'", hint="'git merge -h' lists all")
        git, names = requests.GitOptions.of(line), line.words
        console.quiet = console.quiet or line.has("--quiet")
        file = deciding.recipe_file(recipe) if recipe is not None else None
        units = deciding.spec_file(align_spec) if align_spec else ""
        tensors = requests.TensorOptions(
            strategy or (), rule or (), file, scope, seed, allow_nan, statistics or (), dtype, align, units
        )
        commands = {"--continue": go_on, "--abort": abort, "--quit": git.has("--quit")}
        _check(names, tensors, {**commands, "--replay": replay is not None, "--dry-run": dry_run})
        rehearsed = dry_run or html is not None or md
        form = rehearse.form(as_json, html, md, dry_run) if rehearsed else None
        if replay is not None:
            return rehearse.tell_again(merging.again(session, replay, terminal), as_json=as_json)
        if abort or git.has("--quit"):
            toward = [*(["--abort"] if abort else []), *git.args]
            return _tell(session, git, merging.abort(session, terminal, *toward))
        if go_on:
            return _tell(session, git, merging.go_on(session, tensors, terminal, no_commit=no_commit))
        request = requests.MergeRequest(names, tensors, git, no_commit=no_commit, dry_run=dry_run)
        if search or score or search_by or trials or minimize:
            found = searching.asked(search, score, search_by, trials, minimize=minimize, seed=seed)
            request, session = searching.best(session, request, found, terminal), session.again()
        if not (dry_run or tensors.only_ours()) and same_stores.joins(session, names):
            stop = ["--no-commit"] * no_commit
            return drive_untouched(session, "merge", tensors.strategies, [*stop, *given.args])
        result = merging.merge(session, request, terminal)
        if form is not None:
            return rehearse.tell_rehearsed(session, names, result, form)
        return _tell(session, git, result)


def _check(names: Sequence[str], tensors: TensorOptions, commands: Mapping[str, bool]) -> None:
    """Refuse what cannot be done together; ``commands`` are the options that stand for a command."""
    chosen = [name for name, given in commands.items() if given]
    if len(chosen) > 1:
        raise UsageError("only one of --continue, --abort, --quit, --dry-run and --replay")
    if not chosen or chosen == ["--dry-run"]:
        return
    if names:
        raise UsageError(f"{chosen[0]} takes no revision beside it, such as {names[0]}")
    if chosen[0] != "--continue":
        decision.refuse(tensors.first(), f"{chosen[0]} decides nothing")


def _tell(session: Session, git: GitOptions, result: MergeResult) -> int:
    """Tell the result of a merge, without the lines that the terminal already showed."""
    if result.left:
        conflicts.not_concluded(result.left)
    if result.staged:
        conflicts.in_the_way(result.staged)
    if result.ending is requests.Ending.OPEN:
        conflicts.refused(result.settlement)
    if result.ending is requests.Ending.FORWARDED and result.before and result.commit and not git.is_silent:
        for line in version_changes.moved(session.again(), result.before, result.commit):
            console.note(line)
    if result.ending is requests.Ending.PREPARED and result.settlement.go_on not in ("", _GO_ON):
        conflicts.tell_next(result.settlement)
    if result.summary is not None and not result.code:
        report_summary(session, result.summary)
    if result.full:
        say_full_disk()
    for note in result.notes:
        console.warn(note)
    return refused(session, result.code)
