"""``theta status`` at length: sections as git prints them, with what changed by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.look.overview import Report, Row
    from theta.store import changes
    from theta.store.changes import Changes
else:
    changes = Module("theta.store.changes")

_TENSORS: Final = 20
"""Tensors in conflict that are listed of one checkpoint."""
_UNMERGED: Final = {
    "DD": "both deleted",
    "AU": "added by us",
    "UD": "deleted by them",
    "UA": "added by them",
    "DU": "deleted by us",
    "AA": "both added",
    "UU": "both modified",
}
_STAGED: Final = {
    "M": "modified",
    "A": "new file",
    "D": "deleted",
    "R": "renamed",
    "C": "copied",
    "T": "typechange",
}


def told_at_length(
    report: Report, head: Sequence[str], untracked: Sequence[str], seen: Callable[[str], str]
) -> None:
    """Print the state in sections, as git does; ``untracked`` are the lines of that section.

    ``head`` are git's lines where an operation is in progress, and ``seen`` spells paths, which are from
    the root of the worktree.
    """
    if head:
        console.out(*head, "")
    else:
        _branch(report)
    rows = report.rows
    unmerged = [row for row in rows if row.unmerged]
    normal = [row for row in rows if not row.unmerged and row.index not in "?!"]
    _section(
        "Changes to be committed",
        "theta restore --staged <file>... to unstage",
        [_line(_STAGED[row.index], row, report.staged, seen) for row in normal if row.index in _STAGED],
        "added",
    )
    _section(
        "Unmerged paths",
        "theta resolve settles checkpoints; 'theta add <file>...' marks a file as settled",
        [line for row in unmerged for line in _unmerged(row, report, seen(row.path))],
        "unmerged",
    )
    _section(
        "Changes not staged for commit",
        "theta add <file>... to update what will be committed",
        [
            _line(_STAGED[row.worktree], row, report.unstaged, seen)
            for row in normal
            if row.worktree in _STAGED
        ],
        "changed",
    )
    _section(
        "Untracked files",
        "theta add <file>... to include in what will be committed",
        untracked,
        "untracked",
    )


def _unmerged(row: Row, report: Report, path: str) -> list[str]:
    """Return lines on what both sides did to a path, and to which tensors of a checkpoint."""
    from theta.cli.conflicts import kind

    words = _UNMERGED.get(row.index + row.worktree, "both modified")
    found = report.conflicts.get(row.path)
    if found is None:
        return [f"{words + ':':<17}{path}"]
    if not found:
        return [f"{words + ':':<17}{path}  (no tensor in conflict)"]
    more = [f"  ... and {len(found) - _TENSORS} more"] if len(found) > _TENSORS else []
    rows = [f"  {conflict.name}: {kind(conflict)}" for conflict in found[:_TENSORS]]
    return [f"{words + ':':<17}{path}  ({len(found)} in conflict)", *rows, *more]


def _branch(report: Report) -> None:
    head = report.branch.get("branch.head", "")
    palette = console.palette("status")
    named = palette.paint("header", "On branch ") + palette.paint("branch", head)
    detached = head == "(detached)"
    console.out(palette.paint("nobranch", "HEAD detached") if detached else named, painted=True)
    if report.branch.get("branch.oid") == "(initial)":
        console.out("", "No commits yet", "")
    if "branch.ab" in report.branch:
        ahead, behind = (int(part[1:]) for part in report.branch["branch.ab"].split())
        upstream = report.branch.get("branch.upstream", "")
        console.out(*_upstream(upstream, ahead, behind))


def _upstream(name: str, ahead: int, behind: int) -> list[str]:
    """Return in git's words, line by line, how the branch compares with its upstream."""
    if ahead and behind:
        numbers = f"and have {ahead} and {behind} different commits each, respectively."
        return [f"Your branch and '{name}' have diverged,", numbers]
    if ahead:
        return [f"Your branch is ahead of '{name}' by {changes.counted(ahead, 'commit')}."]
    if behind:
        return [f"Your branch is behind '{name}' by {changes.counted(behind, 'commit')}."]
    return [f"Your branch is up to date with '{name}'."]


def _line(word: str, row: Row, details: dict[str, Changes], seen: Callable[[str], str]) -> str:
    arrow = f"{seen(row.old_path)} -> " if row.old_path else ""
    told = (
        details[row.path].summary().removeprefix("new, ").removeprefix("deleted, ")
        if row.path in details
        else ""
    )
    detail = f"  ({told})" if told else ""
    return f"{word + ':':<12}{arrow}{seen(row.path)}{detail}"


def _section(title: str, hint: str, lines: Sequence[str], slot: str) -> None:
    if lines:
        palette = console.palette("status")
        console.out(*(palette.paint("header", line) for line in (f"{title}:", f"  ({hint})")), painted=True)
        console.out(*("\t" + palette.paint(slot, line) for line in lines), "", painted=True)
