"""The panels that the prompt shows of a tensor in conflict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from theta.cli.conflicts import kind
from theta.errors import ThetaError
from theta.lazy import Module
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, describe, names
from theta.units import shape_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.panel import Panel
    from rich.table import Table

    from theta.cli import screen
    from theta.merging.measures import Measures
    from theta.store.format.manifest import Line
    from theta.store.odb.objects import Objects
else:
    screen = Module("theta.cli.screen")

KEYS: Final = (
    ("avg", "average"),
    ("tu", "us"),
    ("tt", "theirs"),
    ("to", "original"),
    ("u", "undo"),
    ("q", "quit"),
    ("?", "help"),
)
_SPREAD: Final = (
    "[dim]Add [/]![dim] to apply to all remaining tensors, or [/]@GLOB[dim] for matching names.[/]"
)
WIDTH: Final = 100
_NAMED_BY_KEYS: Final = {"ours", "theirs", "base", "average"}


def panel(objects: Objects, conflict: Conflict, place: str) -> Panel:
    """Lay out the sides of ``conflict``, how they compare, and the menu; ``place`` is "2 of 9"."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    from theta.merging import measures

    found = measures.compare(objects, conflict)
    rows: list[RenderableType] = [_sides(conflict, found)]
    if found is not None:
        rows.append(Text.from_markup(_relation(found)))
    more = ", ".join(_others(conflict))
    if more:
        rows.append(Text.from_markup(f"[dim]or by name: {screen.markup(more)}[/]"))
    menu = "  ".join(f"[bold cyan]{key}[/] {text}" for key, text in KEYS)
    rows += [Text.from_markup(menu), Text.from_markup(_SPREAD)]
    title = f"[bold]{screen.markup(conflict.name)}[/]" + (f"  [dim]{place}[/]" if place else "")
    return Panel(
        Group(*rows),
        title=title,
        subtitle=kind(conflict),
        title_align="left",
        border_style="cyan",
        width=WIDTH,
    )


def strategies(conflict: Conflict, wanted: Sequence[str] = ()) -> Table:
    """Return a table of strategies (``wanted`` or all) and why some do not apply to ``conflict``."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("strategy", "what it does", "parameters"):
        table.add_column(name)
    for name in wanted or names():
        try:
            info, reason = describe(name), Strategy(name).why_not(conflict)
        except ThetaError as error:  # a plug-in that cannot be loaded
            table.add_row(screen.markup(name), screen.markup(str(error)), "", style="dim")
            continue
        told = info.summary if reason is None else f"{info.summary} (not here: {reason})"
        given = ", ".join(parameter.name for parameter in info.parameters)
        table.add_row(
            screen.markup(name), screen.markup(told), screen.markup(given), style="dim" if reason else ""
        )
    return table


def _others(conflict: Conflict) -> list[str]:
    return [name for name in names() if name not in _NAMED_BY_KEYS and _applies(name, conflict)]


def _applies(name: str, conflict: Conflict) -> bool:
    try:
        return Strategy(name).applies(conflict)
    except ThetaError:  # ? names a plug-in that cannot be loaded
        return False


def _sides(conflict: Conflict, found: Measures | None) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "shape", "dtype", "value", "‖·‖", "of ‖original‖"):
        table.add_column(name, justify="right" if name.startswith(("‖", "of")) else "left")
    norms = [("", "")] * 3
    if found is not None:
        norms = [
            (_number(found.base_norm), ""),
            (f"Δ {_number(found.ours_norm)}", _share(found.ours_relative)),
            (f"Δ {_number(found.theirs_norm)}", _share(found.theirs_relative)),
        ]
    sides = [("original", conflict.base), ("ours", conflict.ours), ("theirs", conflict.theirs)]
    for (label, line), norm in zip(sides, norms, strict=True):
        table.add_row(label, *_cells(line), *norm)
    return table


def _cells(line: Line | None) -> tuple[str, str, str]:
    if line is None:
        return ("", "", "absent")
    return (shape_text(line.shape), line.dtype, line.digest[:12])


def _relation(found: Measures) -> str:
    cosine = "" if found.cosine is None else f"cosine [bold]{found.cosine:+.3f}[/]   "
    signs = "" if found.sign_agreement is None else f"equal signs [bold]{found.sign_agreement:.0%}[/]   "
    overlap = "" if found.overlap is None else f"changed by both [bold]{found.overlap:.0%}[/]"
    return f"{cosine}{signs}{overlap}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
