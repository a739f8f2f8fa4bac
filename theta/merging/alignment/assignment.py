"""The assignment problem, which scipy solves."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from theta._numpy import np
from theta.errors import NotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from theta.merging.alignment.axes import Order


def best(gains: NDArray[np.float64]) -> Order:
    """Return for each row the column in the assignment with the largest sum of ``gains``."""
    solve = _package().linear_sum_assignment
    found: Order = solve(np.nan_to_num(gains), maximize=True)[1]
    return found


def _package() -> Any:
    try:
        return importlib.import_module("scipy.optimize")
    except ImportError as error:
        raise NotFoundError("--align needs the package scipy", hint="pip install scipy") from error
