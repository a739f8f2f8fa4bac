"""The options about tensors in conflict that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console
from theta.errors import NotFoundError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.merging import recipe_files
    from theta.merging.recipe_files import RecipeFile
else:
    recipe_files = Module("theta.merging.recipe_files")

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
Scope = Annotated[
    str | None,
    typer.Option("--scope", help="conflicts (default), or all: also compute what only one side changed."),
]
Seed = Annotated[str | None, typer.Option("--seed", help="Random seed (default 0).")]
JsonWanted = Annotated[
    bool, typer.Option("--json", help="Print what became of HEAD, or --dry-run's result, as JSON.")
]
MoveWanted = Annotated[bool, typer.Option("--json", help="Print what became of HEAD as JSON.")]
Replay = Annotated[
    str | None,
    typer.Option(
        "--replay",
        metavar="COMMIT",
        help="Repeat the merge COMMIT as its trailers record it, and compare the results.",
    ),
]
PageFile = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="With --dry-run: draw it on a page of its own.")
]
MarkdownWanted = Annotated[
    bool, typer.Option("--md", help="With --dry-run: print it as Markdown, for a review.")
]
AllowNan = Annotated[
    bool, typer.Option("--allow-nan", help="Allow results with NaN or infinity that no input had.")
]
Statistics = Annotated[
    list[str] | None,
    typer.Option("--statistics", help="Statistics file for fisher, regmean, smear, one per side (REV:PATH)."),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="Dtype of the floats of merged checkpoints: bf16, f16, f32, f64."),
]
Align = Annotated[
    str | None,
    typer.Option(
        "--align",
        metavar="WAY",
        help="First put the units of theirs in the order of ours: weights, transport or orthogonal.",
    ),
]
AlignSpec = Annotated[
    str | None,
    typer.Option("--align-spec", metavar="FILE", help="What axes are over the same units: TOML or JSON."),
]
NoPrompt = Annotated[bool, typer.Option("--no-prompt", help="Do not ask; leave conflicts open.")]


def recipe_file(place: str) -> RecipeFile:
    """Read the recipe file at ``place``, and tell which of its keys have no effect."""
    found = recipe_files.read(place)
    for note in found.notes:
        console.warn(note)
    return found


def spec_file(place: str) -> str:
    """Return the text of the file at ``place``."""
    try:
        return Path(place).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(f"cannot read the specification {place}: {error}") from error
