"""The safetensors container: 8 bytes of header length, a JSON header, the tensors.

The reader accepts a subset of what the official library accepts: every dtype and every order of tensors,
but no duplicate keys, unknown fields or empty names.  The header is parsed entry by entry
(:mod:`theta.formats.json_text`) instead of by a general JSON parser, so that a hostile header of 100 MB
takes no more memory than its own size and its tensors.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from theta.errors import FormatError
from theta.formats import json_text
from theta.formats.json_text import COLON, WS
from theta.formats.layout import MAX_TENSORS, Layout, Source, Tensor, TensorSpec, clip, nbytes

NAME: Final = "safetensors"
MAX_HEADER: Final = 100_000_000
MAX_METADATA: Final = 100_000

# The dtypes in the order of the official writer; the last of these come first in a file.
# fmt: off
_ORDER: Final = (
    "bool", "f4", "f6_e2m3", "f6_e3m2", "u8", "i8", "f8_e5m2", "f8_e4m3", "f8_e8m0", "f8_e4m3fnuz",
    "f8_e5m2fnuz", "i16", "u16", "f16", "bf16", "i32", "u32", "f32", "c64", "f64", "i64", "u64",
)
# fmt: on
DTYPES: Final = frozenset(_ORDER)
_RANK: Final = {name: rank for rank, name in enumerate(_ORDER)}
_DTYPES: Final = {name.upper().encode(): name for name in _ORDER}

_INT: Final = rb"(?:0|[1-9][0-9]{0,18})"
_INTS: Final = rb"\[" + WS + rb"(?:" + _INT + WS + rb"(?:," + WS + _INT + WS + rb"){0,63})?\]"
_FIELD: Final = (
    rb'(?:"dtype"' + COLON + rb'"[A-Z0-9_]{1,20}"|"(?:shape|data_offsets)"' + COLON + _INTS + rb")" + WS
)
_ENTRY_RE: Final = re.compile(rb"\{" + WS + _FIELD + (rb"," + WS + _FIELD) * 2 + rb"\}" + WS)
_DTYPE_RE: Final = re.compile(rb'"dtype"' + COLON + rb'"([A-Z0-9_]+)"')
_SHAPE_RE: Final = re.compile(rb'"shape"' + COLON + rb"\[([^]]*)\]")
_OFFSETS_RE: Final = re.compile(rb'"data_offsets"' + COLON + rb"\[([^]]*)\]")


def detect(source: Source) -> bool:
    """Return whether the file starts with a plausible length and ``{``."""
    if source.size < 10:
        return False
    head = source.read(0, 9)
    return head[8:] == b"{" and head[5:8] == b"\0\0\0"


def scan(source: Source) -> Layout:
    """Return the layout of a safetensors file; raises ``FormatError`` if it is malformed."""
    start, header = _read_header(source)
    tensors, _ = _parse(header, start)
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.end))
    position = start
    for tensor in tensors:
        if tensor.offset != position:
            kind = "a hole before" if tensor.offset > position else "an overlap at"
            raise FormatError(f"safetensors: {kind} tensor {clip(tensor.name)}")
        position = tensor.end
    if position != source.size:
        raise FormatError(f"safetensors: the tensors end at byte {position} of a file of {source.size} bytes")
    layout = Layout(NAME, source.size, tuple(tensors))
    layout.validate()
    return layout


def read_metadata(header: bytes) -> dict[str, str] | None:
    """Return ``__metadata__``, or None; ``header`` is all bytes before the first tensor."""
    if len(header) < 8 or int.from_bytes(header[:8], "little") != len(header) - 8:
        raise FormatError("safetensors: the header is not as long as it says")
    return _parse(header[8:], len(header))[1]


def plan(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> tuple[bytes, tuple[str, ...]]:
    """Return the header of a new file, padded to 8 bytes, and the names in the order of their data.

    The order is that of the official writer: dtype by decreasing alignment, then name.  Metadata is sorted,
    so that equal input gives equal bytes.  Raises ``FormatError`` for tensors that cannot be written.
    """
    entries: dict[str, object] = {}
    if metadata is not None:
        entries["__metadata__"] = dict(sorted(metadata.items()))
    for spec in specs:
        if spec.dtype not in _RANK:
            raise FormatError(f"safetensors cannot hold {spec.dtype} (tensor {clip(spec.name)})")
    names: list[str] = []
    position = 0
    for spec in sorted(specs, key=lambda spec: (-_RANK[spec.dtype], spec.name)):
        if spec.name in entries or spec.name in ("", "__metadata__"):
            raise FormatError(f"safetensors cannot hold a tensor named {clip(spec.name)} here")
        end = position + nbytes(spec.name, spec.dtype, spec.shape)
        entries[spec.name] = {
            "dtype": spec.dtype.upper(),
            "shape": list(spec.shape),
            "data_offsets": [position, end],
        }
        position = end
        names.append(spec.name)
    return _encode_header(entries), tuple(names)


def _encode_header(entries: Mapping[str, object]) -> bytes:
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise FormatError("safetensors: a name or metadata is not valid unicode") from error
    body += b" " * (-len(body) % 8)
    if len(body) > MAX_HEADER:
        raise FormatError(f"safetensors: the header would have {len(body)} bytes; the limit is {MAX_HEADER}")
    return struct.pack("<Q", len(body)) + body


def _read_header(source: Source) -> tuple[int, bytes]:
    """Return the offset of the data and the JSON text."""
    if source.size < 10:
        raise FormatError(f"safetensors: a file of {source.size} bytes is too short for a header")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER:
        raise FormatError(f"safetensors: a header of {length} bytes is over the limit of {MAX_HEADER}")
    if length > source.size - 8:
        raise FormatError(f"safetensors: a header of {length} bytes in a file of {source.size} bytes")
    header = source.read(8, length)
    if not header.startswith(b"{"):
        raise FormatError("safetensors: the header does not begin with '{'")
    return 8 + length, header


def _parse(header: bytes, start: int) -> tuple[list[Tensor], dict[str, str] | None]:
    tensors: list[Tensor] = []
    metadata: dict[str, str] | None = None
    names: set[str] = set()
    end = json_text.empty_end(header, 1)
    position, more = (1, True) if end is None else (end, False)
    while more:
        name, position = json_text.key(header, position, NAME)
        if name in names:
            raise FormatError(f"safetensors: the name {clip(name)} is there twice")
        names.add(name)
        if len(names) > MAX_TENSORS:
            raise FormatError(f"safetensors: more than {MAX_TENSORS} tensors")
        if name == "__metadata__":
            metadata, position = json_text.text_map(
                header, position, "safetensors: __metadata__", MAX_METADATA
            )
        else:
            tensor, position = _entry(header, position, name, start)
            tensors.append(tensor)
        position, more = json_text.separator(header, position, NAME)
    if position != len(header):
        raise FormatError(f"safetensors: the header goes on behind its end at byte {position}")
    return tensors, metadata


def _entry(header: bytes, position: int, name: str, start: int) -> tuple[Tensor, int]:
    match = _ENTRY_RE.match(header, position)
    if match is None:
        raise FormatError(f"safetensors: tensor {clip(name)} is not dtype, shape and data_offsets")
    dtype = _DTYPE_RE.search(match[0])
    shape = _SHAPE_RE.search(match[0])
    offsets = _OFFSETS_RE.search(match[0])
    if dtype is None or shape is None or offsets is None:
        raise FormatError(f"safetensors: tensor {clip(name)} lacks dtype, shape or data_offsets")
    if dtype[1] not in _DTYPES:
        raise FormatError(f"safetensors: tensor {clip(name)} has the unknown dtype {dtype[1].decode()}")
    bounds = _ints(offsets[1])
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise FormatError(f"safetensors: tensor {clip(name)} has impossible data_offsets")
    length = bounds[1] - bounds[0]
    return Tensor(name, _DTYPES[dtype[1]], _ints(shape[1]), start + bounds[0], length), match.end()


def _ints(text: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(b",")) if text.strip() else ()
