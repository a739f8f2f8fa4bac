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
from theta.git.quoting import split_lines
from theta.lazy import Module
from theta.porcelain.look import checking
from theta.porcelain.workspace import agreement, coverage
from theta.store.changes import counted

if TYPE_CHECKING:
    from theta.git.run import Result
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
    found = _by_git(session)
    for line in _lines(found.stdout):
        console.out(line)
    console.err(*_lines(found.stderr))
    bad = found.code
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


def _by_git(session: Session) -> Result:
    """Return what git finds, asked again if that is something.

    It lists packs as it begins: what the index names since, as by a ``git add``, it takes for missing.
    """
    git = session.repo.git()
    done = git.run(*_BY_GIT, check=False)
    return git.run(*_BY_GIT, check=False) if done.code else done


def _lines(said: bytes) -> list[str]:
    return split_lines(said.decode("utf-8", "backslashreplace"))


def _plain(session: Session) -> list[str]:
    """Return the tracked files that are here as plain bytes; a bare repository has no files."""
    return [] if session.repo.is_bare else coverage.plain(session)


def _as_json(session: Session, owed: checking.Owed, more: Mapping[str, object], *, read_data: bool) -> int:
    """Print what git and theta find, and what is not checked because it is not here."""
    done = _by_git(session)
    said = _lines(done.stdout + done.stderr)
    found = list(checking.problems(session, owed, read_data=read_data))
    told = {"git": said if done.code else [], "problems": found, "not_here": asdict(owed)}
    told["plain"] = _plain(session)
    reports.as_json("fsck", {**told, **more})
    return int(ExitCode.CORRUPT) if done.code or found else 0
