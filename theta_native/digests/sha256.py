"""SHA-256 (FIPS 180-4) of several messages: two at a time, where the processor has instructions for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theta_native import Instructions, is_saved, kernel, unwritable

Message = bytes | memoryview
Bytes = NDArray[np.uint8]
TwoMessages = tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes], NDArray[np.uint32]]

LARGE: Final = 1 << 15
"""The bytes of a message from which on two at once are faster than hashlib one by one."""
_WORTH_LINKING: Final = 32 << 20
"""The bytes of large messages, of all calls, from which on the kernel saves more than its loading takes."""
_BLOCK: Final = 64
_SPELLED: Final = "9b05688c510e527fbb67ae856a09e6675be0cd191f83d9aba54ff53a3c6ef372"
_FIRST: Final = np.frombuffer(3 * bytes.fromhex(_SPELLED), ">u4").astype(np.uint32)
"""The first states, in the order of the instructions (f e b a, h g d c), and room for one."""
_ORDER: Final = np.array([3, 2, 7, 6, 1, 0, 5, 4, 11, 10, 15, 14, 9, 8, 13, 12])
"""The places of a to h in both states."""

_two_messages = Instructions("theta_native.digests.sha_extensions", "two_messages")


@kernel
def _update(messages: tuple[Bytes, Bytes], states: NDArray[np.uint32]) -> None:
    # Whole blocks only.  What one message has more is taken twice, which costs no time; the state of the
    # other one is put back.
    one, other = messages
    ones, others = one.size >> 6, other.size >> 6
    common = min(ones, others)
    _two_messages(one, other, np.uint64(common), states)
    kept = 8 if ones > others else 0
    rest = one if ones > others else other
    if ones != others:
        for k in range(8):
            states[16 + k] = states[kept + k]
        rest = rest[common << 6 :]
        _two_messages(rest, rest, np.uint64(rest.size >> 6), states)
        for k in range(8):
            states[kept + k] = states[16 + k]


@kernel
def _digest(messages: tuple[Bytes, Bytes], ends: tuple[Bytes, Bytes], states: NDArray[np.uint32]) -> None:
    _update(messages, states)
    _update(ends, states)


def _ended(message: Bytes) -> bytes:
    """Return the bytes behind the last whole block, and what SHA-256 puts behind them."""
    rest = message[message.size & -_BLOCK :].tobytes()
    return rest + b"\x80" + bytes((55 - len(rest)) % _BLOCK) + (8 * message.size).to_bytes(8, "big")


def _bytes(data: Message) -> Bytes:
    return unwritable(np.frombuffer(data, np.uint8))


def _arguments(first: Message, second: Message) -> TwoMessages:
    one, other = _bytes(first), _bytes(second)
    return (one, other), (_bytes(_ended(one)), _bytes(_ended(other))), _FIRST.copy()


def _both(first: Message, second: Message) -> tuple[bytes, bytes]:
    """Return the digests of two messages."""
    arguments = _arguments(first, second)
    _digest(*arguments)
    both = arguments[2][_ORDER].astype(">u4").tobytes()
    return both[:32], both[32:]


def has_instructions() -> bool:
    """Return whether the processor has the SHA extensions of x86."""
    from theta_native.object_code import linker

    return "+sha" in linker.processor()[2].split(",")


def _are_right() -> bool:
    """Return whether the kernel is compiled, and the digests of two messages come out right."""
    probe = bytes(range(200)), bytes(range(100))
    expected = tuple(hashlib.sha256(message).digest() for message in probe)
    return is_saved(_digest, *_arguments(*probe)) and _both(*probe) == expected


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
            if self._nbytes >= _WORTH_LINKING:
                self._nbytes, self._is_ready = 0, has_instructions() and self._are_right()
        return self._is_ready


_PAIRING: Final = Pairing(lambda: _are_right())


def digests(messages: Sequence[Message]) -> list[bytes]:
    """Return the SHA-256 of each message."""
    large = [k for k, data in enumerate(messages) if len(data) >= LARGE]
    found = [b""] * len(messages)
    if len(large) > 1 and _PAIRING.is_due(sum(len(messages[k]) for k in large)):
        large.sort(key=lambda k: len(messages[k]), reverse=True)
        for one, other in zip(large[::2], large[1::2], strict=False):
            found[one], found[other] = _both(messages[one], messages[other])
    return [one or hashlib.sha256(data).digest() for one, data in zip(found, messages, strict=True)]
