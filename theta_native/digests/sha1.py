"""SHA-1 (FIPS 180-4) of several git blobs: two at a time, where the processor has instructions for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theta_native import Instructions, is_saved, kernel, unwritable
from theta_native.digests.sha256 import LARGE, Bytes, Message, Pairing

TwoBytes = tuple[Bytes, Bytes]
TwoBlobs = tuple[TwoBytes, TwoBytes, TwoBytes, NDArray[np.uint32]]

_BLOCK: Final = 64
_SPELLED: Final = "1032547698badcfeefcdab8967452301000000000000000000000000c3d2e1f0"
_FIRST: Final = np.frombuffer(3 * bytes.fromhex(_SPELLED), ">u4").astype(np.uint32)
"""The first states, in the order of the instructions (d c b a, 0 0 0 e), and room for one."""
_ORDER: Final = np.array([3, 2, 1, 0, 7, 11, 10, 9, 8, 15])
"""The places of a to e in both states."""

_two_messages = Instructions("theta_native.digests.sha_extensions", "two_messages_of_sha1")


@kernel
def _update(messages: TwoBytes, states: NDArray[np.uint32]) -> None:
    # As in theta_native.digests.sha256.
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
def _digest(starts: TwoBytes, messages: TwoBytes, ends: TwoBytes, states: NDArray[np.uint32]) -> None:
    _update(starts, states)
    _update(messages, states)
    _update(ends, states)


def _head(size: int) -> bytes:
    """Return what git hashes before a blob."""
    return b"blob %d\0" % size


def _bytes(data: Any) -> Bytes:
    return unwritable(np.frombuffer(data, np.uint8))


def _parts(data: Message) -> tuple[Bytes, Bytes, Bytes]:
    """Return the first block of a blob, the whole blocks behind it as they stand, and what ends them."""
    view, head = memoryview(data).cast("B"), _head(len(data))
    first = min(_BLOCK - len(head), len(view))
    whole = (len(view) - first) & -_BLOCK
    start, end = head + bytes(view[:first]), bytes(view[first + whole :])
    if len(start) < _BLOCK:
        start, end = b"", start
    end += b"\x80" + bytes((55 - len(end)) % _BLOCK) + (8 * (len(head) + len(view))).to_bytes(8, "big")
    return _bytes(start), _bytes(view[first : first + whole]), _bytes(end)


def _arguments(first: Message, second: Message) -> TwoBlobs:
    (start, message, end), (other_start, other_message, other_end) = _parts(first), _parts(second)
    return (start, other_start), (message, other_message), (end, other_end), _FIRST.copy()


def _both(first: Message, second: Message) -> tuple[bytes, bytes]:
    """Return the ids of two blobs."""
    arguments = _arguments(first, second)
    _digest(*arguments)
    both = arguments[3][_ORDER].astype(">u4").tobytes()
    return both[:20], both[20:]


def _alone(data: Message) -> bytes:
    found = hashlib.sha1(_head(len(data)), usedforsecurity=False)
    found.update(data)
    return found.digest()


def _are_right() -> bool:
    """Return whether the kernel is compiled, and the ids of two blobs come out right."""
    probe = bytes(range(200)), bytes(range(100))
    return is_saved(_digest, *_arguments(*probe)) and _both(*probe) == tuple(map(_alone, probe))


_PAIRING: Final = Pairing(lambda: _are_right())


def blob_ids(blobs: Sequence[Message]) -> list[bytes]:
    """Return the id that git gives each blob in a repository of SHA-1."""
    large = [k for k, data in enumerate(blobs) if len(data) >= LARGE]
    found = [b""] * len(blobs)
    if len(large) > 1 and _PAIRING.is_due(sum(len(blobs[k]) for k in large)):
        large.sort(key=lambda k: len(blobs[k]), reverse=True)
        for one, other in zip(large[::2], large[1::2], strict=False):
            found[one], found[other] = _both(blobs[one], blobs[other])
    return [one or _alone(data) for one, data in zip(found, blobs, strict=True)]
