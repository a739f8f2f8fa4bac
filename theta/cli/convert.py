"""``theta convert``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.porcelain.tensors import converting, sources
from theta.units import human

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def convert(
    name: str = typer.Argument(..., metavar="REV:PATH|FILE"),
    out: str = typer.Option(
        ..., "--output", "-o", metavar="FILE", help="The .safetensors, .npz, .pt or .gguf file to write."
    ),
    shard_size: str = typer.Option(
        "",
        "--max-shard-size",
        metavar="SIZE",
        help="Write shards of at most this size, such as 500MB or 5GB.",
    ),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite existing files."),
    as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> int:
    """Write the tensors of a checkpoint in another format; what is not a tensor is left behind.

    A sharded model is named by its index (model.safetensors.index.json). Committing the new file
    costs almost nothing: the values are known.
    """
    limit = sources.parse_size(shard_size) if shard_size else 0
    named = sources.parse(name, Path.cwd())
    with sources.opened(named, Path.cwd()) as model, terminal.progress("converting") as progress:
        places = converting.write(model, Path.cwd() / out, shard_size=limit, force=force, progress=progress)
        size = sum(value.nbytes for value in model.values.values())
    if as_json:
        reports.files("convert", places, len(model.values), size)
        return 0
    console.note(f"{len(model.values)} tensors, {human(size)}: {', '.join(p.name for p in places)}")
    return 0
