"""What every command says of checkpoints in conflict, and of those it settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import console

if TYPE_CHECKING:
    from theta.merging.states import Conflict
    from theta.porcelain.joining import Merged
    from theta.porcelain.merging import Joined
    from theta.porcelain.session import Session

SHOWN: Final = 40


def report(merged: Merged) -> None:
    """One line for each checkpoint that was settled."""
    from theta.merging.containers import CONTAINER

    for path, manifest in merged.resolved.items():
        decided = {name: by for name, by in merged.decided.get(path, {}).items() if name != CONTAINER}
        how = ", ".join(sorted(set(decided.values())))
        tail = f", {len(decided)} of them by {how}" if decided else ""
        console.note(f"{path}: merged {len(manifest.lines)} tensors{tail}")
    for path in merged.removed:
        console.note(f"{path}: removed")


def show(path: str, conflicts: Sequence[Conflict]) -> None:
    """A table of the tensors of ``path`` in conflict."""
    from rich.markup import escape
    from rich.table import Table

    title = f"{path}: {len(conflicts)} in conflict"
    table = Table(title=escape(title), box=None, title_justify="left", pad_edge=False)
    for name in ("tensor", "what both sides did", "shape", "dtype"):
        table.add_column(name)
    for conflict in conflicts[:SHOWN]:
        side = conflict.ours or conflict.theirs
        shape = console.shape_text(side.shape) if side else ""
        table.add_row(escape(conflict.name), kind(conflict), shape, side.dtype if side else "")
    console.show(table)
    if len(conflicts) > SHOWN:
        console.out(f"... and {len(conflicts) - SHOWN} more")


def kind(conflict: Conflict) -> str:
    """What both sides did, in words."""
    from theta.porcelain.joining import FILE

    if conflict.name == FILE:
        return "one side has no such file"
    if conflict.ours is None and conflict.theirs is None:
        return "header or metadata changed"
    together = "; codes and scales: one side for all" if conflict.coded else ""
    return conflict.kind.value + together


def told(session: Session, merged: Merged) -> bool:
    """Tell what was settled and what stays in conflict; answers whether anything does."""
    from theta.porcelain import operations, resolving

    report(merged)
    unmerged = resolving.unmerged(session)
    if unmerged:
        left(merged, unmerged, operations.current(session.repo).go_on)
    return bool(unmerged)


def left(merged: Merged, unmerged: Sequence[str], go_on: str) -> None:
    """What stays in conflict, and the command that goes on."""
    for path, conflicts in merged.conflicts.items():
        show(path, conflicts)
    for path in unmerged:
        console.out(f"CONFLICT: {path}")
    settle = "hint: settle checkpoints with 'theta resolve -X ours|theirs|base|average'"
    last = f"; then '{go_on}'" if go_on else ""
    console.err(f"{settle}, files with an editor and 'theta add'{last}")


def in_the_way(staged: Sequence[str]) -> int:
    """Say as git does that ``staged`` files would become part of a merge; return its exit code."""
    console.err("error: Your local changes to the following files would be overwritten by merge:")
    for path in staged:
        console.err(f"\t{path}")
    console.err("hint: commit them, or put them aside with 'theta stash'; nothing was merged")
    return 2


def refused(joined: Joined) -> None:
    """Why several branches cannot be joined: index and files are as they were."""
    for path, conflicts in joined.merged.conflicts.items():
        show(path, conflicts)
    for path in [*joined.merged.conflicts, *joined.open_files]:
        console.out(f"CONFLICT: {path}")
    console.err("hint: nothing was changed; decide with -X or --rule, or merge the branches one by one")
