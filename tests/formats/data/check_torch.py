"""Checks that ``torch.load(weights_only=True)``, mapped or not, opens what theta's writer plans.

Run by hand with torch 2.13 from the top of the repository: ``python -m tests.formats.data.check_torch``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]

from theta.dtypes import DTYPES
from theta.formats.derived import arguments, derive
from theta.formats.layout import BytesSource, TensorSpec, nbytes
from theta.formats.torch import torch_writer

SHAPES: list[tuple[int, ...]] = [(), (0,), (3,), (2, 3), (2, 0, 4), (70_000,)]


def main() -> None:
    """Write a file of every dtype and shape, load it, compare every byte."""
    names = [name for name, entry in DTYPES.items() if entry.numpy_name and name != "bytes"]
    specs = [TensorSpec(f"{name}.{shape}é\n", name, shape) for name in names for shape in SHAPES]
    rng = np.random.default_rng(0)
    values = {s.name: rng.integers(0, 2, nbytes(s.name, s.dtype, s.shape), np.uint8).tobytes() for s in specs}
    plan = torch_writer.plan(specs)
    buffer = bytearray(plan.layout.size)
    for start, data in plan.literals:
        buffer[start : start + len(data)] = data
    for tensor in plan.layout.tensors:
        buffer[tensor.offset : tensor.end] = values[tensor.name]
    for field in plan.layout.derived:
        buffer[field.offset : field.end] = derive(field, arguments(field, BytesSource(bytes(buffer))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(buffer)
        for mapped in (False, True):
            loaded = torch.load(path, weights_only=True, mmap=mapped)
            assert list(loaded) == [spec.name for spec in specs]
            for spec in specs:
                found = loaded[spec.name]
                assert found.dtype == getattr(torch, str(DTYPES[spec.dtype].numpy_name))
                assert tuple(found.shape) == spec.shape
                raw = found.view(-1).view(torch.uint8).numpy().tobytes() if found.numel() else b""
                assert raw == values[spec.name]
    sys.stdout.write(f"torch {torch.__version__} opens all {len(specs)} tensors\n")


if __name__ == "__main__":
    main()
