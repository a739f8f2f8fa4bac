"""``theta cat``: the values of one tensor, as text or as a ``.npy`` file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from theta import _fs
from theta._numpy import np
from theta.dtypes import numpy_dtype
from theta.errors import FormatError, UsageError, no_tensor
from theta.formats import npy
from theta.formats.values import Value
from theta.porcelain.tensors import converting, sources

MAX_SHOWN: Final = 1 << 30
"""The largest tensor in bytes that is printed as text: it is read into memory."""
MAX_LISTED: Final = 64 << 20
"""The largest tensor in bytes whose values are listed one by one."""


@contextlib.contextmanager
def opened(name: str, cwd: Path) -> Iterator[Value]:
    """Return a context manager of the tensor that ``[REV:]PATH#TENSOR`` names."""
    named = sources.parse(name, cwd)
    if not named.glob:
        raise UsageError(f"{name} names no tensor", hint="say REV:PATH#TENSOR")
    whole = sources.Named(named.revision, named.path)
    with sources.opened(whole, cwd, named.glob) as model:
        if named.glob not in model.values:
            lists = "" if named.revision is None else f"theta show {name.removesuffix('#' + named.glob)}"
            raise no_tensor(named.glob, model.values, lists)
        yield model.values[named.glob]


def save(value: Value, out: Path, *, force: bool) -> None:
    """Write ``value`` to the ``.npy`` file ``out``."""
    if out.suffix != ".npy":
        raise UsageError(f"{out.name}: a tensor is written to a .npy file", hint="theta export writes others")
    if value.dtype not in npy.DTYPES:
        raise FormatError(f"numpy has no {value.dtype}", hint="theta export -o FILE.safetensors")
    converting.check_places([out], value.nbytes, force)
    with _fs.AtomicFile(out, mode=0o666, nameless=True) as file:
        file.write(npy.header("data", value.dtype, value.shape))
        for piece in value.chunks():
            file.write(piece)


def text(value: Value) -> str:
    """Return ``value`` as numpy prints it; ``bytes`` and packed dtypes are printed as uint8."""
    return str(_array(value, MAX_SHOWN))


def plain(value: Value) -> dict[str, Any]:
    """Return dtype, shape and all values of ``value``, in nested lists; complex ones as [real, imaginary]."""
    array = _array(value, MAX_LISTED)
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    known = array.dtype.kind in "iufb"
    listed = (array if known else array.astype(np.float64)).tolist()
    return {"dtype": value.dtype, "shape": list(value.shape), "values": listed}


def _array(value: Value, most: int) -> Any:
    if value.nbytes > most:
        raise FormatError(f"{value.nbytes} bytes are too many to show", hint="-o FILE.npy saves them")
    raw = b"".join(bytes(piece) for piece in value.chunks())
    packed = value.dtype in ("f4", "f6_e2m3", "f6_e3m2")
    array = np.frombuffer(raw, np.uint8 if packed else numpy_dtype(value.dtype))
    return array if packed else array.reshape(value.shape)
