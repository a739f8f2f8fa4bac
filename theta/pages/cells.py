"""Tables for the cells of notebooks: plain HTML without any script or style of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final, TypeVar

from theta.pages import safe_text

Item = TypeVar("Item")

SHOWN: Final = 60
"""Rows that a table has; a cell is no page."""


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; what it shows is text, whatever it holds."""
    found = list(rows)
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in found[:SHOWN])
    more = f"<p>and {len(found) - SHOWN} more</p>" if len(found) > SHOWN else ""
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><b>{_text(title)}</b></p>{whole}{more}"


class ShownList(list[Item]):
    """A list that a notebook shows by ``draw``."""

    def __init__(self, items: Iterable[Item], draw: Callable[[Sequence[Item]], str]) -> None:
        super().__init__(items)
        self._draw = draw

    def _repr_html_(self) -> str:
        return self._draw(self)


def _text(value: object) -> str:
    return escape(str(safe_text.safe(str(value))))
