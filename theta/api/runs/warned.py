"""Warnings of a program that goes on: the only place that gives them.

They are Python's, so that a program may filter them or turn them into errors.  What they quote may come from
a remote, and is to change nothing on a terminal.
"""

from __future__ import annotations

import warnings


def warn(text: str, kind: type[Warning] = RuntimeWarning) -> None:
    """Give a warning to the program that called the function that calls this."""
    warnings.warn("".join(c if c.isprintable() else " " for c in text), kind, stacklevel=3)
