"""``theta bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console, handing, invoking, pull, reports
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.errors import UsageError
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    import typer

    from theta.porcelain.share import bundles
else:
    typer = Module("typer")
    bundles = Module("theta.porcelain.share.bundles")

app = Passing(("--json",))
_USAGE: Final = "theta bundle create FILE RANGE, or theta bundle apply FILE [REF]"


@app.command
def bundle(
    given: Given,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written, or brought in, as JSON.")
    ] = False,
) -> int:
    """Write commits to one small file, for a mail or an issue, or bring in such a file.

    'create FILE RANGE' writes the commits of RANGE (main~2..main, or a branch) without what their parents
    have, and tells the size beside that of the model. 'apply FILE [REF]' checks that the parents are here,
    and merges. Options, and other words (verify, list-heads, unbundle), are git's.
    """
    word, *rest = given.args or [""]
    if word in ("create", "apply") and rest in (["--help"], ["-h"]):
        return invoking.invoke("bundle", __name__, rest)
    if word not in ("create", "apply") or any(arg.startswith("-") for arg in rest):
        if as_json:
            raise UsageError("--json is for create and apply", hint=_USAGE)
        return handing.hand_over(["bundle", *given.args])
    if not rest:
        raise UsageError("no file is named", hint=_USAGE)
    file = Path(rest[0])
    return _create(file, rest[1:], as_json) if word == "create" else _apply(file, rest[1:], as_json)


def _create(file: Path, revisions: list[str], as_json: bool) -> int:
    if not revisions:
        raise UsageError("no commits are named", hint=_USAGE)
    made = bundles.create(open_session(worktree=False), file, revisions)
    if as_json:
        body = {"path": str(file), "bytes": made.size, "model_bytes": made.models, "heads": made.heads}
        reports.as_json("bundle", body)
        return 0
    model = f"; the checkpoints are {human(made.models)}" if made.models else ""
    console.note(f"{file}: {human(made.size)}{model}")
    return 0


def _apply(file: Path, refs: list[str], as_json: bool) -> int:
    if len(refs) > 1:
        raise UsageError("one ref at a time", hint=_USAGE)
    session = open_session()
    ref = bundles.read(session, file).head(refs[0] if refs else None)
    bundles.check(session, file)
    return pull.pull(Given("pull", ["--no-rebase", "--no-edit", "--", str(file.absolute()), ref]), as_json)
