"""The encodings that every version of theta must decode.

Run as a module to add files for codecs that have none; existing files are never touched::

    python -m tests.codecs.golden_cases
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.codecs.layer_cases import (
    any_bits,
    chunks_of,
    from_values,
    nudged,
    to_values,
    weights,
    with_words,
)
from theta.codecs import codec, dense
from theta.codecs.base import Encoded, Range, Target, TensorWords, word_size
from theta.codecs.chooser import encode_dense

FOLDER = Path(__file__).parent.parent / "golden" / "codecs"
LIMIT = 4096


@dataclass(frozen=True)
class Golden:
    """One encoded layer, what it rests on, and the digest of what it decodes to."""

    name: str
    target: Target
    base: TensorWords | None
    encoded: Encoded
    ranges: tuple[Range, ...]
    sha256: str


def _tensor_json(tensor: TensorWords) -> dict[str, Any]:
    raw = base64.b64encode(tensor.words.tobytes()).decode()
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "raw": raw}


def to_json(golden: Golden) -> str:
    shared = golden.encoded.shared
    return json.dumps(
        {
            "codec": golden.encoded.codec,
            "dtype": golden.target.dtype,
            "shape": list(golden.target.shape),
            "sha256": golden.sha256,
            "base": _tensor_json(golden.base) if golden.base else None,
            "shared": base64.b64encode(shared).decode() if shared is not None else None,
            "ranges": [list(r) for r in golden.ranges],
            "chunks": [base64.b64encode(chunk).decode() for chunk in golden.encoded.chunks],
        },
        indent=1,
    )


def load(path: Path) -> Golden:
    data = json.loads(path.read_text())
    base = data["base"]
    shared = data["shared"]
    return Golden(
        path.stem,
        Target(data["dtype"], tuple(data["shape"])),
        TensorWords.from_bytes(base64.b64decode(base["raw"]), base["dtype"], base["shape"]) if base else None,
        Encoded(
            data["codec"],
            base64.b64decode(shared) if shared is not None else None,
            tuple(base64.b64decode(chunk) for chunk in data["chunks"]),
        ),
        tuple((start, stop) for start, stop in data["ranges"]),
        data["sha256"],
    )


def load_all() -> list[Golden]:
    return [load(path) for path in sorted(FOLDER.glob("*.json"))]


def decode(golden: Golden) -> list[np.ndarray]:
    """The words of every chunk; any CodecError passes through."""
    target, encoded = golden.target, golden.encoded
    if golden.base is None:
        width, rotate = np.dtype(f"u{word_size(target.dtype)}"), dense.is_rotated(target.dtype)
        pairs = zip(encoded.chunks, golden.ranges, strict=True)
        return [dense.decode_words(chunk, width.itemsize, b - a, rotate) for chunk, (a, b) in pairs]
    decoder = codec(encoded.codec).decoder(encoded.shared, target, golden.base)
    return [decoder.decode(chunk, a, b) for chunk, (a, b) in zip(encoded.chunks, golden.ranges, strict=True)]


def _pairs() -> Iterator[tuple[str, str, TensorWords, TensorWords | None]]:
    for dtype in ("bf16", "f32", "i64", "f8_e4m3", "bool"):
        yield "dense", f"dense-{dtype}", any_bits(dtype, (20, 16)), None
    yield "dense", "dense-weights", weights("bf16", (40, 64)), None
    yield "dense", "dense-rans", from_values(to_values(weights("bf16", (40, 64))), "f32"), None
    for dtype in ("bf16", "f16", "f32", "f64"):
        base = weights(dtype, (40, 48))
        yield "delta", f"delta-{dtype}", nudged(base, 5e-4), base
    for dtype in ("i16", "u8", "c64", "f8_e5m2"):
        yield "delta", f"delta-{dtype}", any_bits(dtype, (20, 16)), any_bits(dtype, (20, 16), 1)
    base = weights("bf16", (40, 48))
    words = np.where(np.random.default_rng(0).random(base.words.size) < 0.03, base.words ^ 0x1234, base.words)
    yield "sparse", "sparse-bf16", TensorWords("bf16", base.shape, words.astype(np.uint16)), base
    for dtype in ("bf16", "f32", "f8_e4m3", "i16"):
        old = weights(dtype, (40, 48)) if dtype in ("bf16", "f32") else any_bits(dtype, (40, 48))
        moved = np.random.default_rng(3).random(old.words.size) < 0.05
        words = old.words + np.where(moved, np.random.default_rng(4).integers(1, 4, moved.size), 0)
        yield "steps", f"steps-{dtype}", with_words(old, words), old
    for dtype in ("bf16", "f16"):
        old = weights(dtype, (40, 48))
        moved = np.random.default_rng(3).random(old.words.size) < 0.2
        moves = np.random.default_rng(4).choice([-1, 1, 1, 5], moved.size)
        yield "nudges", f"nudges-{dtype}", with_words(old, (old.words + np.where(moved, moves, 0))), old
    yield "cast", "cast-f32-bf16", nudged(base, 1e-6), from_values(to_values(base), "f32")
    yield "cast", "cast-i8-i32", any_bits("i32", (16, 16)), any_bits("i8", (16, 16))
    scale = 1 + np.random.default_rng(1).normal(0, 0.1, 48)
    for dtype in ("bf16", "f16", "f32"):
        base = weights(dtype, (40, 48))
        yield "scaled", f"scaled-{dtype}", from_values(to_values(base) * scale[None, :], dtype), base
    rows = np.concatenate(
        [
            weights("bf16", (40, 48)).words.reshape(40, 48)[::-1],
            weights("bf16", (3, 48), 5).words.reshape(3, 48),
        ]
    )
    yield "rows", "rows-bf16", TensorWords("bf16", (43, 48), rows.reshape(-1)), weights("bf16", (40, 48))
    for dtype in ("bf16", "f16", "f32"):
        base = weights(dtype, (64, 48))
        rng = np.random.default_rng(2)
        update = rng.normal(0, 0.03, (64, 2)) @ rng.normal(0, 0.03, (2, 48))
        yield "lowrank", f"lowrank-{dtype}", from_values(to_values(base) + update, dtype), base


def make() -> Iterator[Golden]:
    """Encode every case anew."""
    for kind, name, new, base in _pairs():
        ranges = chunks_of(new, LIMIT)
        encoded = codec(f"{kind}/1").encode(new, base, ranges) if base else encode_dense(new, ranges)
        assert encoded is not None, name
        digest = hashlib.sha256(new.words.tobytes()).hexdigest()
        yield Golden(name, Target(new.dtype, new.shape), base, encoded, tuple(ranges), digest)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for golden in make():
        path = FOLDER / f"{golden.name}.json"
        if not path.exists():
            path.write_text(to_json(golden) + "\n")


if __name__ == "__main__":
    main()
