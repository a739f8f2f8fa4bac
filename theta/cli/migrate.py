"""``theta migrate``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from theta import _fs
from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from theta.porcelain.migration import importing, rewriting
else:
    importing = Module("theta.porcelain.migration.importing")
    rewriting = Module("theta.porcelain.migration.rewriting")

app = typer.Typer(add_completion=False)
_LISTED: Final = 10
_MAP: Final = "Write a line 'OLD NEW' for each commit that was written anew."


@app.command(context_settings=HELP)
def migrate(
    origin: str = typer.Argument(..., metavar="lfs|git-theta|dvc|raw", help="Where the files are now."),
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Globs such as '*.bin'; by default all kinds of checkpoints.")
    ] = None,
    all_history: bool = typer.Option(
        False, "--all-history", help="Write all branches and tags anew, with new commit ids."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", "-n", help="Show what is there, and change nothing."),
    object_map: str = typer.Option("", "--object-map", metavar="FILE", help=_MAP),
    as_json: bool = typer.Option(False, "--json", help="Print files and commits as JSON."),
) -> int:
    """Make checkpoints of files that are pointers of Git LFS, git-theta's, DVC's, or plain blobs.

    Makes one commit, or with --all-history writes every branch and tag anew, as 'git lfs migrate import'
    does; authors, dates and messages stay. Every version is compared byte by byte with what was stored before
    any branch moves. None of the other tools is needed, but all versions must have been fetched.
    """
    if object_map and not all_history:
        raise UsageError("no commit is written anew: --object-map needs --all-history")
    require_map(object_map)
    session = open_session(worktree=False)
    request = importing.MigrateRequest(origin, patterns or [], all_history, dry_run)
    with terminal.fetches() as show:
        done = importing.migrate(session, request, show or importing.silent)
    if object_map and not dry_run:
        write_map(object_map, done.rewritten)
    if as_json:
        reports.as_json("migrate", {**asdict(done), "left": sorted(done.left)})
        return int(dry_run and bool(done.lacking))
    if dry_run:
        _survey(done)
        return int(bool(done.lacking))
    stored = f"{human(done.stored)} stored" + (f" for {human(done.nbytes)}" if done.nbytes else "")
    console.note(f"{_counts(done.files)} from {done.label}: {stored}", *told(done.refs, done.rewritten))
    return 0


def _survey(done: importing.MigrateResult) -> None:
    for path, count in sorted(done.files.items()):
        console.out(f"{path}  {count} version{'s' if count > 1 else ''}")
    for line in done.lacking:
        console.out(f"missing: {line}")
    for path in sorted(done.left)[:_LISTED]:
        console.out(f"stays with {done.label}: {path}")
    size = f", {human(done.nbytes)}" if done.nbytes else ""
    console.out(f"{_counts(done.files)} in {done.commits} commit(s){size}")


def _counts(files: Mapping[str, int]) -> str:
    return f"{len(files)} file(s) with {sum(files.values())} version(s)"


def told(refs: Sequence[str], commits: Mapping[str, str]) -> list[str]:
    """Return lines on what moved, and on where the history before that is."""
    if not commits:
        return [f"committed on {ref}" for ref in refs]
    return [
        f"{len(commits)} commit(s) written anew; {', '.join(sorted(refs))} moved",
        f"the history before is below {rewriting.KEPT}; 'git push --force' publishes the new one",
    ]


def require_map(place: str) -> None:
    """Raise :class:`UsageError` unless the file that ``--object-map`` names can be written."""
    path = Path.cwd() / place
    if place and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise UsageError(f"{place} cannot be written")


def write_map(place: str, commits: Mapping[str, str]) -> None:
    """Write the file that ``--object-map`` names."""
    text = "".join(f"{old} {new}\n" for old, new in commits.items())
    _fs.write_atomic(Path.cwd() / place, text.encode())
