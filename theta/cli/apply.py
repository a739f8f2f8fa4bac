"""``theta apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, handing, reports, terminal
from theta.cli.args import Given, operands
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    from theta.porcelain.replicas import applying
    from theta.porcelain.replicas.applying import ApplyResult
else:
    applying = Module("theta.porcelain.replicas.applying")

Into = Annotated[str, typer.Option("--into", metavar="FOLDER", help="Bring this folder to REV.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="Write to the files that are there.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files with content that is in no version.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]

app = Passing(("--into=", "--in-place", "--force", "--json"))


@app.command
def apply(
    given: Given,
    into: Into = "",
    in_place: InPlace = False,
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Bring a folder outside of the worktree to version REV, decoding only what differs.

    REV is any name of a commit, a run (r1), or a step of one (r1@500); PATH are globs, files and folders.
    Files that are there are compared by digest: of a tensor that is as it should be nothing is read from the
    repository. Each is replaced when the new one is whole. With --in-place checkpoints are written to where
    they differ; when that is cut short, the next apply completes it. Without --into this is git apply.
    'theta help sync' tells more.
    """
    if not into:
        if in_place or force or as_json:
            raise UsageError("--into names the folder", hint="theta apply REV --into FOLDER")
        return handing.hand_over(["apply", *given.args])
    words = operands(given)
    if not words:
        raise UsageError("a version is wanted", hint="theta apply REV --into FOLDER")
    session = open_session(worktree=False)
    request = applying.ApplyRequest(words[0], Path(into).absolute(), words[1:], in_place, force)
    with terminal.progress("applying") as progress:
        result = applying.apply(session, request, progress)
    if as_json:
        reports.as_json("apply", plain(result))
    else:
        tell(result)
    return 0


def tell(result: ApplyResult) -> None:
    """Tell what was done to each file that was changed."""
    for line in result.notes:
        console.warn(line)
    for one in result.files.values():
        if one.action is not applying.Action.KEPT:
            tensors = f", {len(one.tensors)} tensor(s), {human(one.decoded)} decoded" if one.decoded else ""
            console.note(f"{one.path}: {one.action.value}{tensors}")
    if not result.changed:
        console.note(f"already at {result.commit[:10]}")


def plain(result: ApplyResult) -> dict[str, object]:
    """Return the result as plain data."""
    files = [
        {"path": one.path, "action": one.action.value, "tensors": list(one.tensors), "decoded": one.decoded}
        for one in result.files.values()
    ]
    return {"commit": result.commit, "files": files, "notes": list(result.notes)}
