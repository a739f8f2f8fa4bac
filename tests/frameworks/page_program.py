"""Runs the quick start below one heading of ``training.md`` in the current directory, as a user's program."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import theta

PAGE = Path(theta.__file__).parent / "docs" / "training.md"


def of_transformers() -> dict[str, Any]:
    """Return what the program of a user of transformers has already."""
    import torch
    from transformers import Trainer, TrainingArguments

    from tests.frameworks.trainer_program import Model

    data = [{"x": x, "labels": x.sum().reshape(1)} for x in torch.randn(64, 16)]
    return {"Trainer": Trainer, "TrainingArguments": TrainingArguments, "model": Model(), "data": data}


def of_dcp() -> dict[str, Any]:
    """Return what the program of a user of torch.distributed.checkpoint has already."""
    import torch
    from torch.distributed import checkpoint as dcp

    return {"dcp": dcp, "model": torch.nn.Linear(4, 3)}


def of_lightning() -> dict[str, Any]:
    """Return what the program of a user of Lightning has already."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    from tests.frameworks.lightning_program import Module

    data = DataLoader(TensorDataset(torch.randn(8, 16), torch.randn(8, 1)), 4)
    return {"lightning": lightning, "ModelCheckpoint": ModelCheckpoint, "module": Module(), "data": data}


def of_accelerate() -> dict[str, Any]:
    """Return what the program of a user of accelerate has already."""
    import torch
    from accelerate import Accelerator

    model = torch.nn.Linear(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return {"Accelerator": Accelerator, "model": model, "optimizer": optimizer, "data": torch.randn(8, 16)}


def of_keras() -> dict[str, Any]:
    """Return what the program of a user of Keras has already."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.layers.Dense(4)])
    return {"model": model, "x": np.ones((8, 16), np.float32), "y": np.ones((8, 4), np.float32)}


def of_jax() -> dict[str, Any]:
    """Return what the program of a user of JAX has already."""
    import jax
    import jax.numpy as jnp

    return {"jax": jax, "jnp": jnp}


BEFORE: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "transformers": of_transformers,
    "torch.distributed.checkpoint": of_dcp,
    "Lightning": of_lightning,
    "accelerate": of_accelerate,
    "Keras": of_keras,
    "JAX": of_jax,
}
"""Heading -> the names that its quick start uses."""


def block(heading: str) -> str:
    """Return the first Python block below ``heading``."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


if __name__ == "__main__":
    exec(compile(block(sys.argv[1]), str(PAGE), "exec"), BEFORE[sys.argv[1]]())
