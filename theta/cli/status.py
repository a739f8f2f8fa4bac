"""``theta status``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import open_session
from theta.cli.foreign import quoted

if TYPE_CHECKING:
    from theta.porcelain.status import Report, Row
    from theta.store.changes import Changes

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def status(
    context: typer.Context,
    short: bool = typer.Option(False, "--short", "-s", help="one line a path, as git status --short"),
    porcelain: bool = typer.Option(False, "--porcelain", help="the same for programs"),
    as_json: bool = typer.Option(False, "--json", help="everything as JSON"),
) -> int:
    """Show what changed: files as git shows them, checkpoints by tensor.

    Does not read a checkpoint that did not change since theta last saw it.
    """
    from theta.porcelain import status as state

    session = open_session()
    args = plain(context.args)
    if any(arg.startswith("-") and arg != "--" for arg in args):
        from theta.cli.common import drive

        return drive(session, "status", *(["--short"] if short else []), *args)
    with console.progress("comparing") as progress:
        report = state.report(session, [arg for arg in args if arg != "--"], progress)
    if as_json:
        console.out(json.dumps({"theta.status/v1": _as_json(report)}))
    elif short or porcelain:
        for row in report.rows:
            console.out(_short(row))
    else:
        _long(report)
    return 0


def _short(row: Row) -> str:
    arrow = f"{quoted(row.old_path)} -> " if row.old_path else ""
    return f"{row.index}{row.worktree} {arrow}{quoted(row.path)}"


def _as_json(report: Report) -> dict[str, object]:
    rows = [
        {"path": row.path, "index": row.index, "worktree": row.worktree, "old_path": row.old_path}
        for row in report.rows
    ]
    tensors = {
        kind: {
            path: {"summary": item.summary(), "tensors": [[c.status, c.name] for c in item.tensors]}
            for path, item in found.items()
        }
        for kind, found in (("staged", report.staged), ("unstaged", report.unstaged))
    }
    conflicts = {path: [item.name for item in found] for path, found in report.conflicts.items()}
    return {
        "branch": report.branch,
        "rows": rows,
        "operation": report.operation,
        "conflicts": conflicts,
        **tensors,
    }


def _unmerged(row: Row, report: Report) -> list[str]:
    """What both sides did to a path, and to which tensors of a checkpoint."""
    from theta.cli.conflicts import kind

    words = _UNMERGED.get(row.index + row.worktree, "both modified")
    found = report.conflicts.get(row.path)
    if found is None:
        return [f"{words + ':':<17}{row.path}"]
    if not found:
        return [f"{words + ':':<17}{row.path}  (no tensor in conflict)"]
    more = [f"  ... and {len(found) - _TENSORS} more"] if len(found) > _TENSORS else []
    rows = [f"  {conflict.name}: {kind(conflict)}" for conflict in found[:_TENSORS]]
    return [f"{words + ':':<17}{row.path}  ({len(found)} in conflict)", *rows, *more]


_TENSORS = 20
_UNMERGED = {
    "DD": "both deleted",
    "AU": "added by us",
    "UD": "deleted by them",
    "UA": "added by them",
    "DU": "deleted by us",
    "AA": "both added",
    "UU": "both modified",
}
_STAGED = {"M": "modified", "A": "new file", "D": "deleted", "R": "renamed", "C": "copied", "T": "typechange"}


def _long(report: Report) -> None:
    _branch(report)
    rows = report.rows
    unmerged = [row for row in rows if row.unmerged]
    normal = [row for row in rows if not row.unmerged and row.index not in "?!"]
    if report.operation:
        console.out(f"You are in the middle of a {report.operation}.")
    _section(
        "Changes to be committed",
        "theta restore --staged <file>... to unstage",
        [_line(_STAGED[row.index], row, report.staged) for row in normal if row.index in _STAGED],
    )
    _section(
        "Unmerged paths",
        "theta resolve settles checkpoints; 'theta add <file>...' marks a file as settled",
        [line for row in unmerged for line in _unmerged(row, report)],
    )
    _section(
        "Changes not staged for commit",
        "theta add <file>... to update what will be committed",
        [_line(_STAGED[row.worktree], row, report.unstaged) for row in normal if row.worktree in _STAGED],
    )
    _section(
        "Untracked files",
        "theta add <file>... to include in what will be committed",
        [row.path for row in rows if row.index == "?"],
    )
    _remarks(report)
    if not rows:
        console.out("nothing to commit, working tree clean")


def _branch(report: Report) -> None:
    head = report.branch.get("branch.head", "")
    console.out("HEAD detached" if head == "(detached)" else f"On branch {head}")
    if report.branch.get("branch.oid") == "(initial)":
        console.out("", "No commits yet", "")
    if "branch.ab" in report.branch:
        ahead, behind = (int(part[1:]) for part in report.branch["branch.ab"].split())
        upstream = report.branch.get("branch.upstream", "")
        if ahead or behind:
            console.out(f"{ahead} commit(s) ahead of '{upstream}', {behind} behind")
        else:
            console.out(f"Up to date with '{upstream}'.")


def _line(word: str, row: Row, details: dict[str, Changes]) -> str:
    arrow = f"{row.old_path} -> " if row.old_path else ""
    detail = f"  ({details[row.path].summary()})" if row.path in details else ""
    return f"{word + ':':<12}{arrow}{row.path}{detail}"


def _section(title: str, hint: str, lines: list[str]) -> None:
    if lines:
        console.out(f"{title}:", f"  ({hint})")
        for line in lines:
            console.out(f"\t{line}")
        console.out()


def _remarks(report: Report) -> None:
    from theta.git.lfs import FETCH

    for path in report.unfilled:
        console.out(f"{path} is not filled in here; 'theta restore {path}' completes it")
    for path in report.pointers:
        console.out(f"{path} is a Git LFS pointer, not the file itself; {FETCH}")
    if not report.head_agrees:
        console.out(".theta/ of HEAD does not agree with its manifests; 'theta fsck --mend' mends it")
