"""Pointer files of Git LFS: small texts in place of files that are stored elsewhere.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from theta.errors import CorruptError, PointerError

if TYPE_CHECKING:
    from theta.git.repository import Repository

MAX_BYTES: Final = 1024
"""The specification requires that a pointer is shorter than this."""

FILTER: Final = "lfs"
"""The filter that Git LFS has in attributes."""

_VERSIONS: Final = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",
)
_OID: Final = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_SIZE: Final = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
FETCH: Final = "'git lfs pull' fetches the files that pointers stand for"
FETCH_ALL: Final = "'git lfs fetch --all' fetches every version"


@dataclass(frozen=True)
class LfsPointer:
    """The content of a pointer: the SHA-256 of the file in hex digits, and its size in bytes."""

    oid: str
    size: int


def parse(data: bytes) -> LfsPointer | None:
    """Return the content of the pointer ``data``; None when it is none, or one with extensions.

    https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    data = data.replace(b"\r\n", b"\n")
    oid, size = _OID.search(data), _SIZE.search(data)
    if not is_pointer(data) or oid is None or size is None or b"\next-" in data:
        return None
    return LfsPointer(oid[1].decode(), int(size[1]))


def place(repo: Repository, oid: str) -> Path:
    """Return where Git LFS keeps a file, once it has it; ``lfs.storage`` names the root.

    ``oid`` is its SHA-256 in hex digits.
    """
    root = repo.commondir / Path(repo.config.get("lfs.storage") or "lfs").expanduser()
    return root / "objects" / oid[:2] / oid[2:4] / oid


def text(repo: Repository, data: bytes, label: str, most: int) -> bytes:
    """Return ``data``, or if that is a pointer, the file that it stands for.

    Raises :class:`PointerError` where Git LFS has not fetched it, or it has more than ``most`` bytes, and
    :class:`CorruptError` where it is not what the pointer says.  ``label`` names it.
    """
    if not is_pointer(data):
        return data
    pointer = parse(data)
    if pointer is None or pointer.size > most:
        raise PointerError(f"{label} is a Git LFS pointer to a file that is not read")
    found = place(repo, pointer.oid)
    if not found.is_file():
        raise PointerError(f"{label} is a Git LFS pointer, and its file is not here", hint=FETCH_ALL)
    with found.open("rb") as file:
        whole = file.read(pointer.size + 1)
    if hashlib.sha256(whole).hexdigest() != pointer.oid:
        raise CorruptError(f"{label} has other bytes in Git LFS than its pointer says", hint="git lfs fsck")
    return whole


def refusal(path: str) -> PointerError:
    """Return the error that the file at ``path`` is a pointer."""
    return PointerError(
        f"{path} is a Git LFS pointer, not the file itself", hint=f"{FETCH}; then 'theta add {path}'"
    )


def staged(path: str) -> PointerError:
    """Return the error that a pointer is staged for the file at ``path``, which is here."""
    return PointerError(
        f"{path} is staged as a Git LFS pointer, not as the file itself",
        hint=f"'theta add {path}' stages the file",
    )


def is_pointer(data: bytes) -> bool:
    """Return whether ``data`` is a complete pointer."""
    return len(data) < MAX_BYTES and data.replace(b"\r\n", b"\n").startswith(_VERSIONS) and b"\noid " in data


class Readable(Protocol):
    """A file with random access."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        ...


def pointer_in(source: Readable) -> bytes | None:
    """Return the content of ``source`` if it is a pointer, otherwise None."""
    if source.size >= MAX_BYTES:
        return None
    data = source.read(0, source.size)
    return data if is_pointer(data) else None


def pointer_at(path: Path) -> bytes | None:
    """Return the content of the file at ``path`` if it is a pointer, otherwise None."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size >= MAX_BYTES:
            return None
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES)
    except OSError:
        return None
    return data if is_pointer(data) else None
