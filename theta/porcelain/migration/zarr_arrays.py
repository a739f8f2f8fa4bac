"""Arrays as git-theta stores them: the files of a Zarr 2 array each, packed by msgpack.

Zarr storage specification version 2: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
The packages that unpack and decompress are those of the extra ``migrate``.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import CorruptError, FormatError, UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    import msgpack
    import numcodecs
    from numpy.typing import NDArray
else:
    msgpack = Module("msgpack")
    numcodecs = Module("numcodecs")

_METADATA: Final = ".zarray"
_MOST: Final = 1 << 36
"""Bytes of an array that are believed."""
_COMPRESSORS: Final = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma")
"""Those that only decompress; numcodecs also has one that unpickles."""
_BLOSC_SIZE: Final = struct.Struct("<I")


def unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays in an object of git-theta by name.

    Raises:
        CorruptError: they cannot be read.
        UsageError: a package of the extra is missing.
    """
    try:
        files = msgpack.unpackb(data, raw=False)
        if not isinstance(files, dict):
            raise CorruptError("an object of git-theta has no arrays")
        return {str(name): _array(inner) for name, inner in files.items()}
    except ModuleNotFoundError as error:
        raise UsageError(
            f"git-theta's tensors are read with {error.name}, which is not installed",
            hint="pip install 'theta-vcs[migrate]'",
        ) from error
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise CorruptError(f"an object of git-theta cannot be read: {error}") from error


def _array(files: Mapping[str, bytes]) -> NDArray[Any]:
    about = json.loads(files[_METADATA])
    shape, chunks = tuple(map(int, about["shape"])), tuple(map(int, about["chunks"]))
    dtype = np.dtype(about["dtype"])
    if about.get("zarr_format") != 2 or about.get("filters") or dtype.hasobject:
        raise CorruptError("an array of git-theta is of a kind that is not known")
    if len(chunks) != len(shape) or min(shape, default=0) < 0 or min(chunks, default=1) < 1:
        raise CorruptError("an array of git-theta has no sensible shape")
    if math.prod(shape) * dtype.itemsize > _MOST or math.prod(chunks) * dtype.itemsize > _MOST:
        raise FormatError("an array of git-theta is larger than 64 GiB")
    made = np.full(shape, about.get("fill_value") or 0, dtype)
    dot = about.get("dimension_separator", ".")
    for at in itertools.product(*(range(-(-n // size)) for n, size in zip(shape, chunks, strict=True))):
        key = dot.join(map(str, at)) or "0"
        if key in files:
            _place(made, at, chunks, _chunk(files[key], about, chunks, dtype))
    return made


def _place(made: NDArray[Any], at: tuple[int, ...], chunks: tuple[int, ...], chunk: NDArray[Any]) -> None:
    """Put a chunk where it belongs; those at the end reach beyond the array."""
    starts = [n * size for n, size in zip(at, chunks, strict=True)]
    part: tuple[Any, ...] = tuple(
        slice(start, start + size) for start, size in zip(starts, chunks, strict=True)
    )
    room = made[(*part, ...)]  # an array, even of no dimensions
    room[...] = chunk[tuple(slice(0, n) for n in room.shape)]


def _chunk(data: bytes, about: Mapping[str, Any], chunks: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    size, how = math.prod(chunks) * dtype.itemsize, about.get("compressor")
    if how is not None:
        if not isinstance(how, dict) or how.get("id") not in _COMPRESSORS:
            raise CorruptError("a chunk of git-theta is compressed in a way that is not known")
        if how["id"] == "blosc" and _BLOSC_SIZE.unpack_from(data, 4)[0] != size:
            raise CorruptError("a chunk of git-theta has another size than its array says")
        data = bytes(numcodecs.get_codec(how).decode(data))
    if len(data) != size:
        raise CorruptError("a chunk of git-theta has another size than its array says")
    return np.frombuffer(data, dtype).reshape(chunks, order=about.get("order", "C"))
