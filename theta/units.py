"""Numbers and lists as people and JSON have them, and lists in portions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


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


def as_counted(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names with the numbers in them as numbers: layer 2 is before layer 10."""
    parts = [*re.split("([0-9]+)", name)]
    numbers = [digits.lstrip("0") for digits in parts[1::2]]
    parts[1::2] = numbers
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)], name


def first_names(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def never(_: object) -> bool:
    """Return False."""
    return False


def portions(
    items: Iterable[T],
    length: Callable[[T], int],
    most: int,
    within: int,
    begins: Callable[[T], bool] = never,
) -> Iterator[list[T]]:
    """Yield ``items``, in their order, in lists of at most ``most`` in length and ``within`` in number.

    An item that is longer stands alone, and one that ``begins`` a list is its first.
    """
    portion: list[T] = []
    held = 0
    for item in items:
        if portion and (begins(item) or held + length(item) > most or len(portion) >= within):
            yield portion
            portion, held = [], 0
        portion.append(item)
        held += length(item)
    if portion:
        yield portion


def finite(value: Any) -> Any:
    """Return plain data with None for each number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
