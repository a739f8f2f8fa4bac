"""Messages about checkpoints in conflict, the same for every command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.git.state_files import MERGE_HEAD
from theta.lazy import Module
from theta.units import shape_text

if TYPE_CHECKING:
    from theta.cli import screen
    from theta.merging.recipes import Recipe
    from theta.merging.states import Conflict
    from theta.porcelain.commands.merge_request import Settlement
else:
    screen = Module("theta.cli.screen")

Figures = Callable[["Conflict"], Sequence[str]]
"""Returns how far both changes of a conflict go, relative to the base, and their cosine."""
SHOWN: Final = 40
_NUMBERS: Final = ("Δ ours", "Δ theirs", "cosine")


def show(path: str, conflicts: Sequence[Conflict], numbers: Figures | None = None) -> None:
    """Print a table of the tensors of ``path`` in conflict, with their ``numbers`` if there are any."""
    from rich.table import Table

    title = f"{console.here(path)}: {len(conflicts)} in conflict"
    table = Table(title=screen.markup(title), box=None, title_justify="left", pad_edge=False)
    for name in ("tensor", "what both sides did", "shape", "dtype", *(_NUMBERS if numbers else ())):
        table.add_column(name, no_wrap=name in _NUMBERS)
    for conflict in conflicts[:SHOWN]:
        sides = [side for side in conflict.changed if side is not None]
        shapes = " | ".join(dict.fromkeys(shape_text(side.shape) for side in sides))
        dtypes = " | ".join(dict.fromkeys(side.dtype for side in sides))
        more = numbers(conflict) if numbers is not None else ()
        table.add_row(screen.markup(conflict.name), kind(conflict), shapes, dtypes, *more)
    screen.show(table)
    if len(conflicts) > SHOWN:
        console.out(f"... and {len(conflicts) - SHOWN} more")


def kind(conflict: Conflict) -> str:
    """Return in words what both sides did."""
    from theta.porcelain.merge.joining import FILE

    if conflict.name == FILE:
        return "one side has no such file"
    if conflict.ours is None and conflict.theirs is None:
        return "header or metadata changed"
    together = "; codes and scales: one side for all" if conflict.coded else ""
    return conflict.kind.value + together


def left(settlement: Settlement) -> None:
    """Tell what stays in conflict and why, and the commands that go on."""
    asked, go_on = settlement.asked, settlement.go_on
    for path, conflicts in settlement.conflicts.items():
        show(path, conflicts)
        _reasons(conflicts, asked)
    for path in settlement.unmerged:
        console.out(f"CONFLICT: {console.here(path)}")
    open_tensors = [conflict for conflicts in settlement.conflicts.values() for conflict in conflicts]
    steps = [f"for checkpoints run {_resolve(open_tensors, asked)}"] if settlement.conflicts else []
    if set(settlement.unmerged) - set(settlement.conflicts):
        steps.append(f"edit {'other ' if steps else ''}files, then 'theta add FILE'")
    steps += [f"then '{go_on}'"] if go_on else []
    console.err(f"hint: {'; '.join(steps)}")


def _reasons(conflicts: Sequence[Conflict], asked: Recipe) -> None:
    """Return why the requested strategy did not settle a tensor."""
    for conflict in [one for one in conflicts if _refuses(one, asked)][:SHOWN]:
        strategy = asked.strategy_for(conflict.name)
        reason = strategy.why_not(conflict) if strategy else ""
        console.out(f"{conflict.name}: {strategy} does not apply: {reason}")


def _refuses(conflict: Conflict, asked: Recipe) -> bool:
    strategy = asked.strategy_for(conflict.name)
    return strategy is not None and not strategy.applies(conflict)


def _resolve(conflicts: Sequence[Conflict], asked: Recipe) -> str:
    """Return the command that settles ``conflicts``: a side is always possible, an average not always."""
    from theta.merging.strategies import Strategy

    refusing = [conflict.name for conflict in conflicts if _refuses(conflict, asked)]
    if asked.default is not None and refusing:
        more = " ..." if len(refusing) > 1 else ""
        return f"'theta resolve -X {asked.default} --rule \"{refusing[0]}=ours|theirs|base\"{more}'"
    average = any(Strategy("average").applies(conflict) for conflict in conflicts)
    return f"'theta resolve -X {'ours|theirs|base|average' if average else 'ours|theirs|base'}'"


def in_the_way(staged: Sequence[str]) -> None:
    """Say as git does that ``staged`` files would become part of a merge."""
    console.err("error: Your local changes to the following files would be overwritten by merge:")
    for path in staged:
        console.err(f"\t{console.here(path)}")
    console.err("hint: commit them, or put them aside with 'theta stash'; nothing was merged")


def not_concluded(left: str) -> None:
    """Say as git does that a merge is unfinished, and what is ``left`` of it."""
    console.err(f"error: You have not concluded your merge ({MERGE_HEAD} exists): {left}.")
    console.err("hint: 'theta merge --continue' concludes it, 'theta merge --abort' gives it up")


def refused(settlement: Settlement) -> None:
    """Tell why several branches cannot be joined: index and files are as they were."""
    for path, conflicts in settlement.conflicts.items():
        show(path, conflicts)
        _reasons(conflicts, settlement.asked)
    for path in settlement.unmerged:
        console.out(f"CONFLICT: {console.here(path)}")
    console.err("hint: nothing was changed; choose with -X or --rule, or merge the branches one at a time")


def tell_next(found: Settlement) -> None:
    """Tell that nothing is in conflict any more, and what concludes the operation."""
    if found.idle:
        console.note("nothing is in conflict")
        return
    tail = f"; conclude with '{found.go_on}'" if found.go_on else ""
    console.note(f"all conflicts are settled and staged{tail}")
    if found.stash:
        console.err("hint: git keeps a stash that conflicted; remove it with 'theta stash drop'")
