"""``theta fsck``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import ExitCode
from theta.lazy import Module
from theta.porcelain.look import checking
from theta.porcelain.workspace import agreement, coverage
from theta.store.changes import counted

if TYPE_CHECKING:
    from theta.porcelain.care import repairing
    from theta.porcelain.workspace.session import Session
else:
    repairing = Module("theta.porcelain.care.repairing")

app = typer.Typer(add_completion=False)

_BY_GIT: Final = ("fsck", "--full", "--strict", "--no-dangling", "--no-progress")


@app.command(context_settings=HELP)
def fsck(
    read_data: bool = typer.Option(False, "--read-data", help="Decode every chunk and check its digest."),
    mend: bool = typer.Option(False, "--mend", help="Rebuild .theta/ from the manifests."),
    repair_from: str | None = typer.Option(
        None, "--repair-from", metavar="REMOTE", help="Replace damaged objects by those of a remote."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the problems as JSON."),
) -> int:
    """Check the repository: git's objects, then every checkpoint of every commit.

    With --repair-from, packs and objects that cannot be read are put aside in .git/theta/bad, and all that
    the remote has is fetched anew before the check.
    """
    session, more = open_session(worktree=False), {}
    if repair_from is not None:
        with terminal.progress("fetching") as progress:
            done = repairing.repair(session, repair_from, progress)
        more = {"repaired": {"aside": [str(file) for file in done.aside], "packs": done.packs}}
        if not as_json:
            aside = f"{counted(len(done.aside), 'file')} put aside in {session.repo.shared / repairing.BAD}"
            console.note(aside if done.aside else "nothing is damaged")
            console.note(f"{counted(done.packs, 'pack')} came from {repair_from}")
        session = open_session(worktree=False)
    if mend:
        with session.change():
            for line in agreement.settle(session, on_purpose=True):
                console.note(line)
        session = open_session(worktree=False)
    owed = checking.Owed()
    if as_json:
        return _as_json(session, owed, more, read_data=read_data)
    bad = session.repo.git().show(*_BY_GIT)
    for line in checking.problems(session, owed, read_data=read_data):
        console.out(line)
        bad = bad or 1
    if owed:
        console.note(str(owed))
    if plain := _plain(session):
        console.note(coverage.plain_line(session, plain))
    if bad:
        console.err("error: the repository has problems")
        return int(ExitCode.CORRUPT)
    console.note("no problems found")
    return 0


def _plain(session: Session) -> list[str]:
    """Return the tracked files that are here as plain bytes; a bare repository has no files."""
    return [] if session.repo.is_bare else coverage.plain(session)


def _as_json(session: Session, owed: checking.Owed, more: Mapping[str, object], *, read_data: bool) -> int:
    """Print what git and theta find, and what is not checked because it is not here."""
    done = session.repo.git().run(*_BY_GIT, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace").splitlines()
    found = list(checking.problems(session, owed, read_data=read_data))
    told = {"git": said if done.code else [], "problems": found, "not_here": asdict(owed)}
    told["plain"] = _plain(session)
    reports.as_json("fsck", {**told, **more})
    return int(ExitCode.CORRUPT) if done.code or found else 0
