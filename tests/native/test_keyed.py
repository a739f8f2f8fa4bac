"""The keyed hash beside its definition in whole numbers."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theta_native.digests import keyed
from theta_native.digests.keyed import KeyedHash

PRIME = 2**61 - 1


def defined(secret: bytes, message: bytes) -> bytes:
    """The hash as the docstring of the module says, one word after the other."""
    drawn = hashlib.shake_256(secret).digest(4 * 1032)
    keys = [int.from_bytes(drawn[at : at + 4], "little") for at in range(0, 4096, 4)]
    points = [int.from_bytes(drawn[at : at + 8], "little") >> 4 for at in range(4096, 4128, 8)]
    padded = message + bytes(-len(message) % 1024)
    words = [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]
    values = [0, 0, 0, 0]
    for first in range(0, len(words), 256):
        for lane, point in enumerate(points):
            one, other = keys[256 * lane : 256 * lane + 128], keys[256 * lane + 128 : 256 * lane + 256]
            total = 0
            for i in range(128):
                x, y = words[first + i] + one[i], words[first + 128 + i] + other[i]
                total += (x % 2**32) * (y % 2**32)
            for half in (total % 2**32, (total >> 32) % 2**32):
                values[lane] = (values[lane] * point + half) % PRIME
    ended = [(value * point + len(message)) % PRIME for value, point in zip(values, points, strict=True)]
    return b"".join(value.to_bytes(8, "little") for value in ended)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 2**32), st.sampled_from([b"", b"secret", bytes(32)]))
def test_it_is_as_defined(size: int, seed: int, secret: bytes) -> None:
    message = random.Random(seed).randbytes(size)
    assert KeyedHash(secret).of(memoryview(message)) == defined(secret, message)


def test_sums_that_overflow_are_as_defined() -> None:
    for byte in (0, 255):
        message = bytes([byte]) * 9000
        assert KeyedHash(b"k").of(message) == defined(b"k", message)


def test_another_bit_size_or_key_is_another_hash() -> None:
    message = random.Random(1).randbytes(3000)
    hashed = {KeyedHash(b"k").of(message), KeyedHash(b"l").of(message), KeyedHash(b"k").of(message + b"\0")}
    for bit in range(0, 24000, 97):
        changed = bytearray(message)
        changed[bit >> 3] ^= 1 << (bit & 7)
        hashed.add(KeyedHash(b"k").of(bytes(changed)))
    assert len(hashed) == 3 + len(range(0, 24000, 97))


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "is_saved", lambda *_: True)
    assert KeyedHash(b"k").is_ready()
    monkeypatch.setattr(keyed, "_PROBED", "0" * 64)
    assert not KeyedHash(b"k").is_ready()
