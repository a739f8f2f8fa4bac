"""Digests of whole files, a piece at a time."""

from __future__ import annotations

import hashlib
from typing import Final

from theta.formats.layout import Source

_PIECE: Final = 8 << 20


def sha256_of(source: Source) -> str:
    """Return the SHA-256 of all bytes of ``source`` in hex digits."""
    return _digest(hashlib.sha256(), source)


def md5_of(source: Source) -> str:
    """Return the MD5 of all bytes of ``source`` in hex digits, by which DVC names files."""
    return _digest(hashlib.md5(usedforsecurity=False), source)


def _digest(state: hashlib._Hash, source: Source) -> str:
    for offset in range(0, source.size, _PIECE):
        state.update(source.read(offset, min(_PIECE, source.size - offset)))
    return state.hexdigest()
