"""The values of PEFT's ``add_weighted_adapter`` that ``tests/merging/test_products.py`` has.

Prints for each of the eleven types the product of the merged factors of a matrix (5, 4), row by row.  PEFT
has an environment of its own, as ``bench/peft_check.py`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

TYPES = (
    *("linear", "cat", "svd", "ties", "ties_svd", "dare_linear", "dare_ties", "dare_linear_svd"),
    *("dare_ties_svd", "magnitude_prune", "magnitude_prune_svd"),
)


class One(torch.nn.Module):
    """A model of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(4, 5, bias=False)


def factor(number: float, size: int, rank: int) -> torch.Tensor:
    """Values that are the same on every machine."""
    return torch.tensor(np.sin(np.arange(1, size * rank + 1) * number * 0.7).astype(np.float32))


def merged(kind: str, ranks: Sequence[int], alphas: Sequence[int], weights: list[float], **how: Any) -> str:
    """Return the rank and the product of the merged adapter."""
    configs = [
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=["lin"])
        for rank, alpha in zip(ranks, alphas, strict=True)
    ]
    model = get_peft_model(One(), configs[0], adapter_name="0")
    for number, config in enumerate(configs[1:], 1):
        model.add_adapter(str(number), config)
    lin = model.base_model.model.lin
    for number, rank in enumerate(ranks):
        lin.lora_A[str(number)].weight.data = factor(number + 1.3, 4, rank).reshape(rank, 4)
        lin.lora_B[str(number)].weight.data = factor(number + 2.1, 5, rank).reshape(5, rank)
    names = [str(number) for number in range(len(ranks))]
    model.base_model.add_weighted_adapter(names, weights, "out", combination_type=kind, **how)
    a, b = (part["out"].weight.data.double() for part in (lin.lora_A, lin.lora_B))
    product = lin.scaling["out"] * (b @ a)
    return f"{a.shape[0]} " + " ".join(f"{value:.8g}" for value in product.reshape(-1).tolist())


def main() -> None:
    """Print all of them; what is drawn at random is not thinned out."""
    for kind in TYPES:
        for sign in ("total", "frequency") if "ties" in kind else ("total",):
            how: dict[str, Any] = {"svd_rank": 2} if "svd" in kind else {}
            how |= {} if kind in ("linear", "cat", "svd") else {"density": 1.0 if "dare" in kind else 0.5}
            how |= {"majority_sign_method": sign} if "ties" in kind else {}
            print(kind, sign, merged(kind, [2, 2, 2], [4, 1, 3], [0.7, -0.4, 0.25], **how))
    for kind in ("svd", "cat"):
        how = {"svd_rank": 1} if kind == "svd" else {}
        print(kind, "of two ranks", merged(kind, [2, 1], [4, 1], [0.7, 0.4], **how))


if __name__ == "__main__":
    main()
