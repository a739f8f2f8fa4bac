"""The tree of a tensor: its record, its digest, and its layers (format.md, sections 3, 4 and 7)."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

from tests.independent.codecs import DECODERS, Decoder, dense
from tests.independent.manifest_text import Entry, kind_and_shape
from tests.independent.numbers import MAX_CHUNK, Kind, Words, empty, to_bytes
from tests.independent.odb import Objects
from tests.independent.primitives import Cursor, refuse, require

MAX_RECORD: Final = 2**23
MAX_ENCODED: Final = 10_485_760
_FILE: Final = re.compile(r"([0-3])\.(shared|[0-9]{4}|[1-9][0-9]{4,8})")


class StoredTensor:
    """A tensor whose record is proven by the digest of the manifest."""

    def __init__(self, objects: Objects, entry: Entry) -> None:
        files = objects.files(entry.tree)
        record = _record(objects.blob(files.pop("@tensor", ""), MAX_RECORD))
        require(kind_and_shape(record["dtype"], record["shape"]) == (entry.kind, entry.shape), "types differ")
        require(record["files"] == files, "the tree of a tensor is not the one that its record names")
        self.chunks = _chunks(record["chunks"], entry)
        require(digest(entry, self.chunks) == entry.digest, "a record has another digest than the manifest")
        self._layers: list[StoredLayer] = []
        for number, row in enumerate(_rows(record["layers"])):
            self._layers.append(StoredLayer(objects, row, self._layers, _of_layer(files, number)))
        self._check_layers(files, entry)

    def _check_layers(self, files: dict[str, str], entry: Entry) -> None:
        require(bool(self._layers) == (entry.size > 0), "a tensor has bytes and no layers, or the reverse")
        if self._layers:
            last = self._layers[-1]
            require((last.kind, last.shape) == (entry.kind, entry.shape), "the last layer is not the value")
            last.cut_at([0, *accumulate(length for length, _ in self.chunks[:-1])])
        for name in files:
            match = _FILE.fullmatch(name)
            if not match or int(match[1]) >= len(self._layers):
                refuse(f"a tensor has a file {name!r}")
            is_chunk = match[2] != "shared"
            require(not is_chunk or int(match[2]) < len(self._layers[int(match[1])].starts), "no such chunk")
        for layer in self._layers:
            layer.check_shared()
        if self._layers:
            self._layers[-1].open()

    def values(self) -> Iterator[bytes]:
        """Yield the raw bytes of each chunk, proven by its digest."""
        for number, (length, proof) in enumerate(self.chunks):
            raw = to_bytes(self._layers[-1].chunk(number))
            require(len(raw) == length, "a chunk has another length")
            require(hashlib.sha256(raw).digest() == proof, f"chunk {number} has another digest")
            yield raw


def digest(entry: Entry, chunks: list[tuple[int, bytes]]) -> str:
    """Return the digest of a value, from the lengths and digests of its chunks."""
    shape = ", ".join(map(str, entry.shape))
    found = hashlib.sha256(f"theta value 1\n{entry.kind.name} [{shape}]\n".encode())
    for length, proof in chunks:
        found.update(length.to_bytes(8, "little") + proof)
    return found.hexdigest()


def starts(kind: Kind, shape: list[int]) -> range:
    """Return where the chunks of a value begin, by the rule of section 3."""
    size, step = kind.size(shape), MAX_CHUNK
    if shape and shape[0] and size % shape[0] == 0 and 0 < size // shape[0] <= MAX_CHUNK:
        step -= MAX_CHUNK % (size // shape[0])
    return range(0, size, step)


def _record(raw: bytes) -> dict[str, Any]:
    """Read ``@tensor``."""
    try:
        found = json.loads(
            raw.decode("ascii"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=refuse,
            parse_constant=refuse,
        )
    except (ValueError, RecursionError) as error:
        refuse(f"a record is no JSON: {error}")
    keys = {"theta", "dtype", "shape", "layers", "chunks", "files"}
    require(isinstance(found, dict) and found.keys() == keys, "a record has other keys")
    require(found["theta"] == 1 and type(found["theta"]) is int, "a record has another version")
    return dict(found)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    require(len(found) == len(pairs), "a key of a record stands twice")
    return found


def _whole(text: str) -> int:
    require(len(text) <= 19 and 0 <= int(text) < 2**63 and text != "-0", f"the number {text[:30]} is refused")
    return int(text)


def _chunks(rows: Any, entry: Entry) -> list[tuple[int, bytes]]:
    """Check the chunks of the value; return their lengths and digests."""
    require(isinstance(rows, list), "chunks are no list")
    found = []
    for row in rows:
        good = isinstance(row, list) and len(row) == 2 and type(row[0]) is int and isinstance(row[1], str)
        require(good and re.fullmatch(r"[0-9a-f]{64}", row[1]) is not None, "a chunk is badly described")
        found.append((row[0], bytes.fromhex(row[1])))
    lengths = [length for length, _ in found]
    if entry.kind.name == "bytes":
        require(all(1 <= one <= MAX_CHUNK for one in lengths), "a chunk has a bad length")
        require(sum(lengths) == entry.size, "chunks have another length than the value")
    else:
        ends = [*starts(entry.kind, entry.shape)[1:], entry.size]
        require([*accumulate(lengths)] == (ends if entry.size else []), "chunks have other lengths")
    return found


def _rows(layers: Any) -> list[dict[str, Any]]:
    require(isinstance(layers, list) and len(layers) <= 4, "layers are no list of at most 4")
    keys = {"codec", "base", "dtype", "shape"}
    require(all(isinstance(row, dict) and row.keys() == keys for row in layers), "a layer has other keys")
    return list(layers)


def _of_layer(files: dict[str, str], number: int) -> dict[str, str]:
    """Return the files of one layer, without its number."""
    return {name[2:]: oid for name, oid in files.items() if name.startswith(f"{number}.")}


class StoredLayer:
    """One layer of a tensor; chunks are decoded when they are asked for."""

    def __init__(
        self, objects: Objects, row: dict[str, Any], below: list[StoredLayer], files: dict[str, str]
    ) -> None:
        self._objects, self._files = objects, files
        self.kind, self.shape = kind_and_shape(row["dtype"], row["shape"])
        self.size = self.kind.size(self.shape)
        self.starts: Sequence[int] = starts(self.kind, self.shape)
        self._base: StoredLayer | None = None
        self._decoder: Decoder | None = None
        self._codec = row["codec"]
        self._may_lack_files = True
        self._last = (-1, empty(self.kind))
        if row["base"] is None:
            require(self._codec == "dense/1", f"a layer without base has the codec {self._codec!r}")
        else:
            require(type(row["base"]) is int and row["base"] < len(below), "a layer has no such base")
            require(
                isinstance(self._codec, str) and self._codec in DECODERS,
                f"the codec {self._codec!r} is unknown",
            )
            self._base = below[row["base"]]

    @property
    def count(self) -> int:
        """The number of words."""
        return self.size // self.kind.width

    def cut_at(self, starts: Sequence[int]) -> None:
        """Cut the layer where the chunks of the value are."""
        self.starts = starts
        self._may_lack_files = self.kind.name != "bytes"

    def span(self, number: int) -> tuple[int, int]:
        """Return the first word of a chunk, and the one behind its last."""
        start = self.starts[number]
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.size
        return start // self.kind.width, end // self.kind.width

    def check_shared(self) -> None:
        """Refuse a layer that has shared bytes and whose codec has none, or the reverse."""
        has_shared = self._base is not None and DECODERS[self._codec].has_shared
        require(has_shared == ("shared" in self._files), "a layer has shared bytes, or lacks them")

    def open(self) -> None:
        """Read what the chunks of the layer, and of those below, share."""
        shared = self._files.pop("shared", None)
        if self._base:
            self._base.open()
            raw = self._objects.blob(shared, MAX_ENCODED) if shared else b""
            self._decoder = DECODERS[self._codec](self, self._base, raw)

    def chunk(self, number: int) -> Words:
        """Return the words of one chunk, as a copy."""
        if self._last[0] != number:
            self._last = (number, self._decode(number))
        return self._last[1][:]

    def _decode(self, number: int) -> Words:
        start, stop = self.span(number)
        oid = self._files.get(f"{number:04d}")
        if oid is None:
            base = self._base if self._may_lack_files else None
            if not base or (base.kind, base.shape) != (self.kind, self.shape):
                refuse(f"chunk {number} of a layer is missing")
            return base.words(start, stop)
        cursor = Cursor(self._objects.blob(oid, MAX_ENCODED))
        if not self._decoder:
            return dense(cursor, stop - start, self.kind)
        words = self._decoder.chunk(cursor, start, stop)
        cursor.end()
        return words

    def words(self, start: int, stop: int) -> Words:
        """Return some words, of as many chunks as they are in, as a copy."""
        found = empty(self.kind)
        while start < stop:
            number = bisect_right(self.starts, start * self.kind.width) - 1
            first, end = self.span(number)
            found += self.chunk(number)[start - first : stop - first]
            start = end
        return found
