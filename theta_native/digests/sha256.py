"""SHA-256 (FIPS 180-4) of several messages: two at a time, where the processor has instructions for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from theta_native import is_saved, kernel
from theta_native.digests import two_messages
from theta_native.digests.two_messages import (
    BLOCK,
    Bytes,
    Message,
    Pairing,
    States,
    TwoBytes,
    as_bytes,
    update,
)

_SPELLED: Final = "9b05688c510e527fbb67ae856a09e6675be0cd191f83d9aba54ff53a3c6ef372"
_FIRST: Final = np.frombuffer(3 * bytes.fromhex(_SPELLED), ">u4").astype(np.uint32)
"""The first states, in the order of the instructions (f e b a, h g d c), and room for one."""
_ORDER: Final = np.array([3, 2, 7, 6, 1, 0, 5, 4, 11, 10, 15, 14, 9, 8, 13, 12])
"""The places of a to h in both states."""


@kernel
def _digest(messages: TwoBytes, ends: TwoBytes, states: States) -> None:
    update(messages, states, False)
    update(ends, states, False)


def _end(message: Bytes) -> Bytes:
    rest = message[message.size & -BLOCK :].tobytes()
    return as_bytes(two_messages.ended(rest, message.size))


def _arguments(first: Message, second: Message) -> tuple[TwoBytes, TwoBytes, States]:
    one, other = as_bytes(first), as_bytes(second)
    return (one, other), (_end(one), _end(other)), _FIRST.copy()


def _both(first: Message, second: Message) -> tuple[bytes, bytes]:
    """Return the digests of two messages."""
    arguments = _arguments(first, second)
    _digest(*arguments)
    return two_messages.spelled(arguments[-1], _ORDER)


def _alone(data: Message) -> bytes:
    return hashlib.sha256(data).digest()


def _are_right() -> bool:
    """Return whether the kernel is compiled, and the digests of two messages come out right."""
    probe = bytes(range(200)), bytes(range(100))
    return is_saved(_digest, *_arguments(*probe)) and _both(*probe) == tuple(map(_alone, probe))


_PAIRING: Final = Pairing(lambda: _are_right())


def digests(messages: Sequence[Message]) -> list[bytes]:
    """Return the SHA-256 of each message."""
    return two_messages.each(messages, _PAIRING, _both, _alone)
