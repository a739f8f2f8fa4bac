"""The options about tensors in conflict that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

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
