"""The version of theta, read from the file that the build wrote by the tag of git."""

from __future__ import annotations

import contextlib
from typing import Final

UNBUILT: Final = "0+unbuilt"
"""The version of sources that nobody built or installed."""


def _written() -> str:
    """Return the version that the build wrote, or ``UNBUILT``."""
    place = __file__.removesuffix("_version.py") + "version.txt"
    with contextlib.suppress(OSError), open(place, encoding="ascii") as file:
        return file.read().strip() or UNBUILT
    return UNBUILT


__version__: Final = _written()
