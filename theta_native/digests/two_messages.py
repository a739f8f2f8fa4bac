"""Two messages at a time, where the processor has instructions for their digests.

A block is a chain of instructions that wait for each other, so that two chains take the time of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import Instructions, kernel, unwritable

Message = bytes | memoryview
Bytes = NDArray[np.uint8]
TwoBytes = tuple[Bytes, Bytes]
States = NDArray[np.uint32]
"""Eight words of each message, in the order of the instructions, and room for one."""

LARGE: Final = 1 << 15
"""The bytes of a message from which on two at once are faster than hashlib one by one."""
WORTH_LINKING: Final = 32 << 20
"""The bytes of large messages, of all calls, from which on a kernel saves more than its loading takes."""
BLOCK: Final = 64
"""The bytes of a block."""

_by_sha1 = Instructions("theta_native.digests.sha_extensions", "two_messages_of_sha1")
_by_sha256 = Instructions("theta_native.digests.sha_extensions", "two_messages")


@kernel
def _take(one: Bytes, other: Bytes, blocks: int, states: States, is_sha1: bool) -> None:
    if is_sha1:
        _by_sha1(one, other, np.uint64(blocks), states)
    else:
        _by_sha256(one, other, np.uint64(blocks), states)


@kernel
def update(messages: TwoBytes, states: States, is_sha1: bool) -> None:
    """Take the whole blocks of two messages into their states, of SHA-1 or of SHA-256."""
    # What one message has more is taken twice, which costs no time; the state of the other one is put back.
    one, other = messages
    ones, others = one.size >> 6, other.size >> 6
    common = min(ones, others)
    _take(one, other, common, states, is_sha1)
    kept = 8 if ones > others else 0
    rest = one if ones > others else other
    if ones != others:
        for k in range(8):
            states[16 + k] = states[kept + k]
        rest = rest[common << 6 :]
        _take(rest, rest, rest.size >> 6, states, is_sha1)
        for k in range(8):
            states[kept + k] = states[16 + k]


def as_bytes(data: Any) -> Bytes:
    """Return ``data`` as the kernels take it."""
    return unwritable(np.frombuffer(data, np.uint8))


def ended(rest: bytes, size: int) -> bytes:
    """Return ``rest``, behind the last whole block of a message of ``size`` bytes, and padding."""
    return rest + b"\x80" + bytes((55 - len(rest)) % BLOCK) + (8 * size).to_bytes(8, "big")


def spelled(states: States, order: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Return the digests of two messages, of which ``order`` has the places in ``states``."""
    both = states[order].astype(">u4").tobytes()
    return both[: len(both) // 2], both[len(both) // 2 :]


def has_instructions() -> bool:
    """Return whether the processor has the SHA extensions of x86."""
    from theta_native.object_code import linker

    return "+sha" in linker.processor()[2].split(",")


class Pairing:
    """Tells when two messages are taken at once: after many bytes, and where the kernel is compiled.

    It is compiled with those that commands need.  Nobody waits for it: hashlib does the same.

    Args:
        are_right: whether the kernel is there, and its digests are right.
    """

    def __init__(self, are_right: Callable[[], bool]) -> None:
        self._are_right = are_right
        self._nbytes, self._is_ready = 0, False

    def is_due(self, nbytes: int) -> bool:
        """Return whether the next ``nbytes`` of large messages are to be taken two at a time."""
        if not self._is_ready:
            self._nbytes += nbytes
            if self._nbytes >= WORTH_LINKING:
                self._nbytes, self._is_ready = 0, has_instructions() and self._are_right()
        return self._is_ready


def each(
    messages: Sequence[Message],
    pairing: Pairing,
    both: Callable[[Message, Message], tuple[bytes, bytes]],
    alone: Callable[[Message], bytes],
) -> list[bytes]:
    """Return the digest of each message: large ones two at a time by ``both``, others by ``alone``."""
    large = [k for k, data in enumerate(messages) if len(data) >= LARGE]
    found = [b""] * len(messages)
    if len(large) > 1 and pairing.is_due(sum(len(messages[k]) for k in large)):
        large.sort(key=lambda k: len(messages[k]), reverse=True)
        for one, other in zip(large[::2], large[1::2], strict=False):
            found[one], found[other] = both(messages[one], messages[other])
    return [one or alone(data) for one, data in zip(found, messages, strict=True)]
