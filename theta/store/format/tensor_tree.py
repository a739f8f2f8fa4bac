"""One tensor as a git tree: ``@tensor`` and its chunks.

``@tensor`` says all that a decoder needs and names every other file of the tree by id, so that
two updates of different chunks cannot merge into a tree that nobody wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Final

from theta import _kernels as kernels
from theta.dtypes import DTYPES
from theta.errors import MALFORMED, CorruptError, NewerFormatError, TooLargeError
from theta.git.object_format import is_id

VERSION: Final = 1
CHUNK: Final = 4 << 20
RECORD: Final = "@tensor"
MAX_RECORD: Final = 8 << 20
"""Bytes of ``@tensor``, as of any other blob.  Its first readers took 1 MiB, about 7,800 chunks."""
MAX_LAYERS: Final = 4
SHARED: Final = -1
MAX_RANK: Final = 64
MAX_EXTENT: Final = 10**18
_LENGTH: Final = struct.Struct("<Q")
_FILE: Final = re.compile(rf"([0-{MAX_LAYERS - 1}])\.(?:(shared)|([0-9]{{4}}|[1-9][0-9]{{4,8}}))")


@dataclass(frozen=True)
class Layer:
    """One layer of a tensor: how its chunk files are coded, and the lower layer it rests on."""

    codec: str
    base: int | None
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """One chunk of a value: its raw length and the SHA-256 of its raw bytes."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, raw: bytes | memoryview) -> Chunk:
        """Return the chunk with these raw bytes."""
        return cls(len(raw), hashlib.sha256(raw).digest())

    @classmethod
    def of_each(cls, raws: Sequence[bytes | memoryview]) -> tuple[Chunk, ...]:
        """Return the chunks with these raw bytes: digests of two large ones take the time of one."""
        digests = kernels.sha256.digests(raws)
        return tuple(cls(len(raw), digest) for raw, digest in zip(raws, digests, strict=True))

    def holds(self, raw: bytes | memoryview) -> bool:
        """Return whether ``raw`` are the bytes that this chunk was made of."""
        return len(raw) == self.length and hashlib.sha256(raw).digest() == self.digest


@dataclass(frozen=True)
class Record:
    """The content of ``@tensor``."""

    dtype: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    chunks: tuple[Chunk, ...]
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """The digest of the value."""
        return value_digest(self.dtype, self.shape, self.chunks)

    @property
    def nbytes(self) -> int:
        """Bytes of the value."""
        return sum(chunk.length for chunk in self.chunks)

    def data(self) -> bytes:
        """Return the text of ``@tensor``: JSON, one key a line.

        Raises :class:`TooLargeError` for a text that no reader takes.
        """
        shape = ", ".join(map(str, self.shape))
        rows = [f'"theta": {VERSION}', f'"dtype": {_json(self.dtype)}', f'"shape": [{shape}]']
        rows.append(_block("layers", "[]", map(_layer_text, self.layers)))
        chunks = (f'[{chunk.length}, "{chunk.digest.hex()}"]' for chunk in self.chunks)
        rows.append(_block("chunks", "[]", chunks))
        files = (f'"{name}": "{oid}"' for name, oid in sorted(self.files.items()))
        rows.append(_block("files", "{}", files))
        text = ("{\n" + ",\n".join(rows) + "\n}\n").encode()
        if len(text) > MAX_RECORD:
            raise TooLargeError(
                f"a tensor of {len(self.chunks)} chunks and {len(self.layers)} layers takes a record of"
                f" {len(text)} bytes, over the limit of {MAX_RECORD}",
                hint="cut the file into shards",
            )
        return text


_ENCODER: Final = json.JSONEncoder(separators=(", ", ": "))


def _json(value: object) -> str:
    return _ENCODER.encode(value)


@lru_cache(1024)
def _layer_text(layer: Layer) -> str:
    row = {"codec": layer.codec, "base": layer.base, "dtype": layer.dtype, "shape": list(layer.shape)}
    return _json(row)


def _block(key: str, brackets: str, rows: Iterable[str]) -> str:
    body = ",\n".join(rows)
    return f'"{key}": {brackets[0]}\n{body}\n{brackets[1]}' if body else f'"{key}": {brackets}'


def file_name(layer: int, chunk: int) -> str:
    """Return the name of a chunk's file in the tree of its tensor."""
    return f"{layer}.{chunk:04d}"


def shared_name(layer: int) -> str:
    """Return the name of the file that all chunks of a layer share."""
    return f"{layer}.shared"


@lru_cache(1 << 14)
def place_of(file: str) -> tuple[int, int]:
    """Return the layer and the chunk that a file in the tree of a tensor is of.

    The chunk is :data:`SHARED` where all chunks share the file; the layer of any other name is -1.
    """
    found = _FILE.fullmatch(file)
    if found is None:
        return -1, 0
    return int(found[1]), SHARED if found[2] else int(found[3])


def value_digest(dtype: str, shape: Sequence[int], chunks: Sequence[Chunk]) -> str:
    """Return the SHA-256 (hex) over dtype, shape, and the length and digest of each chunk."""
    head = f"theta value 1\n{dtype} [{', '.join(map(str, shape))}]\n".encode()
    rows = [_LENGTH.pack(chunk.length) + chunk.digest for chunk in chunks]
    return hashlib.sha256(b"".join((head, *rows))).hexdigest()


def chunk_lengths(dtype: str, shape: Sequence[int]) -> list[int]:
    """Return the lengths of a tensor's chunks: whole rows up to 4 MiB, or parts of a longer row."""
    total, step = _geometry(dtype, shape)
    return [min(step, total - start) for start in range(0, total, step)]


def chunk_count(dtype: str, shape: Sequence[int]) -> int:
    """Return the number of a tensor's chunks; raises ``ValueError`` for an incomplete last byte."""
    total, step = _geometry(dtype, shape)
    return -(-total // step)


def _geometry(dtype: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return the bytes of a tensor, and of each of its chunks but the last."""
    total = DTYPES[dtype].nbytes(shape)
    if total and shape and total % shape[0] == 0 and total // shape[0] <= CHUNK:
        row = total // shape[0]
        return total, CHUNK // row * row
    return total, CHUNK


def cut(raw: bytes | memoryview, dtype: str, shape: Sequence[int]) -> tuple[Chunk, ...]:
    """Return the chunks of the tensor with these raw bytes."""
    ends = [0, *accumulate(chunk_lengths(dtype, shape))]
    return Chunk.of_each([memoryview(raw)[start:end] for start, end in pairwise(ends)])


def parse(data: bytes) -> Record:
    """Parse the record ``data``; raises :class:`CorruptError` or :class:`NewerFormatError`."""
    if len(data) > MAX_RECORD:
        raise CorruptError(f"an @tensor of {len(data)} bytes is over the limit of {MAX_RECORD}")
    try:
        body = _DECODER.decode(data.decode("ascii"))
        if b"-0" in data:
            raise ValueError("a number is written as -0")
        if isinstance(body, dict) and type(body.get("theta")) is int and body["theta"] > VERSION:
            raise NewerFormatError(f"a tensor is in format {body['theta']}", hint="upgrade theta")
        return _record(body)
    except MALFORMED as error:
        raise CorruptError(f"a malformed @tensor: {error}") from error


def head_of(text: str) -> tuple[str, tuple[int, ...], tuple[Layer, ...]]:
    """Return dtype, shape and layers of a record without its chunks and files, as :func:`parse` reads them.

    Raises one of :data:`MALFORMED` for what is not such a head of a tensor with layers.
    """
    body = _DECODER.decode(text)
    _check_keys(body, {"theta", "dtype", "shape", "layers"})
    head = _dtype(body["dtype"]), _shape(body["shape"]), _layers(body["layers"])
    if not head[2] or not _is_value(*head):
        raise ValueError("the last layer is not the tensor")
    return head


def _record(body: dict[str, Any]) -> Record:
    _check_keys(body, {"theta", "dtype", "shape", "layers", "chunks", "files"})
    layers = _layers(body["layers"])
    chunks = tuple(
        Chunk(_natural(length), _digest(text)) for length, text in map(_list, _list(body["chunks"]))
    )
    record = Record(_dtype(body["dtype"]), _shape(body["shape"]), layers, chunks, _files(body["files"]))
    if record.nbytes != DTYPES[record.dtype].nbytes(record.shape):
        raise ValueError("lengths do not fit")
    if any(not 0 < chunk.length <= CHUNK for chunk in chunks):
        raise ValueError("a chunk is empty or too long")
    if record.dtype != "bytes" and [c.length for c in chunks] != chunk_lengths(record.dtype, record.shape):
        raise ValueError("the chunks are not cut as the shape demands")
    if bool(chunks) != bool(layers) or not _is_value(record.dtype, record.shape, layers):
        raise ValueError("the last layer is not the tensor")
    return record


def _check_keys(body: dict[str, Any], keys: set[str]) -> None:
    if type(body["theta"]) is not int or body["theta"] != VERSION or set(body) != keys:
        raise ValueError("unknown keys")


def _is_value(dtype: str, shape: tuple[int, ...], layers: tuple[Layer, ...]) -> bool:
    """Return whether the last layer, if there is any, is of this dtype and shape."""
    return not layers or (layers[-1].dtype, layers[-1].shape) == (dtype, shape)


def _layers(value: Any) -> tuple[Layer, ...]:
    found = tuple(_layer(number, item) for number, item in enumerate(_list(value)))
    if len(found) > MAX_LAYERS:
        raise ValueError("too many layers")
    return found


def _layer(number: int, item: dict[str, Any]) -> Layer:
    if set(item) != {"codec", "base", "dtype", "shape"} or not (
        isinstance(item["codec"], str) and item["codec"].isascii()
    ):
        raise ValueError("a malformed layer")
    base = item["base"] if item["base"] is None else _below(item["base"], number)
    return Layer(item["codec"], base, _dtype(item["dtype"]), _shape(item["shape"]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a whole number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_refuse)
"""Made once: a record is read for each tensor."""


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a natural number below 2^63")
    return value


def _below(value: Any, bound: int) -> int:
    if _natural(value) >= bound:
        raise ValueError("a layer refers to one that is not below it")
    return int(value)


def _dtype(value: Any) -> str:
    if value not in DTYPES:
        raise ValueError(f"unknown dtype {str(value)[:40]!r}")
    return str(value)


def _shape(value: Any) -> tuple[int, ...]:
    if len(_list(value)) > MAX_RANK or any(_natural(extent) >= MAX_EXTENT for extent in value):
        raise ValueError("too many or too large dimensions")
    return tuple(value)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError("not a list")
    return value


def _digest(value: Any) -> bytes:
    return _hex(value, 32)


def _files(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError("files is not an object")
    if not all(name.isascii() for name in value):
        raise ValueError("a bad name of a file")
    return {name: _object_id(oid) for name, oid in value.items()}


def _object_id(value: Any) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise ValueError("a bad id")
    return value


def _hex(value: Any, size: int) -> bytes:
    found = bytes.fromhex(value) if isinstance(value, str) and len(value) == 2 * size else b""
    if len(found) != size or value != value.lower():  # spaces between digits are passed over
        raise ValueError("a bad digest or id")
    return found
