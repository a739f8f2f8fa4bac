"""Ids of several blobs are those of git, two at a time or not."""

import hashlib
import random

import pytest

from theta_native import _signatures
from theta_native.digests import sha1
from theta_native.digests.two_messages import LARGE, Pairing, has_instructions
from theta_native.object_code import linked

LENGTHS = (
    0,
    1,
    *range(44, 68),
    *range(108, 132),
    999,
    LARGE - 1,
    LARGE,
    LARGE + 57,
    100_001,
)
"""As difficult as what git puts before a blob, padding and blocks make them."""


def git_id(data: bytes | memoryview) -> bytes:
    """The id of a blob as git's documentation spells it."""
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + bytes(data)).digest()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("has", [True, False])
def test_ids_are_those_of_git(monkeypatch: pytest.MonkeyPatch, seed: int, has: bool) -> None:
    pairing = Pairing(sha1._are_right)
    pairing._is_ready = has and has_instructions()
    monkeypatch.setattr(sha1, "_PAIRING", pairing)
    there = random.Random(seed)
    given = [there.randbytes(there.choice(LENGTHS)) for _ in range(there.randrange(8))]
    assert sha1.blob_ids(given) == list(map(git_id, given))
    assert sha1.blob_ids([memoryview(bytearray(one)) for one in given]) == list(map(git_id, given))


def test_two_blobs_of_any_lengths() -> None:
    if not has_instructions():  # hashlib has all to itself
        assert not Pairing(sha1._are_right).is_due(1 << 40)
        return
    there = random.Random(0)
    for one in LENGTHS:
        for other in LENGTHS:
            pair = there.randbytes(one), there.randbytes(other)
            assert sha1._both(*pair) == tuple(map(git_id, pair))


def test_a_processor_whose_ids_are_wrong_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha1, "is_saved", lambda *_: True)
    with monkeypatch.context() as patched:
        patched.setattr(sha1, "_both", lambda *_: (bytes(20), bytes(20)))
        assert not sha1._are_right()
    right = tuple(git_id(bytes(range(size))) for size in (200, 100))
    monkeypatch.setattr(sha1, "_both", lambda *_: right)
    assert sha1._are_right()


def test_workers_compile_the_kernel() -> None:
    spelled = ", ".join(map(linked.spell, sha1._arguments(b"", b"")))
    assert f"digests.sha1._digest {spelled}" in [line for group in _signatures.declared() for line in group]
