"""Numbers as a page and a table show them."""

from __future__ import annotations

from theta.units import human


def told(value: float | None, form: str) -> str:
    """Return a number by its form: ``percent``, ``bytes`` or ``number``; "" when there is none."""
    if value is None:
        return ""
    if form == "bytes":
        return human(value)
    if form == "percent":
        return f"{100 * value:.3g}%"
    return f"{value:.3g}"
