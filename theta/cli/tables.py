"""The tables of tensors that ``theta diff`` and ``theta show --codecs`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from theta.cli import console, screen, small_map, terminal
from theta.cli.map_marks import ASCII, BLOCKS
from theta.cli.name_folding import FoldedName
from theta.cli.screen import painted
from theta.git.quoting import visible
from theta.porcelain.look import diffing
from theta.units import human, shape_text

if TYPE_CHECKING:
    from rich.text import Text

    from theta.git.display.colours import Palette
    from theta.porcelain.look.adapter_updates import ModuleUpdate
    from theta.porcelain.look.comparison import TensorChanges
    from theta.porcelain.look.describing import Description
    from theta.store.changes import Change


def changes(found: TensorChanges) -> None:
    """Show the tensors of one checkpoint that changed."""
    table, palette = Table(box=None, pad_edge=False, header_style="bold"), console.palette("diff")
    for name in ("", "tensor", "shape", "dtype"):
        table.add_column(name, overflow="fold")
    whole = found.compared.changes
    products = {one.module for one in found.modules}
    for change in found.tensors:
        if diffing.module_of(change.name) not in products:  # a row of both factors together follows
            table.add_row(*_row(change, palette))
    console.out(f"{found.compared.path}: {whole.summary()}")
    if whole.tensors and whole.container:
        console.out("File header or metadata also changed.")
    if table.row_count:
        screen.show(table, palette)
    if found.modules:
        screen.show(modules(found.modules), palette)
    console.out()


def measured(found: TensorChanges) -> None:
    """Show what follows the rows of tensors with numbers: the map in small, adapters, parts compared."""
    palette = console.palette("diff")
    if drawn := _map(found, palette):
        console.out("", "‖Δ‖/‖W‖ by kind and layer:")
        console.out(*drawn, painted=True)
    if found.modules:
        screen.show(modules(found.modules), palette)
    for change in found.tensors:
        numbers = found.numbers.get(change.name)
        if numbers is not None and numbers.compared is not None:
            console.out(f"{change.name}: {diffing.part(change, numbers.compared)} compared")
    console.out()


def _map(found: TensorChanges, palette: Palette) -> list[str]:
    changed = [change.name for change in found.tensors if change.status != "R"]
    values = {name: found.numbers[name].relative if name in found.numbers else None for name in changed}
    marks = BLOCKS if terminal.can_show(BLOCKS.shades + BLOCKS.sparks + BLOCKS.same) else ASCII
    return list(small_map.lines(values, found.same, screen.width(), marks, in_colours=palette.on))


def modules(found: Sequence[ModuleUpdate]) -> Table:
    """Return the table of the updates of an adapter."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("module", overflow="fold")
    scale = "s" if all(one.scaled for one in found) else ""
    of_base = any(one.of_base is not None for one in found)
    headings = ("rank", f"‖{scale}BA‖", f"‖Δ‖/‖{scale}BA‖", "cosine", *(["of ‖W‖"] if of_base else []))
    for name in headings:
        table.add_column(name, no_wrap=True, justify="right")
    for one in found:
        ranks = _then(one.old_rank, one.rank, "d")
        apart = _number(one.relative, ".3%"), _number(one.cosine, ".6f")
        share = (_number(one.of_base, ".3%"),) if of_base else ()
        table.add_row(
            FoldedName(visible(one.module)), ranks, _then(one.old_norm, one.norm, ".4g"), *apart, *share
        )
    return table


def _then(old: float | None, new: float | None, form: str) -> str:
    """Return both numbers, once if they look the same."""
    told = [_number(one, form) for one in (old, new) if one is not None]
    return " → ".join(dict.fromkeys(told))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _row(change: Change, palette: Palette) -> tuple[Text, Text, str, str]:
    sides = [side for side in (change.old, change.new) if side is not None]
    shapes = list(dict.fromkeys(shape_text(side.shape) for side in sides))
    dtypes = list(dict.fromkeys(side.dtype for side in sides))
    name = f"{change.old_name} → {change.name}" if change.old_name else change.name
    shape = " → ".join(shapes)
    letter = painted(palette.of_status(change.status), change.status)
    return letter, FoldedName(visible(name)), shape, " → ".join(dtypes)


def codecs(found: Sequence[Description]) -> None:
    """Show how tensors are stored."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("tensor", "codecs", "raw", "stored", "ratio"):
        words = heading in ("tensor", "codecs")
        table.add_column(heading, overflow="fold", justify="left" if words else "right", no_wrap=not words)
    for item in found:
        sizes = human(item.line.nbytes), human(item.stored), f"{item.ratio:.4f}"
        table.add_row(FoldedName(visible(item.line.name)), item.chain or "-", *sizes)
    raw, stored = sum(item.line.nbytes for item in found), sum(item.stored for item in found)
    total = human(raw), human(stored), f"{stored / max(raw, 1):.4f}"
    table.add_row(f"{len(found)} tensors", "", *total, style="bold")
    screen.show(table)
