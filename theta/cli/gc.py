"""``theta gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from theta.cli import console, reports, terminal
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    import typer

    from theta.porcelain.care import collecting
else:
    collecting = Module("theta.porcelain.care.collecting")
    typer = Module("typer")

app = Passing(("--dry-run", "--json"))


@app.command
def gc(
    given: Given,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what nothing needs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print bytes as JSON.")] = False,
) -> int:
    """Remove what nothing needs any more, and tell what that freed (git gc's options apply).

    Objects that no branch, tag, run, reflog or index names go once they are two weeks old. With --prune=now
    they go at once, unless another theta is at work; 'git reflog expire --expire=now --all' before it lets go
    of what the reflog remembers. 'theta du' tells what costs most.
    """
    session = open_session(worktree=False)
    if dry_run:
        found = collecting.rehearse(session)
        body, text = (
            {"unreachable": found},
            f"nothing names {human(found)}; what is younger than two weeks stays",
        )
    else:
        with terminal.progress("collecting"):
            done = collecting.collect(session, given.args)
        freed = max(done.before - done.after, 0)
        body, text = (
            {"before": done.before, "after": done.after},
            f"freed {human(freed)}; {human(done.after)} stay",
        )
    if as_json:
        reports.as_json("gc", body)
    else:
        console.note(text)
    return 0
