"""numpy as ``np``, imported on its first use: commands that look at no number start without it.

``np`` stands in a module as after ``import numpy as np``.  A module that computes with it while it is
imported itself (a constant, a default) imports numpy by that, for all that import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from theta.lazy import Module

if TYPE_CHECKING:
    import numpy as np
else:
    np = Module("numpy")

__all__ = ["np"]
