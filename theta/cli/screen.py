"""The terminal as rich draws on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from theta.cli import console
from theta.git.display.colours import Palette
from theta.git.quoting import visible, visible_lines

_USUAL: Final = 80
_THEME: Final = Theme(
    {"markdown.code": "bold", "markdown.h1": "bold", "markdown.h2": "bold underline", "markdown.h3": "bold"}
)
_WHOLE: Final = 10_000
"""A width that no table has."""


def show(renderable: Any, palette: Palette | None = None) -> None:
    """Print a rich table or panel on standard output, in colours where ``palette`` has any.

    Columns of a table that have nothing in any row are left out.
    """
    if isinstance(renderable, Table) and renderable.row_count:
        kept = (column for column in renderable.columns if any(map(str, column.cells)))
        renderable.columns = [replace(column, _index=index) for index, column in enumerate(kept)]
    console.clear_line()
    console.flush()
    with console.writing():
        in_colours = (palette or console.palette()).on
        rich_console(in_colours=in_colours, whole=not console.on_screen()).print(renderable)


class Screen(Console):
    """A console that shows only the styling that theta itself asks for.

    Strings are made safe before they are laid out, so that columns fit; whatever reaches the screen
    otherwise is made safe then.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Render the string ``text``, which may hold markup."""
        return super().render_str(visible_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments to write for ``renderable``."""
        for segment in super().render(renderable, options):
            safe = segment.text if segment.control else visible_lines(segment.text)
            yield segment if safe == segment.text else Segment(safe, segment.style)


def rich_console(*, in_colours: bool, whole: bool = False) -> Console:
    """Return a console of rich.

    ``whole``: what is printed is for a file or a program: tables are as wide as they have to be, unless
    ``COLUMNS`` says otherwise.
    """
    return Screen(
        highlight=False,
        soft_wrap=False,
        emoji=False,
        width=shutil.get_terminal_size((_WHOLE if whole else _USUAL, 24)).columns,
        force_terminal=in_colours,
        no_color=not in_colours,
        color_system="truecolor" if in_colours else None,
        theme=_THEME,
    )


def width(*, whole: bool = False) -> int:
    """Return the width of the terminal in columns; 80 where nothing tells it, for ``whole`` no limit."""
    return shutil.get_terminal_size((_WHOLE if whole else _USUAL, 24)).columns


def painted(start: str, text: str) -> Text:
    """Return ``text`` in the colour that the control sequence ``start`` begins."""
    return Text.from_ansi(f"{start}{visible(text)}\x1b[m")


def markup(text: str) -> str:
    """Return ``text`` for a string of rich's markup: shown as it is, brackets and all."""
    return escape(visible(text))
