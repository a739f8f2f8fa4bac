"""Git LFS: pointers in the history, files below ``.git/lfs``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from theta.errors import CorruptError, NotFoundError
from theta.formats.layout import BytesSource, Source
from theta.git import lfs
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.migration.digests import sha256_of
from theta.porcelain.migration.origins import Elsewhere, Selected, Stub
from theta.store.files.file_source import FileSource

_OID: Final = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_SIZE: Final = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
_EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_HINT: Final = "'git lfs fetch --all' fetches every version"


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
    if not lfs.is_pointer(data) or oid is None or size is None or b"\next-" in data:
        return None
    return LfsPointer(oid[1].decode(), int(size[1]))


class LfsFiles:
    """The files that Git LFS keeps for a repository, by their SHA-256."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo

    @cached_property
    def root(self) -> Path:
        """The directory of the files; ``lfs.storage`` names another one."""
        said = self._repo.config.get("lfs.storage") or "lfs"
        return self._repo.commondir / Path(said).expanduser() / "objects"

    def place(self, oid: str) -> Path:
        """Return the place of the file whose SHA-256 is ``oid``."""
        return self.root / oid[:2] / oid[2:4] / oid

    def stub(self, pointer: LfsPointer) -> Stub:
        """Return the file that ``pointer`` stands for."""
        here = self.place(pointer.oid).is_file() or pointer.oid == _EMPTY
        lack = "" if here else f"Git LFS has not fetched {pointer.oid[:12]}: {_HINT}"
        return Stub(pointer.oid, pointer.size, lambda: self.opened(pointer), lack)

    @contextlib.contextmanager
    def opened(self, pointer: LfsPointer) -> Iterator[Source]:
        """Open the file; raises :class:`CorruptError` if it is not what ``pointer`` says."""
        if pointer.oid == _EMPTY:
            yield BytesSource(b"")
            return
        place = self.place(pointer.oid)
        if not place.is_file():
            raise NotFoundError(f"Git LFS has not fetched {pointer.oid[:12]}", hint=_HINT)
        with FileSource(place, f"the LFS object {pointer.oid[:12]}") as source:
            if source.size != pointer.size or sha256_of(source) != pointer.oid:
                raise CorruptError(f"{source.label} has other bytes than its name says", hint="git lfs fsck")
            yield source


class LfsOrigin:
    """Pointers of Git LFS."""

    label = "Git LFS"

    def __init__(self, repo: Repository, wanted: Selected) -> None:
        self._repo, self._wanted, self._files = repo, wanted, LfsFiles(repo)
        self._pointers: dict[str, LfsPointer | None] = {}

    def found(self, tree: Tree) -> Elsewhere:
        """Return the pointers of ``tree``."""
        found = Elsewhere()
        for path, entry in self._repo.walk_blobs(tree):
            if (pointer := self._pointer(entry.id)) is None:
                continue
            if self._wanted(path):
                found.files[path] = self._files.stub(pointer)
            else:
                found.left.add(path)
        return found

    def _pointer(self, oid: str) -> LfsPointer | None:
        if oid not in self._pointers:
            blob = self._repo.blob(oid)
            small = blob is not None and blob.size < lfs.MAX_BYTES
            self._pointers[oid] = parse(blob.data) if blob is not None and small else None
        return self._pointers[oid]
