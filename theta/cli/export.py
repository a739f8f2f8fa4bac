"""``theta export``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.errors import UsageError
from theta.porcelain.tensors import converting, sources
from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def export(
    name: str = typer.Argument(..., metavar="REV:PATH[#GLOB]"),
    out: str = typer.Option(
        ..., "--output", "-o", metavar="FILE", help="The file to write; its suffix chooses the format."
    ),
    shard_size: str = typer.Option(
        "",
        "--max-shard-size",
        metavar="SIZE",
        help="Write shards of at most this size, such as 500MB or 5GB.",
    ),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite an existing file."),
    as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> int:
    """Write a committed checkpoint, or those of its tensors that match GLOB, to a file.

    With the suffix that it was committed under, the file is that very file, byte for byte; with
    another (.safetensors, .npz, .pt, .gguf) its tensors are written anew.
    """
    named = sources.parse(name, Path.cwd())
    if named.revision is None:
        raise UsageError(f"{name} is not REV:PATH", hint="'theta convert' takes files")
    target = Path.cwd() / out
    limit = sources.parse_size(shard_size) if shard_size else 0
    with terminal.progress("exporting") as progress:
        if not (named.glob or limit) and Path(named.path).suffix == target.suffix:
            session = Session.here(".")
            manifest = sources.manifest_or_none(session, named.revision, named.path)
            if manifest is not None:
                sources.copy_exactly(session, manifest, target, force=force, progress=progress)
                if as_json:
                    size = sum(line.nbytes for line in manifest.lines)
                    reports.files("export", [target], len(manifest.lines), size)
                    return 0
                console.note(f"{out}: {len(manifest.lines)} tensors, byte for byte as committed")
                return 0
        with sources.opened(named, Path.cwd()) as model:
            places = converting.write(model, target, shard_size=limit, force=force, progress=progress)
            count, size = len(model.values), sum(value.nbytes for value in model.values.values())
    if as_json:
        reports.files("export", places, count, size)
        return 0
    console.note(f"{count} tensors: {', '.join(place.name for place in places)}")
    return 0
