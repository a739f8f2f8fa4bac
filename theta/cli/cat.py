"""``theta cat``."""

from __future__ import annotations

from pathlib import Path

import typer

from theta.cli import console, reports
from theta.cli.args import HELP
from theta.porcelain.tensors import catting

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def cat(
    name: str = typer.Argument(..., metavar="REV:PATH#TENSOR"),
    out: str = typer.Option("", "--output", "-o", metavar="FILE", help="Write the values to a .npy file."),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite an existing file."),
    as_json: bool = typer.Option(False, "--json", help="Print all values as JSON."),
) -> int:
    """Print the values of a tensor of any version (the middle of a large one left out), or save them."""
    with catting.opened(name, Path.cwd()) as value:
        if out:
            catting.save(value, Path.cwd() / out, force=force)
        if as_json:
            reports.as_json("cat", catting.plain(value))
        elif out:
            return 0
        else:
            console.out(*catting.text(value).split("\n"))
    return 0
