"""Checks that the ``gguf`` package (0.19) reads what theta's writer plans.

Run by hand from the top of the repository: ``python -m tests.formats.data.check_gguf``.
"""

import sys
import tempfile
from pathlib import Path

import gguf  # type: ignore[import-not-found, unused-ignore]

from theta.formats import gguf as theta_gguf
from theta.formats.layout import TensorSpec


def main() -> None:
    """Write a file of zeros, read it, compare names, types, shapes and places."""
    kinds = ["f32", "f16", "bf16", "f64", "i8", "i16", "i32", "i64"]
    specs = [
        TensorSpec(f"{kind}.{shape}", kind, shape) for kind in kinds for shape in ((3,), (2, 3), (2, 1, 4))
    ]
    plan = theta_gguf.plan(specs, {"general.name": "a model"})
    buffer = bytearray(plan.layout.size)
    for start, data in plan.literals:
        buffer[start : start + len(data)] = data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(buffer)
        reader = gguf.GGUFReader(path)
        assert reader.fields["general.name"].contents() == "a model"
        assert len(reader.tensors) == len(specs)
        for found, tensor in zip(reader.tensors, plan.layout.tensors, strict=True):
            assert (found.name, found.data_offset, found.n_bytes) == (
                tensor.name,
                tensor.offset,
                tensor.length,
            )
            assert found.tensor_type.name.lower() == tensor.dtype
            assert tuple(found.shape.tolist()[::-1]) == tensor.shape
    sys.stdout.write(f"gguf reads all {len(specs)} tensors\n")


if __name__ == "__main__":
    main()
