"""``theta cascade``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, failures, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.git.run import about, shell
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.lineage import cascading
    from theta.porcelain.lineage.cascading import Cascaded
else:
    cascading = Module("theta.porcelain.lineage.cascading")

app = typer.Typer(add_completion=False)

_SHOWN = 5


@app.command(context_settings=HELP)
def cascade(
    bases: Annotated[str, typer.Argument(metavar="OLD..NEW", help="The old base and the new one.")],
    branches: Annotated[list[str], typer.Argument(metavar="BRANCH...", help="The fine-tunes to renew.")],
    strategy: str = typer.Option(
        "task_arithmetic", "-X", "--strategy-option", help="How to compute what base and branch both changed."
    ),
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="GLOB=STRATEGY for matching tensor names.")
    ] = None,
    command: str = typer.Option(
        "", "--exec", metavar="CMD", help="Test each result in the folder {}; a branch that fails it stays."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", "-n", help="Show what would be computed; move nothing."),
    unrelated: bool = typer.Option(
        False, "--allow-unrelated", help="NEW need not descend from OLD: it was imported without its history."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what became of each branch as JSON."),
) -> int:
    """Put a new base under the fine-tunes of the old one.

    Each branch, which has to contain OLD, gets a merge of NEW in which its own update, the difference to OLD,
    is applied to NEW: what the branch did not change becomes the new base. A branch in conflict stays as it
    is, and so does one whose test fails; the exit code is 1 then.
    """
    old, dots, new = bases.partition("..")
    if not dots or not old or not new or new.startswith("."):
        raise UsageError(
            f"a cascade goes from one base to another, not {bases}", hint="theta cascade v1..v2 chat"
        )
    session = open_session(worktree=False)
    request = cascading.CascadeRequest(old, new, branches, strategy, rule or (), dry_run, unrelated)

    def test(folder: Path) -> bool:
        return not shell(*about(command, folder), lambda: False)

    with reports.apart(as_json), terminal.progress("merging") as progress:
        found = cascading.cascade(session, request, test if command else None, _tell, progress)
    if as_json:
        reports.as_json("cascade", [_plain(one) for one in found])
    for one in found:
        if one.error is not None:
            return int(one.error.exit_code)
    good = (cascading.CascadeEnding.MOVED, cascading.CascadeEnding.CURRENT, cascading.CascadeEnding.REHEARSED)
    return int(any(one.ending not in good for one in found))


def _plain(one: Cascaded) -> dict[str, object]:
    """Return what became of a branch as plain data."""
    decided = {path: dict(tensors) for path, tensors in one.decided.items()}
    ends = {"branch": one.branch, "ending": one.ending.value, "commit": one.commit, "decided": decided}
    return {**ends, "conflicts": list(one.conflicts), "error": str(one.error) if one.error else None}


def _tell(one: Cascaded) -> None:
    """Tell what became of a branch."""
    computed = sum(map(len, one.decided.values()))
    tail = f" to {one.commit[:10]}" if one.ending is cascading.CascadeEnding.MOVED else ""
    count = f", {computed} tensors computed" if computed and not one.conflicts else ""
    console.out(f"{one.branch}: {one.ending.value}{tail}{count}")
    if one.error is not None:
        failures.error(one.error)
    for place in one.conflicts[:_SHOWN]:
        console.out(f"  {place}")
    if len(one.conflicts) > _SHOWN:
        console.out(f"  ... and {len(one.conflicts) - _SHOWN} more")
    if one.conflicts:
        console.err("hint: --rule settles single tensors; merge the branch by hand otherwise")
