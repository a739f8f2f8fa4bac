"""Helpers for the tests of all formats: rebuilding a file from its layout, mutated files, shards."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import make_model
from theta.errors import FormatError
from theta.formats import scan, sharded
from theta.formats.derived import arguments, derive, prove
from theta.formats.layout import BytesSource, Layout


@dataclass(frozen=True)
class Beside(BytesSource):
    """A file and those in its folder."""

    name: str
    others: Mapping[str, bytes]

    def sibling(self, name: str) -> bytes | None:
        return self.others.get(name)


def scanned(data: bytes, format_name: str) -> Layout:
    """The validated layout of ``data``, which must be read by ``format_name`` and hold what it claims."""
    layout = scan(BytesSource(data))
    assert layout.format == format_name
    assert prove(layout, BytesSource(data)) == layout, "a field that is not what the reader claims"
    assert rebuild(layout, data, {}) == data
    return layout


def rebuild(layout: Layout, data: bytes, values: Mapping[str, bytes]) -> bytes:
    """The file restored from literals, tensors (``values`` in place of some) and derived fields only."""
    layout.validate()
    buffer = bytearray(len(data))
    for start, length in layout.literals():
        buffer[start : start + length] = data[start : start + length]
    for tensor in layout.tensors:
        value = values.get(tensor.name, data[tensor.offset : tensor.end])
        assert len(value) == tensor.length
        buffer[tensor.offset : tensor.end] = value
    for field in layout.derived:
        made = derive(field, arguments(field, BytesSource(bytes(buffer))))
        assert len(made) == field.width
        buffer[field.offset : field.end] = made
    return bytes(buffer)


def mutate(data: bytes, rng: random.Random, tokens: Sequence[bytes] = ()) -> bytes:
    """``data`` with one to three random edits: bits, extreme numbers, tokens, cuts, repeats."""
    buffer = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(buffer) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(
                (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.randrange(2 ** (8 * width)))
            )
            buffer[at : at + width] = number.to_bytes(width, "little")
        elif kind == 2 and tokens:
            token = rng.choice(tokens)
            buffer[at : at + rng.choice((0, len(token)))] = token
        elif kind == 3:
            del buffer[at : at + rng.choice((1, 2, 8, 64))]
        elif kind == 4:
            start = rng.randrange(len(buffer) + 1)
            buffer[at:at] = buffer[start : start + rng.randint(1, 60)]
        elif kind == 5 and rng.random() < 0.2:
            del buffer[at:]
    return bytes(buffer)


def survives(data: bytes, reader: Callable[[BytesSource], Layout]) -> Layout | None:
    """The layout if ``reader`` takes ``data``, None if it refuses in one line; anything else fails."""
    try:
        layout = reader(BytesSource(data))
        layout.validate()
    except FormatError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return None
    proven = prove(layout, BytesSource(data))
    assert rebuild(proven, data, {}) == data
    return layout


def write_shards(folder: Path, count: int, tensors: Mapping[str, Any]) -> None:
    """A model in ``count`` files, more than one with their index; files of another count are removed."""
    for path in folder.glob("model*"):
        path.unlink()
    weight_map: dict[str, str] = {}
    for number, name in enumerate(sharded.shard_names(count)):
        kept = {
            key: value
            for at, (key, value) in enumerate(tensors.items())
            if at * count // len(tensors) == number
        }
        make_model(folder / name, kept)
        weight_map |= dict.fromkeys(kept, name)
    if count > 1:
        size = sum(value.nbytes for value in tensors.values())
        (folder / "model.safetensors.index.json").write_bytes(sharded.write_index(weight_map, size))
