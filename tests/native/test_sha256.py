"""Digests of several messages are those of hashlib, two at a time or not."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from theta_native import Instructions, _signatures
from theta_native.digests import sha256, two_messages
from theta_native.object_code import linked, linker

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
    two_messages.LARGE - 1,
    two_messages.LARGE,
    two_messages.LARGE + 57,
    100_001,
)

A_FIRST_RUN = """
import hashlib, sys
from theta_native.digests import sha256, two_messages

def prove(messages):
    assert sha256.digests(messages) == [hashlib.sha256(one).digest() for one in messages]

some = [bytes(40_000), bytes(50_000)]
prove(some)
print("llvmlite" in sys.modules)
many = [bytes([number]) * two_messages.WORTH_LINKING for number in range(2)]
prove(many)
print("numba" in sys.modules, sha256._PAIRING._is_ready)
sha256._both(*some)
prove(many)
print(sha256._PAIRING._is_ready)
"""


def messages(seed: int) -> list[bytes]:
    """Some messages, as long as padding and blocks make difficult."""
    there = random.Random(seed)
    return [there.randbytes(there.choice(LENGTHS)) for _ in range(there.randrange(8))]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("has", [True, False])
def test_digests_are_those_of_hashlib(monkeypatch: pytest.MonkeyPatch, seed: int, has: bool) -> None:
    pairing = two_messages.Pairing(sha256._are_right)
    pairing._is_ready = has and two_messages.has_instructions()
    monkeypatch.setattr(sha256, "_PAIRING", pairing)
    given = messages(seed)
    assert sha256.digests(given) == [hashlib.sha256(one).digest() for one in given]
    views = [memoryview(bytearray(one)) for one in given]
    assert sha256.digests(views) == sha256.digests(given)


def test_two_messages_of_any_lengths() -> None:
    if not two_messages.has_instructions():  # hashlib has all to itself
        assert not two_messages.Pairing(sha256._are_right).is_due(1 << 40)
        return
    there = random.Random(0)
    for one in LENGTHS:
        for other in LENGTHS:
            pair = there.randbytes(one), there.randbytes(other)
            assert sha256._both(*pair) == tuple(hashlib.sha256(data).digest() for data in pair)


def test_a_processor_whose_digests_are_wrong_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_messages, "has_instructions", lambda: True)
    monkeypatch.setattr(sha256, "is_saved", lambda *_: True)
    with monkeypatch.context() as patched:
        patched.setattr(sha256, "_both", lambda *_: (bytes(32), bytes(32)))
        assert not two_messages.Pairing(sha256._are_right).is_due(1 << 40)
    right = tuple(hashlib.sha256(bytes(range(size))).digest() for size in (200, 100))
    monkeypatch.setattr(sha256, "_both", lambda *_: right)
    assert two_messages.Pairing(sha256._are_right).is_due(1 << 40)


def test_a_processor_without_the_instructions_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "is_saved", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(linker, "processor", lambda: ("", "", "+avx2,-sha,+sha512"))
    assert not two_messages.Pairing(sha256._are_right).is_due(1 << 40)


def test_nobody_waits_for_the_kernel_and_what_is_saved_is_used_without_numba(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env |= {"NUMBA_CACHE_DIR": str(tmp_path)}
    has, command = two_messages.has_instructions(), [sys.executable, "-c", A_FIRST_RUN]
    for is_saved in (False, True):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["False", f"False {has and is_saved}", str(has)]


def test_workers_compile_the_kernel() -> None:
    spelled = ", ".join(map(linked.spell, sha256._arguments(b"", b"")))
    assert f"digests.sha256._digest {spelled}" in [line for group in _signatures.declared() for line in group]


def test_instructions_are_for_kernels() -> None:
    with pytest.raises(TypeError, match="two_messages is called by kernels only"):
        Instructions("theta_native.digests.sha_extensions", "two_messages")(1)
