"""Streams written by the specification, with any parameters, are read by theta and by the other reader."""

from __future__ import annotations

import io
import math
import random
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

import theta
from tests.independent import restore
from tests.independent.codecs import LowRank, Scaled, grid
from tests.independent.encoding import entropy, residual
from tests.independent.forging import Forge, Tensor, layer, raw_dense
from tests.independent.numbers import (
    KINDS,
    Kind,
    Words,
    converter,
    empty,
    is_integral,
    magnitude,
    rounded,
    to_bytes,
    to_words,
)
from tests.independent.primitives import Cursor

VALUED: Final = [kind for kind in KINDS.values() if kind.has_values]
INTEGERS: Final = [kind for kind in KINDS.values() if is_integral(kind)]


@dataclass
class Written:
    """A layer on a base: what is stored, and the words that a reader must find."""

    codec: str
    base: Kind
    kind: Kind
    shape: list[int]
    before: Words
    stream: bytes = b""
    shared: bytes | None = None
    after: Words = field(default_factory=lambda: empty(KINDS["u8"]))

    @property
    def count(self) -> int:
        """The number of words."""
        return len(self.before)

    def words(self, start: int, stop: int) -> Words:
        """Return some words of the base, as a copy."""
        return self.before[start:stop]

    def tensor(self) -> Tensor:
        """Return the tensor to store."""
        files = {"0.0000": _dense(self.before, self.base), "1.0000": self.stream}
        if self.shared is not None:
            files["1.shared"] = self.shared
        layers = [
            layer("dense/1", None, self.base.name, self.shape),
            layer(self.codec, 0, self.kind.name, self.shape),
        ]
        raw = to_bytes(self.after)
        return Tensor(self.kind.name, self.shape, [len(raw)], raw, layers, files)


def _dense(words: Words, kind: Kind) -> bytes:
    return raw_dense(to_bytes(words), kind.width, kind.is_float and kind.width > 1)


def _words(kind: Kind, count: int, dice: random.Random) -> Words:
    """Return any bits, or values like weights, or integers near 0."""
    if kind.has_values and dice.random() < 0.6:
        scale, words = 10 ** dice.uniform(-3, 1), empty(kind)
        words.extend(rounded(dice.gauss(0, scale), kind) for _ in range(count))
        return words
    raw = dice.randbytes(count * kind.width)
    if dice.random() < 0.5:
        raw = bytes(dice.choice((0, 1, 128, 255, byte)) for byte in raw)
    return to_words(raw, kind)


def _begun(codec: str, kind: Kind, base: Kind, shape: list[int], dice: random.Random) -> Written:
    count = math.prod(shape) * base.bits // (8 * base.width)
    return Written(codec, base, kind, shape, _words(base, count, dice))


def delta(dice: random.Random) -> Written:
    kind = dice.choice(list(KINDS.values()))
    made = _begun("delta/1", kind, kind, [dice.choice((8, 40, 120))], dice)
    made.stream, made.after = residual(made.words(0, made.count), kind, dice)
    return made


def cast(dice: random.Random) -> Written:
    base, kind = dice.sample(dice.choice((VALUED, INTEGERS)), 2)
    made = _begun("cast/1", kind, base, [dice.choice((3, 24, 120))], dice)
    predicted = empty(kind)
    predicted.extend(map(converter(base, kind), made.before))
    made.stream, made.after = residual(predicted, kind, dice)
    return made


def sparse(dice: random.Random) -> Written:
    kind = dice.choice(list(KINDS.values()))
    made = _begun("sparse/1", kind, kind, [dice.choice((8, 40, 120))], dice)
    marks = [int(dice.random() < 0.3) for _ in made.before]
    marks[dice.randrange(len(marks))] = 1
    new = _words(kind, sum(marks), dice)
    stored = _dense(new, kind)
    widest = 64 if not kind.is_float else 2047 if kind.width == 8 else 255
    far = [widest - length for length in map(magnitude(kind), made.before)]
    contexts = [min(one - min(far), 23) for one in far]
    made.stream = struct.pack("<II", sum(marks), len(stored)) + stored + entropy(marks, contexts, dice)
    made.after, fresh = made.words(0, made.count), iter(new)
    for place, mark in enumerate(marks):
        if mark:
            made.after[place] = next(fresh)
    return made


def scaled(dice: random.Random) -> Written:
    kind = dice.choice(VALUED)
    made = _begun("scaled/1", kind, kind, dice.choice(([12, 10], [7], [3, 4, 5], [], [5, 1, 3])), dice)
    by_column = dice.randrange(2)
    special = (math.nan, math.inf, -0.0, 1e300, -1.5)
    factors = [
        dice.choice(special) if dice.random() < 0.1 else dice.gauss(1, 0.2)
        for _ in range(grid(made)[by_column])
    ]
    made.shared = bytes([by_column]) + raw_dense(struct.pack(f"<{len(factors)}d", *factors), 8, rotated=True)
    predicted = Scaled(made, made, made.shared).chunk(Cursor(b"\0"), 0, made.count)
    made.stream, made.after = residual(predicted, kind, dice)
    return made


def low_rank(dice: random.Random) -> Written:
    kind = KINDS[dice.choice(("f16", "bf16", "f32"))]
    made = _begun("lowrank/1", kind, kind, dice.choice(([12, 10], [30, 4, 5], [8, 9])), dice)
    rows, columns = grid(made)
    rank, bits = dice.randint(1, 3), dice.choice((3, 10, 20, 26, 30))
    scale = dice.choice((-2 * bits - dice.randint(0, 12), 0, dice.randint(-400, 400)))
    made.shared = struct.pack("<Hh", rank, scale)
    for count in (rows, columns):
        values = [dice.getrandbits(dice.randint(0, bits)) for _ in range(count * rank)]
        made.shared += entropy(values, list(range(rank)) * count, dice)
    decoder = LowRank(made, made, made.shared)
    predicted, behind = decoder.predicted(0, made.count)
    made.stream, made.after = residual(predicted, kind, dice, decoder.nearness(behind))
    return made


WRITERS: Final[tuple[Callable[[random.Random], Written], ...]] = (delta, cast, sparse, scaled, low_rank)


def write_and_read(place: Path, writer: Callable[[random.Random], Written], seed: int, count: int) -> None:
    """Write random layers by one codec; theta and the independent reader must read all of them."""
    subprocess.run(["git", "init", "--quiet", str(place)], check=True)
    forge, dice = Forge(place), random.Random(seed)
    made = [writer(dice).tensor() for _ in range(count)]
    tensors = {f"t{number:04d}": tensor for number, tensor in enumerate(made)}
    commit = forge.checkpoint(tensors)
    out = io.BytesIO()
    restore(place, commit, "model.bin", out)
    assert out.getvalue() == b"".join(tensor.raw for tensor in made)
    with theta.open(place) as repo:
        weights = repo[f"{commit}:model.bin"]
        for name, tensor in tensors.items():
            assert weights[name].tobytes() == tensor.raw, (seed, name, tensor.layers)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_the_specification_writes_is_read(
    tmp_path: Path, writer: Callable[[random.Random], Written]
) -> None:
    write_and_read(tmp_path / "repo", writer, 1, 60)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 104))
@pytest.mark.parametrize("writer", WRITERS)
def test_much_that_the_specification_writes_is_read(
    tmp_path: Path, writer: Callable[[random.Random], Written], seed: int
) -> None:
    """Write 20,000 layers: both readers had all on 27 Nov 2026, in 687 seconds of a busy machine."""
    write_and_read(tmp_path / "repo", writer, seed, 1000)
