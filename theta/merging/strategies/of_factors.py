"""Factors of adapters, merged as products: ``peft``, with the types of ``add_weighted_adapter``."""

from __future__ import annotations

from typing import Final

from theta.merging.strategies import shared
from theta.merging.strategies.method import Method
from theta.merging.strategies.parameters import Parameter

TYPES: Final = (
    *("linear", "cat", "svd", "ties", "ties_svd", "dare_linear", "dare_ties", "dare_linear_svd"),
    *("dare_ties_svd", "magnitude_prune", "magnitude_prune_svd"),
)
"""The values of PEFT's ``combination_type``."""


class Peft(Method):
    """``add_weighted_adapter`` of PEFT, module by module.

    :mod:`theta.merging.adapters.products` has the formulas.  The engine hands it both factors of a module.
    """

    name = "peft"
    summary = "both factors of adapters, merged as PEFT's add_weighted_adapter does"
    parameters = (
        Parameter("type", "word", "svd", "PEFT's combination_type", words=TYPES),
        shared.WEIGHT,
        Parameter("density", "number", 1.0, "the share of the elements that is kept", 0, 1),
        Parameter(
            "rank", "whole", None, "the rank of the result, for svd and the types that end in it", 1, 4096
        ),
        Parameter(
            "majority_sign", "word", "total", "elect signs by sum or number", words=("total", "frequency")
        ),
    )
