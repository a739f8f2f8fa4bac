"""Writing torch checkpoints that ``torch.load(weights_only=True)`` loads: state dicts, and nested objects.

The pickle is written opcode by opcode and names only functions that every state dict names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from theta import dtypes
from theta.errors import FormatError
from theta.formats.archives.zip_writer import ZipBuilder
from theta.formats.layout import TensorSpec, clip, contiguous, nbytes
from theta.formats.plan import Plan
from theta.formats.torch import pickled_object
from theta.formats.torch.pickled_object import NEW_DICT, number, numbers, text

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


def plan(specs: Sequence[TensorSpec]) -> Plan:
    """Plan a new file with the tensors in the order of ``specs``; ``bytes`` become ``uint8``.

    Raises ``FormatError`` for packed dtypes, which torch stores differently.
    """
    body = b"".join(text(spec.name) + _rebuilt(key, spec) for key, spec in enumerate(specs))
    return _archive(NEW_DICT + b"(" + body + b"u", specs)


def plan_object(root: object, stored: Callable[[str, Any], tuple[int, TensorSpec]]) -> Plan:
    """Plan a new file of an object, such as the state of an optimizer, whose tensors may be anywhere in it.

    ``stored`` is given each value that is not plain with its name, and returns the tensor and the key of its
    storage: numbers from 0 on, a known one for a tensor that is there twice.  Raises ``FormatError`` as
    :func:`plan` does, and for what no pickle holds.
    """
    storages: dict[int, TensorSpec] = {}

    def tensor(name: str, value: Any) -> bytes:
        key, spec = stored(name, value)
        storages.setdefault(key, spec)
        return _rebuilt(key, spec)

    return _archive(pickled_object.written(root, tensor), list(storages.values()))


def _archive(pickle: bytes, specs: Sequence[TensorSpec]) -> Plan:
    archive = ZipBuilder()
    archive.member(f"{_ROOT}/data.pkl", b"\x80\x02" + pickle + b".", None, ALIGNMENT)
    archive.member(f"{_ROOT}/byteorder", b"little", None, ALIGNMENT)
    for key, spec in enumerate(specs):
        archive.member(f"{_ROOT}/data/{key}", b"", spec, ALIGNMENT)
    archive.member(f"{_ROOT}/version", b"3\n", None, ALIGNMENT)
    return archive.finish().plan(NAME)


def _rebuilt(key: int, spec: TensorSpec) -> bytes:
    """Return the opcodes that rebuild a tensor that is all of storage ``key``."""
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
    pid = text("storage") + f"c{storage}\n".encode() + text(str(key)) + text("cpu") + number(count)
    arguments = b"(" + pid + b"tQ" + number(0) + numbers(spec.shape) + numbers(contiguous(spec.shape))
    return (
        f"ctorch._utils\n_rebuild_tensor_{function}\n(".encode()
        + arguments
        + (b"\x89" + NEW_DICT + extra + b"tR")
    )
