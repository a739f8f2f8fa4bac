"""Decodes mutated golden encodings; exits 0 if nothing but CodecError ever came of it.

python -m tests.codecs.fuzz_worker SEED COUNT
"""

import dataclasses
import random
import resource
import sys

import numpy as np

from tests.codecs.golden_cases import Golden, decode, load_all
from theta.codecs.base import word_dtype
from theta.errors import CodecError

MEMORY = 3 << 30


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few changes: bytes set, bits turned, parts cut, doubled, or made extreme."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 1 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + rng.choice((1, 4, len(out)))]
        elif kind == 3:
            out[at:at] = out[at : at + rng.choice((1, 4, 64))] or b"\0"
        elif kind == 4:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\0\0\1\0"))
        elif out:
            # Headers are short and matter most.
            out[rng.randrange(min(len(out), 48))] = rng.randrange(256)
    return bytes(out)


def mutated(golden: Golden, rng: random.Random) -> Golden:
    """The golden case with its shared bytes or one of its chunks mutated."""
    encoded = golden.encoded
    if encoded.shared is not None and rng.random() < 0.5:
        changed = dataclasses.replace(encoded, shared=mutate(encoded.shared, rng))
    else:
        k = rng.randrange(len(encoded.chunks))
        chunk = mutate(encoded.chunks[k], rng)
        changed = dataclasses.replace(encoded, chunks=(*encoded.chunks[:k], chunk, *encoded.chunks[k + 1 :]))
    return dataclasses.replace(golden, encoded=changed)


def attack(golden: Golden, rng: random.Random) -> bool:
    """Decode one mutation; whether it was refused.  Anything but a refusal must have the right form."""
    try:
        words = decode(mutated(golden, rng))
    except CodecError:
        return True
    for chunk, (start, stop) in zip(words, golden.ranges, strict=True):
        assert chunk.size == stop - start
        assert chunk.dtype == word_dtype(golden.target.dtype)
    return False


def main(seed: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    cases, rng = load_all(), random.Random(seed)
    with np.errstate(all="ignore"):
        refused = sum(attack(cases[k % len(cases)], rng) for k in range(count))
    print(f"{count} mutations, {refused} refused")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
