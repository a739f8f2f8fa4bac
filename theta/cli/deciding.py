"""How tensors in conflict are to be decided: the options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.errors import NotFoundError

if TYPE_CHECKING:
    from theta.merging.recipe_files import RecipeFile
    from theta.porcelain.commands.merge_request import TensorOptions

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
    """Return the options for tensors in conflict; raises :class:`NotFoundError` for a missing recipe."""
    from theta.porcelain.commands.merge_request import TensorOptions

    file = read_recipe(recipe)
    return TensorOptions(strategies or (), rules or (), file, scope, seed, allow_nan, statistics or ())


def read_recipe(place: str | None) -> RecipeFile | None:
    """Read the recipe file at ``place``; raises :class:`NotFoundError` and :class:`UsageError`."""
    if place is None:
        return None
    from theta.merging.recipe_files import load

    try:
        data = Path(place).read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read the recipe {place}: {error.strerror}") from error
    return load(data, place)
