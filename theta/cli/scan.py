"""``theta scan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console, reports
from theta.cli.args import HELP
from theta.errors import ExitCode
from theta.porcelain.tensors import scanning
from theta.store.changes import counted

if TYPE_CHECKING:
    from theta.porcelain.tensors.scanning import Scanned

app = typer.Typer(add_completion=False)


@app.command(context_settings={**HELP, "allow_extra_args": True})
def scan(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> int:
    """List what pickles would call, and flag what is dangerous.

    Nothing is loaded to find out. Without names, all files below this folder are scanned. Ends
    with 1 if anything dangerous was found.
    """
    names = context.args
    found = list(scanning.scan(names or ["."], Path.cwd()))
    if as_json:
        reports.as_json("scan", [item.as_json() for item in found])
    else:
        _show(found)
    dangerous = any(item.report.worst() == "dangerous" for item in found)
    return int(ExitCode.DIFFERENCES if dangerous else ExitCode.OK)


def _show(found: list[Scanned]) -> None:
    with_pickles = [item for item in found if item.report.findings or item.report.broken]
    for item in with_pickles:
        console.out(f"{item.name}: {item.report.worst()}")
        for verdict in ("dangerous", "unknown"):
            for one in item.report.findings:
                if one.verdict == verdict:
                    inside = f"  ({_text(one.where)})" if one.where else ""
                    console.out(f"  {verdict:<11}{_text(one.module)}.{_text(one.name)}{inside}")
        for line in item.report.broken:
            console.out(f"  {'unread':<11}{_text(line)}")
    console.note(f"{counted(len(found), 'file')} scanned, {len(with_pickles) or 'none'} with pickles")


def _text(raw: str) -> str:
    """Return ``raw`` on one line and without control characters: it was written by a stranger."""
    return "".join(c if c.isprintable() else "?" for c in raw[:200])
