"""Writing torch checkpoints: a flat state dict that ``torch.load(weights_only=True)`` loads.

The pickle is written opcode by opcode and names only functions that every state dict names.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from theta import dtypes
from theta.errors import FormatError
from theta.formats.archives.zip_writer import ZipBuilder
from theta.formats.layout import TensorSpec, clip, contiguous, nbytes
from theta.formats.plan import Plan

NAME: Final = "torch"
ALIGNMENT: Final = 64
_ROOT: Final = "archive"
# dtype -> class of its storage; torch's other dtypes have an untyped storage.
_STORAGES: Final = {
    "f64": "DoubleStorage",
    "f32": "FloatStorage",
    "f16": "HalfStorage",
    "bf16": "BFloat16Storage",
    "i64": "LongStorage",
    "i32": "IntStorage",
    "i16": "ShortStorage",
    "i8": "CharStorage",
    "u8": "ByteStorage",
    "bool": "BoolStorage",
    "c64": "ComplexFloatStorage",
}
DTYPES: Final = frozenset(
    name
    for name, entry in dtypes.DTYPES.items()
    if entry.numpy_name is not None and entry.kind not in ("packed", "bytes")
)
_NEW_DICT: Final = b"ccollections\nOrderedDict\n)R"


def plan(specs: Sequence[TensorSpec]) -> Plan:
    """Plan a new file with the tensors in the order of ``specs``; ``bytes`` become ``uint8``.

    Raises ``FormatError`` for packed dtypes, which torch stores differently.
    """
    body = b"".join(_entry(number, spec) for number, spec in enumerate(specs))
    archive = ZipBuilder()
    archive.member(f"{_ROOT}/data.pkl", b"\x80\x02" + _NEW_DICT + b"(" + body + b"u.", None, ALIGNMENT)
    archive.member(f"{_ROOT}/byteorder", b"little", None, ALIGNMENT)
    for number, spec in enumerate(specs):
        archive.member(f"{_ROOT}/data/{number}", b"", spec, ALIGNMENT)
    archive.member(f"{_ROOT}/version", b"3\n", None, ALIGNMENT)
    return archive.finish().plan(NAME)


def _entry(number: int, spec: TensorSpec) -> bytes:
    dtype = dtypes.DTYPES["u8" if spec.dtype == "bytes" else spec.dtype]
    if dtype.kind == "packed" or dtype.numpy_name is None:
        raise FormatError(f"torch: a tensor of {spec.dtype} cannot be written ({clip(spec.name)})")
    length = nbytes(spec.name, spec.dtype, spec.shape)
    if dtype.name in _STORAGES:
        function, storage, count, extra = (
            "v2",
            f"torch\n{_STORAGES[dtype.name]}",
            length // dtype.itemsize,
            b"",
        )
    else:
        function, storage, count = "v3", "torch.storage\nUntypedStorage", length
        extra = f"ctorch\n{dtype.numpy_name}\n".encode()
    pid = _text("storage") + f"c{storage}\n".encode() + _text(str(number)) + _text("cpu") + _int(count)
    arguments = b"(" + pid + b"tQ" + _int(0) + _tuple(spec.shape) + _tuple(contiguous(spec.shape))
    arguments += b"\x89" + _NEW_DICT + extra
    return _text(spec.name) + f"ctorch._utils\n_rebuild_tensor_{function}\n(".encode() + arguments + b"tR"


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_int(value) for value in values) + b"t"
