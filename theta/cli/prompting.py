"""Asking for a decision, one tensor at a time or for all that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.errors import ThetaError, UsageError
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, parse

if TYPE_CHECKING:
    from rich.table import Table

    from theta.porcelain.session import Session
    from theta.store.manifest import Line

MENU: Final = {
    "avg": ("average", "average ours and theirs; avg 0.3 gives ours a weight of 0.3"),
    "tu": ("ours", "take ours"),
    "tt": ("theirs", "take theirs"),
    "to": ("base", "take the original, from before both"),
}


class Prompt:
    """Settles conflicts by asking; an answer with ``!`` holds for all that follow."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._for_all: Strategy | None = None

    def decide(self, conflict: Conflict) -> Strategy | None:
        """The user's decision; raises :class:`ThetaError` when the user quits."""
        if self._for_all is not None and self._for_all.applies(conflict):
            return self._for_all
        self._show(conflict)
        while True:
            strategy = self._ask()
            if strategy is not None and strategy.applies(conflict):
                return strategy
            console.out(f"that does not go for a tensor that is {_kind(conflict)}")

    def _ask(self) -> Strategy | None:
        try:
            answer = input("theta> ").strip()
        except EOFError:
            answer = "q"
        if answer in ("q", "quit"):
            raise ThetaError(
                "the merge is stopped; nothing is lost",
                hint="'theta merge --continue' asks again, 'theta merge --abort' gives it up",
            )
        try:
            strategy = read_answer(answer)
        except UsageError as error:
            console.out(str(error))
            return None
        if answer.endswith("!"):
            self._for_all = strategy
        return strategy

    def _show(self, conflict: Conflict) -> None:
        from rich.console import Group
        from rich.markup import escape
        from rich.panel import Panel

        menu = "  ".join(f"[bold]{key}[/] {strategy}" for key, (strategy, _) in MENU.items())
        hint = f"{menu}  [bold]q[/] quit   [dim]add ! for all that follow, avg 0.3 to weigh ours[/]"
        body = Group(_sides(conflict), hint)
        console.show(Panel(body, title=escape(conflict.name), subtitle=_kind(conflict), title_align="left"))


def read_answer(answer: str) -> Strategy:
    """The strategy that an answer names: a key of the menu, or a strategy as for ``-X``."""
    words = answer.removesuffix("!").split()
    if not words:
        raise UsageError("answer avg, tu, tt, to or q")
    name = MENU[words[0]][0] if words[0] in MENU else words[0]
    return parse(f"{name}:alpha={words[1]}" if len(words) > 1 else name)


def _kind(conflict: Conflict) -> str:
    return conflict.kind.value if conflict.ours or conflict.theirs else "changed in header or metadata"


def _sides(conflict: Conflict) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "shape", "dtype", "value"):
        table.add_column(name)
    for label, line in (("original", conflict.base), ("ours", conflict.ours), ("theirs", conflict.theirs)):
        table.add_row(label, *_cells(line))
    return table


def _cells(line: Line | None) -> tuple[str, str, str]:
    if line is None:
        return ("", "", "absent")
    return (console.shape_text(line.shape), line.dtype, line.digest[:12])
