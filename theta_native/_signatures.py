"""The signatures of kernels as text, and the list of those that the codecs call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def declared() -> list[list[str]]:
    """Return the groups of lines of ``signatures.txt``; a line is a kernel and the types of its arguments."""
    text = Path(__file__).with_name("signatures.txt").read_text(encoding="ascii")
    return [group.splitlines() for group in text.strip().split("\n\n")]


def spell(signature: Any) -> str:
    """Return a signature as text that :func:`parse` can read."""
    return re.sub(r"\bbool\b", "boolean", ", ".join(map(repr, signature)))


def parse(text: str) -> tuple[Any, ...]:
    """Return the types of a text that :func:`spell` made."""
    from numba.core import sigutils

    arguments, _ = sigutils.normalize_signature(f"void({text})")  # type: ignore[no-untyped-call]
    return tuple(arguments)
