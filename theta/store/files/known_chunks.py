"""The chunks that were hashed before, by a keyed hash that takes a fraction of the time of SHA-256.

A file that is added again has mostly tensors that it had before.  Their digests are looked up by that hash,
which nobody can make collide without its key, and the key never leaves the worktree
(:mod:`theta_native.digests.keyed`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from theta import _kernels as kernels
from theta import _notes
from theta.errors import DiskError, NoSpaceError
from theta.store.format.tensor_tree import Chunk

_LEAST: Final = 1 << 18
"""Bytes of a chunk from which on a look-up takes less time than its digest."""
_MOST: Final = 1 << 13
"""Chunks that are remembered: of 32 GB."""
_VERSION: Final = "theta.known/v1"
_SECRET, _DIGEST = 32, hashlib.sha256().digest_size


class KnownChunks:
    """Keyed hash -> digest of chunks, kept at ``path``; threads may share it.

    Nobody waits for its kernel to be compiled: without it, chunks are hashed as others are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._secret, self._known = b"", dict[str, str]()
        self._used: dict[str, str] = {}
        self._hash: kernels.keyed.KeyedHash | None = None

    def chunks(self, raws: Sequence[bytes | memoryview]) -> tuple[Chunk, ...]:
        """Return the chunks with these raw bytes."""
        if max(map(len, raws), default=0) < _LEAST or (made := self._ready()) is None:
            return Chunk.of_each(raws)
        keys = [made.of(raw).hex() if len(raw) >= _LEAST else "" for raw in raws]
        found = [self._known.get(key) if key else None for key in keys]
        rest = iter(Chunk.of_each([raw for raw, digest in zip(raws, found, strict=True) if digest is None]))
        chunks = [
            next(rest) if digest is None else Chunk(len(raw), bytes.fromhex(digest))
            for raw, digest in zip(raws, found, strict=True)
        ]
        self._used |= {key: chunk.digest.hex() for key, chunk in zip(keys, chunks, strict=True) if key}
        return tuple(chunks)

    def save(self) -> None:
        """Write what was used; losing it costs time only, so it is not fsynced, and may fail."""
        if not self._used or self._used.items() <= self._known.items():
            return
        others = [row for row in self._known.items() if row[0] not in self._used]
        rows = [*others, *self._used.items()][-_MOST:]
        text = json.dumps({"secret": self._secret.hex(), "chunks": dict(rows)})
        with contextlib.suppress(DiskError, NoSpaceError):
            _notes.write(self._path, json.dumps({_VERSION: text, "sha256": _checksum(text)}), secret=True)

    def _ready(self) -> kernels.keyed.KeyedHash | None:
        """Return the hash, if its kernel is compiled; the note is read when it is first asked for."""
        with self._lock:
            if self._hash is None:
                if not self._secret:
                    self._secret, self._known = _load(self._path)
                made = kernels.keyed.KeyedHash(self._secret)
                self._hash = made if made.is_ready() else None
            return self._hash


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _load(path: Path) -> tuple[bytes, dict[str, str]]:
    """Return the secret and the chunks; a new secret and no chunks if a byte of the note is not as it was."""
    note = _notes.read_json(path)
    text = note.get(_VERSION)
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if isinstance(text, str) and note.get("sha256") == _checksum(text):
            body: dict[str, Any] = json.loads(text)
            rows = body["chunks"].items()
            known = {key: digest for key, digest in rows if len(bytes.fromhex(digest)) == _DIGEST}
            if len(secret := bytes.fromhex(body["secret"])) == _SECRET:
                return secret, known
    return secrets.token_bytes(_SECRET), {}
