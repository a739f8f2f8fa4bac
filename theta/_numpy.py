"""numpy as ``np``, imported on first use, so that commands that compute nothing start without it.

``np`` is used as after ``import numpy as np``.  A module that uses it while it is imported (in a constant or
a default) imports numpy at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.lazy import Module

if TYPE_CHECKING:
    import numpy as np
else:
    np = Module("numpy")

__all__ = ["np"]
