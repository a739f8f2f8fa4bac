"""numpy's ``.npy``: a magic, a header with a Python dict as text, and one array."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from theta.errors import FormatError
from theta.formats.layout import MAX_RANK, MAX_SIZE, Layout, Source, Tensor, View, clip, contiguous

NAME: Final = "npy"
TENSOR_NAME: Final = "data"
MAGIC: Final = b"\x93NUMPY"
MAX_HEADER: Final = 64 * 1024

# numpy writes its header in exactly one way, so a general parser of literals is not needed.
_KIND: Final = (
    r"b1|[ui][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SUV][0-9]{1,9}"
    r"|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_KIND_RE: Final = re.compile(_KIND)
_INT: Final = "(?:0|[1-9][0-9]{0,18})"
_HEADER_RE: Final = re.compile(
    rf"\{{'descr': '([<>|])({_KIND})', 'fortran_order': (True|False), "
    rf"'shape': \((|{_INT},|{_INT}(?:, {_INT})+)\),? ?\}} *\n?"
)
_DTYPES: Final = {
    "b1": "bool",
    "u1": "u8",
    "i1": "i8",
    "u2": "u16",
    "i2": "i16",
    "u4": "u32",
    "i4": "i32",
    "u8": "u64",
    "i8": "i64",
    "f2": "f16",
    "f4": "f32",
    "f8": "f64",
    "c8": "c64",
}


DTYPES: Final = frozenset(_DTYPES.values())
_CODES: Final = {dtype: ("|" if code.endswith("1") else "<") + code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Array:
    """The content of a header.

    Attributes:
        data: offset of the values.
        dtype: dtype; ``bytes`` for dtypes that theta does not have (other byte order, text, void,
            complex128).
        shape: shape in memory order; for ``bytes`` the last dimension is the bytes of an element.
        length: length of the values in bytes.
        fortran: numpy sees the transposed array.
    """

    data: int
    dtype: str
    shape: tuple[int, ...]
    length: int
    fortran: bool

    def tensor(self, name: str) -> Tensor:
        """Return the extent with this name."""
        return Tensor(name, self.dtype, self.shape, self.data, self.length)

    def views(self, name: str) -> tuple[View, ...]:
        """Return the transposed view of extent ``name`` for an array in Fortran order."""
        if not self.fortran or len(self.shape) < 2:
            return ()
        return (View(name, name, self.dtype, self.shape[::-1], contiguous(self.shape)[::-1]),)


def detect(source: Source) -> bool:
    """Return whether the file starts with numpy's magic."""
    return source.size >= 10 and source.read(0, 6) == MAGIC


def scan(source: Source) -> Layout:
    """Return a layout of one tensor, ``data``.

    Raises ``FormatError`` for objects, structured dtypes and malformed files.
    """
    array = read_header(source, 0, source.size)
    views = array.views(TENSOR_NAME)
    return Layout(NAME, source.size, (array.tensor(TENSOR_NAME),), views=views)


def read_header(source: Source, start: int, size: int) -> Array:
    """Parse the header of an ``.npy`` file, the ``size`` bytes of ``source`` from ``start``."""
    if size < 10:
        raise FormatError("npy: truncated")
    head = source.read(start, min(size, 12))
    version = head[6:8]
    prefix = 10 if version == b"\x01\x00" else 12
    if head[:6] != MAGIC or version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00") or size < prefix:
        raise FormatError("npy: no magic, or an unknown version")
    length = int.from_bytes(head[8:prefix], "little")
    if length > min(MAX_HEADER, size - prefix):
        raise FormatError(f"npy: a header of {length} bytes in a file of {size} bytes")
    text = source.read(start + prefix, length).decode(
        "latin-1" if version != b"\x03\x00" else "utf-8", "replace"
    )
    array = _parse(text, start + prefix + length)
    if array.data + array.length != start + size:
        raise FormatError(
            f"npy: the header asks for {array.length} bytes, there are {start + size - array.data}"
        )
    return array


def header(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return magic and header as numpy writes them, padded to 64 bytes; ``bytes`` are ``uint8``."""
    code = _CODES.get("u8" if dtype == "bytes" else dtype)
    if code is None:
        raise FormatError(f"npy: numpy has no {dtype} (tensor {clip(name)})")
    text = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


def _parse(text: str, data: int) -> Array:
    match = _HEADER_RE.fullmatch(text)
    if match is None:
        raise FormatError(f"npy: not a plain array: {clip(text.strip())}")
    order, kind, fortran, dimensions = match.groups()
    shape = tuple(int(part) for part in dimensions.replace(" ", "").split(",") if part)
    return array_of(order + kind, shape, fortran == "True", data)


def array_of(kind: str, shape: tuple[int, ...], fortran: bool, offset: int) -> Array:
    """Return the array of numpy's type ``kind`` (such as ``<f8``) and ``shape`` at ``offset``.

    Raises ``FormatError`` for Python objects, unknown types and shapes beyond 2**63 bytes.
    """
    order, code = kind[:1], kind[1:]
    if order not in ("<", ">", "|") or not _KIND_RE.fullmatch(code):
        raise FormatError(f"npy: not a plain type: {clip(kind)}")
    width = 8 if code[0] in "mM" else int(code[1:]) * (4 if code[0] == "U" else 1)
    length = width
    for dimension in shape:
        length *= dimension
        if length > MAX_SIZE:
            raise FormatError("npy: an impossible shape")
    if len(shape) >= MAX_RANK:
        raise FormatError(f"npy: {len(shape)} dimensions")
    dtype = _DTYPES.get(code, "bytes") if order != ">" or width == 1 else "bytes"
    if fortran:
        shape = shape[::-1]
    if dtype == "bytes":
        shape = (*shape, width)
    return Array(offset, dtype, shape, length, fortran and dtype != "bytes")
