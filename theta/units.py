"""Formatting numbers for people."""

from __future__ import annotations

from collections.abc import Sequence


def human(size: float) -> str:
    """Format a number of bytes with powers of 1000 and up to three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text for people."""
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape)) or "scalar"
