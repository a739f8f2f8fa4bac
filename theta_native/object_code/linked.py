"""Compiled kernels that are called without numba, whose import takes longer than most of their work.

A kernel is saved as object code, which LLVM links into the process.  Its entry takes numpy arrays as they
are, numbers as C passes them, and the items of tuples one after the other.  :mod:`.entries` makes
the files.  Where there is no file that fits the arguments and this processor, numba is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

ENTRY: Final = "theta_entry"
"""The name of the function that is called."""
MAGIC: Final = b"theta kernel 1\n"
RESULTS: Final = {
    "none": ctypes.c_void_p,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float64": ctypes.c_double,
}
"""The types that a kernel may return, and where its entry writes them."""

_DIGEST: Final = hashlib.sha256().digest_size
_NUMBERS: Final = {
    **{np.dtype(name): name for name in ("uint8", "uint16", "uint32", "uint64")},
    **{np.dtype(name): name for name in ("int8", "int16", "int32", "int64", "float32", "float64")},
}
_SCALARS: Final[dict[type, tuple[str, Any]]] = {
    bool: ("boolean", ctypes.c_bool),
    np.bool_: ("boolean", ctypes.c_bool),  # of a comparison that Python ran in place of a kernel
    int: ("int64", ctypes.c_int64),
    float: ("float64", ctypes.c_double),
    np.uint8: ("uint8", ctypes.c_uint8),
    np.uint16: ("uint16", ctypes.c_uint16),
    np.uint32: ("uint32", ctypes.c_uint32),
    np.uint64: ("uint64", ctypes.c_uint64),
    np.int64: ("int64", ctypes.c_int64),
    np.float32: ("float32", ctypes.c_float),
    np.float64: ("float64", ctypes.c_double),
}
_INT64: Final = 1 << 63
_FLAGS: Final = 0x403
"""The bits of an array's flags for its layout and whether it may be written to."""

Called = Callable[[list[Any]], Any]
"""A linked kernel: takes leaves, and raises :class:`FailedError` if the kernel raises an exception."""


class FailedError(Exception):
    """A kernel raised an exception, which only numba can tell."""


# -- arguments ------------------------------------------------------------------------------


def taken(values: tuple[Any, ...]) -> tuple[Hashable, list[Any]]:
    """Return what decides numba's types of ``values``, much faster than their names, and the leaves.

    The leaves are arrays and Python's numbers, those of tuples one after the other.
    """
    kinds: list[Hashable] = []
    leaves: list[Any] = []
    _take(values, kinds, leaves)
    return tuple(kinds), leaves


def _take(values: tuple[Any, ...], kinds: list[Hashable], leaves: list[Any]) -> None:
    for value in values:
        cls = type(value)
        if cls is np.ndarray:
            kinds.append(value.dtype)
            kinds.append(value.flags.num & _FLAGS | value.ndim << 16)
            leaves.append(value)
        elif cls is tuple:
            kinds.append(tuple)
            kinds.append(len(value))
            _take(value, kinds, leaves)
        else:
            is_large = cls is int and not -_INT64 <= value < _INT64  # nothing is linked for its type
            kinds.append(None if is_large else cast(Hashable, cls))
            leaves.append(value.item() if isinstance(value, np.generic) else value)


def spell(value: Any) -> str:
    """Return numba's type of ``value`` as :func:`theta_native._signatures.spell` does.

    numba takes all arrays for aligned.  Raises ``KeyError`` for what entries do not take: other
    types, and ints outside int64.
    """
    if type(value) is tuple:
        return _spell_items([spell(item) for item in value])
    if type(value) is not np.ndarray:
        if type(value) is int and not -_INT64 <= value < _INT64:
            raise KeyError(int)
        return _SCALARS[type(value)][0]
    name, flags = _NUMBERS[value.dtype], value.flags
    layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
    return f"Array({name}, {value.ndim}, '{layout}', {not flags.writeable}, aligned=True)"


def _spell_items(items: list[str]) -> str:
    if items and all(item == items[0] for item in items):
        return f"UniTuple({items[0]}, {len(items)})"
    return f"Tuple(({', '.join(items)}))"


def _c_types(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if type(value) is tuple:
            yield from _c_types(value)
        else:
            yield ctypes.py_object if type(value) is np.ndarray else _SCALARS[type(value)][1]


# -- files ----------------------------------------------------------------------------------


def file_name(identity: str, signature: str, processor: tuple[str, str, str]) -> str:
    """Return the name of the file of a kernel with a signature, for a processor."""
    facts = "\0".join([identity, signature, *processor, str(object.__basicsize__)])
    return f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.kernel"


def pack(result: str, entry: bytes, code: bytes) -> bytes:
    """Return the content of a file: ``entry`` is the object code of the entry, ``code`` what it calls."""
    body = result.encode().ljust(8) + len(entry).to_bytes(8, "little") + entry + code
    return MAGIC + hashlib.sha256(body).digest() + body


def _unpack(content: bytes) -> tuple[str, bytes, bytes] | None:
    start = len(MAGIC) + _DIGEST
    body = content[start:]
    if content[:start] != MAGIC + hashlib.sha256(body).digest() or len(body) < 16:
        return None
    end = 16 + int.from_bytes(body[8:16], "little")
    return body[:8].decode().strip(), body[16:end], body[end:]


def is_whole(path: Path) -> bool:
    """Return whether ``path`` is a file that :func:`pack` made."""
    try:
        return _unpack(path.read_bytes()) is not None
    except OSError:
        return False


# -- linking --------------------------------------------------------------------------------


def load(places: tuple[Path, ...], identity: str, args: tuple[Any, ...]) -> Called | None:
    """Return a kernel for arguments like ``args``; None if no file in ``places`` has it."""
    try:
        from theta_native.object_code import linker

        file = file_name(identity, ", ".join(map(spell, args)), linker.processor())
    except (KeyError, ImportError):
        return None
    for place in places:
        # A file may be absent or damaged, or need what this process lacks.
        with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError):
            if (found := _unpack((place / file).read_bytes())) is not None:
                result, entry, code = found
                return _called(linker.link(entry, code, ENTRY), RESULTS[result], list(_c_types(args)))
    return None


def _called(address: int, result: Any, types: list[Any]) -> Called:
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *types)(address)  # releases the GIL
    byref = ctypes.byref

    def call(leaves: list[Any]) -> Any:
        out = result()
        if function(byref(out), *leaves):
            raise FailedError
        return out.value

    return call
