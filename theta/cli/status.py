"""``theta status``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import NO_NOTICE, open_session, uses_theta

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.look.overview import Report, Row
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Changes

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def status(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> int:
    """Show what changed: files as git shows them, checkpoints by tensor (git status's options apply).

    Does not read a checkpoint that did not change since theta last saw it.
    """
    from theta.porcelain.look import overview as state

    session = open_session()
    asked = of_git(context)
    if not as_json and not (uses_theta(session) and asked.known and _is_ours(asked)):
        return _by_git(session, asked)
    with console.progress("comparing") as progress:
        report = state.report(session, asked.words, progress)
    if as_json:
        console.out(json.dumps({"theta.status/v1": _as_json(report)}))
    elif asked.options:
        _rows(session, report, relative=asked.has("--short"))
    else:
        _long(report)
    return 0


def _is_ours(asked: Arguments) -> bool:
    if asked.only("--porcelain"):
        return asked.value("--porcelain") in (None, "1", "v1")
    return asked.only("--short")


def _by_git(session: Session, asked: Arguments) -> int:
    """What git says, without the files below ``.theta/`` and what it says of sparse checkouts."""
    from theta.porcelain.look.history import HIDE
    from theta.porcelain.workspace import agreement

    git = session.repo.git(extra={}).in_directory(Path.cwd())
    if not asked.known or not uses_theta(session):
        return git.show("status", *asked.given)
    agreement.refresh(session)
    return git.show(*NO_NOTICE, "status", *asked.flags, "--", *(asked.words or [":(top)"]), HIDE)


def _rows(session: Session, report: Report, *, relative: bool) -> None:
    """The rows of git status --short or --porcelain: the same letters, order and quotes."""
    from theta.git.quoting import quoted

    octal = session.repo.setting("core.quotePath")
    root = os.path.realpath(session.repo.worktree)
    start = os.path.relpath(os.path.realpath("."), root)
    relative = relative and session.repo.setting("status.relativePaths")
    for row in report.rows:
        names = [name for name in (row.old_path, row.path) if name]
        if relative:
            names = [os.path.relpath(name, start) + "/" * name.endswith("/") for name in names]
        text = " -> ".join(quoted(name, blanks=True, octal=octal) for name in names)
        console.out(f"{row.index}{row.worktree} {text}")


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
        console.out(_upstream(upstream, ahead, behind))


def _upstream(name: str, ahead: int, behind: int) -> str:
    """Where the branch stands beside its upstream, in git's words."""
    from theta.store.changes import counted

    if ahead and behind:
        return (
            f"Your branch and '{name}' have diverged,\n"
            f"and have {ahead} and {behind} different commits each, respectively."
        )
    if ahead:
        return f"Your branch is ahead of '{name}' by {counted(ahead, 'commit')}."
    if behind:
        return f"Your branch is behind '{name}' by {counted(behind, 'commit')}."
    return f"Your branch is up to date with '{name}'."


def _line(word: str, row: Row, details: dict[str, Changes]) -> str:
    arrow = f"{row.old_path} -> " if row.old_path else ""
    told = (
        details[row.path].summary().removeprefix("new, ").removeprefix("deleted, ")
        if row.path in details
        else ""
    )
    detail = f"  ({told})" if told else ""
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
        console.out(f"{path} is still a manifest; 'theta restore {path}' writes the checkpoint")
    for path in report.pointers:
        console.out(f"{path} is a Git LFS pointer, not the file itself; {FETCH}")
    if not report.head_agrees:
        console.out("HEAD lacks stored tensors of its checkpoints; 'theta fsck --mend' rebuilds them")
