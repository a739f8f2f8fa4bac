"""The terminal as rich draws on it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from theta.git.quoting import visible, visible_lines


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


def rich_console(colour: str, *, on_screen: bool) -> Console:
    """Return a console of rich; ``colour`` auto: only on a terminal, never with ``NO_COLOR``."""
    width = None if on_screen else int(os.environ.get("COLUMNS", "100"))
    terminal = {"always": True, "never": None}.get(colour)
    return Screen(
        highlight=False,
        soft_wrap=False,
        emoji=False,
        width=width,
        force_terminal=terminal,
        no_color=colour == "never" or None,
    )


def markup(text: str) -> str:
    """Return ``text`` for a string of rich's markup: shown as it is, brackets and all."""
    return escape(visible(text))
