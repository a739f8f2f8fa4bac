"""The first lines of ``theta status``, in git's words: the branch and how far it is from its upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.cli import console
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.look.overview import Report
    from theta.store import changes
else:
    changes = Module("theta.store.changes")


def branch(report: Report) -> None:
    """Print what is checked out."""
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
