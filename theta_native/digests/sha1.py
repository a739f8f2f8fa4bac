"""SHA-1 (FIPS 180-4) of several git blobs: two at a time, where the processor has instructions for it."""

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

_SPELLED: Final = "1032547698badcfeefcdab8967452301000000000000000000000000c3d2e1f0"
_FIRST: Final = np.frombuffer(3 * bytes.fromhex(_SPELLED), ">u4").astype(np.uint32)
"""The first states, in the order of the instructions (d c b a, 0 0 0 e), and room for one."""
_ORDER: Final = np.array([3, 2, 1, 0, 7, 11, 10, 9, 8, 15])
"""The places of a to e in both states."""


@kernel
def _digest(starts: TwoBytes, messages: TwoBytes, ends: TwoBytes, states: States) -> None:
    update(starts, states, True)
    update(messages, states, True)
    update(ends, states, True)


def _head(size: int) -> bytes:
    """Return what git hashes before a blob."""
    return b"blob %d\0" % size


def _parts(data: Message) -> tuple[Bytes, Bytes, Bytes]:
    """Return the first block of a blob, the whole blocks behind it as they stand, and what ends them."""
    view, head = memoryview(data).cast("B"), _head(len(data))
    first = min(BLOCK - len(head), len(view))
    whole = (len(view) - first) & -BLOCK
    start, end = head + bytes(view[:first]), bytes(view[first + whole :])
    if len(start) < BLOCK:
        start, end = b"", start
    end = two_messages.ended(end, len(head) + len(view))
    return as_bytes(start), as_bytes(view[first : first + whole]), as_bytes(end)


def _arguments(first: Message, second: Message) -> tuple[TwoBytes, TwoBytes, TwoBytes, States]:
    (start, message, end), (other_start, other_message, other_end) = _parts(first), _parts(second)
    return (start, other_start), (message, other_message), (end, other_end), _FIRST.copy()


def _both(first: Message, second: Message) -> tuple[bytes, bytes]:
    """Return the ids of two blobs."""
    arguments = _arguments(first, second)
    _digest(*arguments)
    return two_messages.spelled(arguments[-1], _ORDER)


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
    return two_messages.each(blobs, _PAIRING, _both, _alone)
