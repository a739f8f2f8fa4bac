"""Digests of several messages are those of hashlib, two at a time or not."""

import hashlib
import random

import pytest

from theta_native import Instructions
from theta_native.digests import sha256
from theta_native.object_code import linker

LENGTHS = (
    0,
    1,
    55,
    56,
    63,
    64,
    65,
    119,
    120,
    128,
    sha256.LARGE - 1,
    sha256.LARGE,
    sha256.LARGE + 57,
    100_001,
)


def messages(seed: int) -> list[bytes]:
    """Some messages, as long as padding and blocks make difficult."""
    there = random.Random(seed)
    return [there.randbytes(there.choice(LENGTHS)) for _ in range(there.randrange(8))]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("has", [True, False])
def test_digests_are_those_of_hashlib(monkeypatch: pytest.MonkeyPatch, seed: int, has: bool) -> None:
    if not has:
        monkeypatch.setattr(sha256, "_has_instructions", lambda: False)
    given = messages(seed)
    assert sha256.digests(given) == [hashlib.sha256(one).digest() for one in given]
    views = [memoryview(bytearray(one)) for one in given]
    assert sha256.digests(views) == sha256.digests(given)


def test_two_messages_of_any_lengths() -> None:
    if not sha256._has_instructions():  # where the processor lacks them hashlib has all to itself
        assert "+sha" not in linker.processor()[2].split(",")
        return
    there = random.Random(0)
    for one in LENGTHS:
        for other in LENGTHS:
            pair = there.randbytes(one), there.randbytes(other)
            assert sha256._both(*pair) == tuple(hashlib.sha256(data).digest() for data in pair)


def test_a_processor_whose_digests_are_wrong_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "_both", lambda *_: (bytes(32), bytes(32)))
    assert not sha256._has_instructions.__wrapped__()


def test_instructions_are_for_kernels() -> None:
    with pytest.raises(TypeError, match="two_messages is called by kernels only"):
        Instructions("theta_native.digests.sha_extensions", "two_messages")(1)
