"""How tensors in conflict are to be decided: the options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from theta.cli import console
from theta.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from theta.cli.prompting import Prompt
    from theta.merging.recipe_files import RecipeFile
    from theta.merging.recipes import Recipe
    from theta.porcelain.merge.answers import Answer, Answers
    from theta.porcelain.merge.joining import How
    from theta.porcelain.workspace.session import Session

Result = TypeVar("Result")

Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "-X",
        "--strategy-option",
        help="Strategy for tensors in conflict: ours, theirs, base, average, ties:density=0.2 ...",
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", help="GLOB=STRATEGY: strategy for matching tensor names; the first match counts."),
]
RecipePath = Annotated[str | None, typer.Option("--recipe", help="Recipe file: YAML with mergekit's keys.")]
Seed = Annotated[str | None, typer.Option("--seed", help="Random seed (default 0).")]
AllowNan = Annotated[
    bool, typer.Option("--allow-nan", help="Allow results with NaN or infinity that no input had.")
]
Statistics = Annotated[
    list[str] | None,
    typer.Option("--statistics", help="Statistics file for fisher and regmean, one per side (REV:PATH)."),
]
NoPrompt = Annotated[bool, typer.Option("--no-prompt", help="Do not ask; leave conflicts open.")]


@dataclass(frozen=True)
class Options:
    """What the command line says; ``None`` where it says nothing."""

    strategies: Sequence[str] = ()
    rules: Sequence[str] = ()
    recipe: str | None = None
    scope: str | None = None
    seed: str | None = None
    allow_nan: bool = False
    statistics: Sequence[str] = ()
    no_prompt: bool = False
    dry_run: bool = False

    def first(self) -> str:
        """The first of the options that say how tensors are merged; empty where none was given."""
        given: dict[str, object] = {
            **{f"-X {option}": True for option in self.strategies if not is_gits(option)},
            **{f"--rule {rule}": True for rule in self.rules},
            "--recipe": self.recipe,
            "--scope": self.scope,
            "--seed": self.seed,
            "--allow-nan": self.allow_nan,
            "--statistics": self.statistics,
            "--dry-run": self.dry_run,
        }
        return next((name for name, value in given.items() if value), "")

    def only_ours(self) -> str:
        """The first of the options that are not git's too, as -X ours and -X theirs are."""
        kept = [option for option in self.strategies if option not in ("ours", "theirs")]
        return replace(self, strategies=kept, dry_run=False).first()


@dataclass
class Decision:
    """How to decide, against which base, and git's own -X options that stood among ours.

    ``prompts``: whoever is there is asked for what is left.
    """

    how: How
    side: str = ""
    gits: list[str] = field(default_factory=list)
    base: str | None = None
    prompts: bool = False


def decide_here(session: Session, options: Options) -> Decision:
    """The decision for the conflicts of the operation under way; a recipe names what a merge joins."""
    from theta.cli import mergeargs
    from theta.porcelain.merge import resolving
    from theta.porcelain.workspace import in_progress

    now = in_progress.current(session.repo)
    heads = session.repo.merge_heads() or [now.theirs or ""]
    mergeargs.check_statistics(options, 1 + len(heads))
    file = read_recipe(options.recipe)
    if options.rules:
        mergeargs.check_names(options, resolving.tensors(session))
    if file is None:
        return decide(session, options)
    if now.name != "merge":
        raise UsageError(
            f"{file.label} names models, which only a merge has", hint="use -X STRATEGY and --rule"
        )
    numbers = order(session, file, [now.ours or "", *heads]) if file.models else None
    decision = decide(session, options, file, numbers)
    decision.base = mergeargs.commits(session, [file.base])[0] if file.base else None
    return decision


def order(session: Session, file: RecipeFile, sides: Sequence[str]) -> list[int | None]:
    """For each side its number among the models of the recipe ``file``; None for one that has none."""
    from theta.cli import mergeargs

    known = mergeargs.commits(session, file.models)
    return [known.index(side) if side in known else None for side in sides]


def decide(
    session: Session,
    options: Options,
    file: RecipeFile | None = None,
    order: Sequence[int | None] | None = None,
) -> Decision:
    """The decision that ``options`` ask for: the command line over a recipe over the configuration."""
    from theta.merging import recipes as texts
    from theta.merging.strategies import SIDES, parse
    from theta.porcelain.merge import trailers
    from theta.porcelain.merge.answers import Answers
    from theta.porcelain.merge.joining import How

    ours = [option for option in options.strategies if not is_gits(option)]
    if len(ours) > 1:
        raise UsageError(
            "-X can name only one strategy for tensors",
            hint="give one -X, and --rule GLOB=STRATEGY for the rest",
        )
    chosen = parse(ours[0]) if ours else None
    file = file or read_recipe(options.recipe)
    recipe = texts.combine(
        chosen,
        [texts.rule(text) for text in options.rules],
        file.recipe(order) if file else trailers.configured(session),
        scope=texts.scope(options.scope) if options.scope else None,
        seed=texts.seed(options.seed) if options.seed else None,
        allow_nan=options.allow_nan or None,
    )
    asks = not options.no_prompt and on_terminal()
    if options.statistics and not asks and not recipe.uses_statistics:
        raise UsageError(
            "--statistics would have no effect: no strategy of this merge uses them",
            hint="-X fisher and -X regmean do",
        )
    found = trailers.statistics(session, options.statistics)
    answers = Answers(session, _tell_recalled)
    prompt = _prompt(session, options, answers)
    how = How(
        recipe.policy(prompt.decide if prompt else None, answers.find),
        trailers.Round(recipe, found).options(session, dry_run=options.dry_run),
        asked=lambda: _followed(recipe, answers),
    )
    side = chosen.name if chosen and chosen.name in SIDES[:2] else ""
    gits = [f"-X{option}" for option in options.strategies if is_gits(option)]
    return Decision(how, side, gits, prompts=prompt is not None)


def _followed(recipe: Recipe, answers: Answers) -> Recipe:
    """``recipe`` with the answers that hold for several tensors as rules."""
    return replace(recipe, rules=(*recipe.rules, *answers.rules()))


def _tell_recalled(answer: Answer) -> None:
    console.note(f"{answer.conflict.name}: {answer.strategy}, as answered before")


def asking(how: How, work: Callable[[How], Result]) -> Result:
    """Do ``work`` with progress shown, again from the start whenever the user takes an answer back."""
    from theta.cli.prompting import UndoneError

    with console.progress("merging") as progress:
        how = replace(how, progress=progress)
        while True:
            try:
                return work(how)
            except UndoneError:
                continue


def is_gits(option: str) -> bool:
    """Options of git's own merge strategy that say nothing about tensors."""
    names = ("ignore", "renormalize", "no-renormalize", "find-renames", "no-renames", "subtree", "patience")
    return option.startswith((*names, "diff-algorithm", "rename-threshold", "histogram"))


def read_recipe(place: str | None) -> RecipeFile | None:
    """The recipe file at ``place``; raises :class:`NotFoundError` and :class:`UsageError`."""
    if place is None:
        return None
    from theta.merging.recipe_files import load

    try:
        data = Path(place).read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read the recipe {place}: {error.strerror}") from error
    return load(data, place)


def _prompt(session: Session, options: Options, answers: Answers) -> Prompt | None:
    if options.no_prompt or options.dry_run or not on_terminal():
        return None
    from theta.cli.prompting import Prompt

    return Prompt(session, answers)


def on_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()
