"""``theta track``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, reports, start
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.commands import patterns as requests
    from theta.porcelain.setup import claims, overriding
else:
    claims = Module("theta.porcelain.setup.claims")
    overriding = Module("theta.porcelain.setup.overriding")
    requests = Module("theta.porcelain.commands.patterns")

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def track(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Patterns of gitattributes, such as '*.safetensors'.")
    ] = None,
    override: Annotated[
        bool, typer.Option("--override", help="Hold against lines of others, such as those of Git LFS.")
    ] = False,
    as_json: bool = typer.Option(False, "--json", help="List the patterns as JSON."),
) -> int:
    """Track files that match PATTERN as checkpoints; without one, list the patterns.

    Writes the .gitattributes in the current folder (patterns are relative to it) and stages it, and
    sets up filter, hooks and sparse patterns in this clone. The name of an existing file or folder
    means just that one, whatever characters it has. Lines of Git LFS for the same pattern are
    replaced. Files that are committed already become checkpoints with the next 'theta add'.

    Other lines may hold for a file: those of a nearer folder, as Hugging Face ships them, and of
    .git/info/attributes. Such files are left to them and told. With --override, theta's line is
    written after them, into their file, and they stay.
    """
    session = open_session()
    if not patterns:
        tracked = requests.listed(session)
        if as_json:
            reports.as_json("track", [str(pattern) for pattern in tracked])
            return 0
        for pattern in tracked:
            console.out(str(pattern))
        if not tracked:
            console.hints(["no pattern is tracked yet; theta track '*.safetensors' tracks one"])
        return 0
    if as_json:
        raise UsageError("--json lists patterns, and takes none")
    start.compile_ahead()
    done = requests.track(session, requests.TrackRequest(patterns, override))
    console.hints(done.hints)
    for name in done.new:
        console.note(f"tracking {name}")
    for line in overriding.told(done.over):
        console.note(line)
    for name in done.unmatched:
        console.note(f"no file matches {name} yet")
    if done.ignored:
        console.warn(_ignored(done.ignored))
    if done.claimed:
        console.warn(claims.told(done.claimed, claims.mend(patterns)))
    for path in done.plain:
        word = session.word(path)
        here = session.place(path)
        console.note(f"{here} is a plain file in git's index; 'theta add {word}' makes it a checkpoint")
    return 0


def _ignored(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"{paths[0]}{more} would match, but .gitignore excludes it: git and theta leave ignored files out"
        f" ('theta add -f' takes one)"
    )
