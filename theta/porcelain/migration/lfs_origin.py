"""Git LFS: pointers in the history, files below ``.git/lfs``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from theta.errors import CorruptError, NotFoundError
from theta.formats.layout import BytesSource, Source
from theta.git import lfs
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.migration.digests import sha256_of
from theta.porcelain.migration.origins import Elsewhere, Selected, Stub
from theta.store.files.file_source import FileSource

_EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class LfsFiles:
    """The files that Git LFS keeps for a repository, by their SHA-256."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo

    def stub(self, pointer: lfs.LfsPointer) -> Stub:
        """Return the file that ``pointer`` stands for."""
        here = lfs.place(self._repo, pointer.oid).is_file() or pointer.oid == _EMPTY
        lack = "" if here else f"Git LFS has not fetched {pointer.oid[:12]}: {lfs.FETCH_ALL}"
        return Stub(pointer.oid, pointer.size, lambda: self.opened(pointer), lack)

    @contextlib.contextmanager
    def opened(self, pointer: lfs.LfsPointer) -> Iterator[Source]:
        """Open the file; raises :class:`CorruptError` if it is not what ``pointer`` says."""
        if pointer.oid == _EMPTY:
            yield BytesSource(b"")
            return
        place = lfs.place(self._repo, pointer.oid)
        if not place.is_file():
            raise NotFoundError(f"Git LFS has not fetched {pointer.oid[:12]}", hint=lfs.FETCH_ALL)
        with FileSource(place, f"the LFS object {pointer.oid[:12]}") as source:
            if source.size != pointer.size or sha256_of(source) != pointer.oid:
                raise CorruptError(f"{source.label} has other bytes than its name says", hint="git lfs fsck")
            yield source


class LfsOrigin:
    """Pointers of Git LFS."""

    label = "Git LFS"

    def __init__(self, repo: Repository, wanted: Selected) -> None:
        self._repo, self._wanted, self._files = repo, wanted, LfsFiles(repo)
        self._pointers: dict[str, lfs.LfsPointer | None] = {}

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

    def _pointer(self, oid: str) -> lfs.LfsPointer | None:
        if oid not in self._pointers:
            blob = self._repo.blob(oid)
            small = blob is not None and blob.size < lfs.MAX_BYTES
            self._pointers[oid] = lfs.parse(blob.data) if blob is not None and small else None
        return self._pointers[oid]
