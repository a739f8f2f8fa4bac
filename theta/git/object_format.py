"""The hash by which a repository names its objects: SHA-1 or SHA-256 (git's hash-function-transition)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

COMMIT: Final = "commit"
TREE: Final = "tree"
BLOB: Final = "blob"
TAG: Final = "tag"

ID: Final = r"(?:[0-9a-f]{64}|[0-9a-f]{40})"
"""The pattern of an id, of either hash."""
_ID: Final = re.compile(ID)


@dataclass(frozen=True)
class ObjectFormat:
    """One hash: its ``name``, which git and hashlib share, and the bytes of an id."""

    name: str
    size: int

    def is_id(self, text: str) -> bool:
        """Return whether ``text`` is a full id."""
        return len(text) == 2 * self.size and is_id(text)

    def hash(self, data: bytes = b"") -> _Hash:
        """Return a new hash object that is fed ``data``."""
        return _HASHES[self.name](data, usedforsecurity=False)

    def object_id(self, kind: str, parts: Iterable[bytes | memoryview], size: int) -> bytes:
        """Return the id of an object of ``size`` bytes whose bytes are ``parts``."""
        found = _HASHES[self.name](b"%s %d\0" % (kind.encode(), size), usedforsecurity=False)
        for part in parts:
            found.update(part)
        return found.digest()

    def blob_id(self, data: bytes) -> str:
        """Return the id of a blob of ``data``."""
        return self.object_id(BLOB, (data,), len(data)).hex()

    @property
    def empty_tree(self) -> str:
        """The id of the tree without entries, which git knows whether or not it is stored."""
        return self.object_id(TREE, (), 0).hex()


_HASHES: Final = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
SHA1: Final = ObjectFormat("sha1", 20)
SHA256: Final = ObjectFormat("sha256", 32)
FORMATS: Final = {form.name: form for form in (SHA1, SHA256)}


def is_id(text: str) -> bool:
    """Return whether ``text`` is a full id of either hash."""
    return _ID.fullmatch(text) is not None


def format_of(oid: str) -> ObjectFormat:
    """Return the hash of id ``oid``."""
    return SHA256 if len(oid) == 2 * SHA256.size else SHA1
