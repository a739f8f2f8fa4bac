"""How tensors in conflict are to be decided: the options that several commands share, and the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console
from theta.errors import NotFoundError

if TYPE_CHECKING:
    from theta.merging.recipe_files import RecipeFile
    from theta.merging.strategies import Policy
    from theta.porcelain.commands.merge_request import TensorOptions
    from theta.porcelain.commands.settlement import Settlement
    from theta.porcelain.drive.running import Said
    from theta.porcelain.merge.answers import Answer, Answers
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress

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


def options(
    strategies: Sequence[str] | None,
    rules: Sequence[str] | None,
    recipe: str | None,
    scope: str | None,
    seed: str | None,
    allow_nan: bool,
    statistics: Sequence[str] | None = None,
) -> TensorOptions:
    """What the command line says of tensors in conflict; raises :class:`NotFoundError` for a recipe."""
    from theta.porcelain.commands.merge_request import TensorOptions

    file = read_recipe(recipe)
    return TensorOptions(strategies or (), rules or (), file, scope, seed, allow_nan, statistics or ())


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


class Terminal:
    """The user at the terminal, or in front of a pipe: is asked there, is told, and sees progress."""

    aloud = True

    def __init__(self, *, no_prompt: bool = False) -> None:
        self._no_prompt = no_prompt

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask, who did not forbid it."""
        return not self._no_prompt and on_terminal()

    def asker(self, session: Session, answers: Answers) -> Policy:
        """The prompt."""
        from theta.cli.prompting import Prompt

        return Prompt(session, answers).decide

    def recalled(self, answer: Answer) -> None:
        """Tell that an answer is used again."""
        console.note(f"{answer.conflict.name}: {answer.strategy}, as answered before")

    def progress(self, what: str) -> AbstractContextManager[Progress | None]:
        """A progress line."""
        return console.progress(what)

    def heard(self, said: Said) -> None:
        """Pass on what git said."""
        for line in said.out:
            console.note(line)
        for line in said.err:
            console.err(line)

    def settled(self, settlement: Settlement) -> None:
        """Tell what was settled and what stays in conflict."""
        from theta.cli import conflicts

        conflicts.told(settlement)


def on_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()
