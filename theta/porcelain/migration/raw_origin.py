"""Checkpoints that were committed to git as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from theta.formats.layout import BytesSource, Source
from theta.git import lfs
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.migration.origins import Elsewhere, Selected, Stub
from theta.store.format.manifest import MAX_BYTES, looks_like_manifest


class RawOrigin:
    """Blobs of git; one is read whole."""

    label = "plain git"

    def __init__(self, repo: Repository, wanted: Selected) -> None:
        self._repo, self._wanted = repo, wanted
        self._stubs: dict[str, Stub | None] = {}

    def found(self, tree: Tree) -> Elsewhere:
        """Return the wanted files of ``tree`` that no other store has."""
        found = Elsewhere()
        for path, entry in self._repo.walk_blobs(tree):
            if self._wanted(path) and (stub := self._stub(entry.id)) is not None:
                found.files[path] = stub
        return found

    def _stub(self, oid: str) -> Stub | None:
        if oid not in self._stubs:
            blob = self._repo.blob(oid)
            head = blob.data if blob is not None and blob.size <= MAX_BYTES else b""
            foreign = blob is None or lfs.is_pointer(head) or looks_like_manifest(head)
            self._stubs[oid] = (
                None if blob is None or foreign else Stub(oid, blob.size, lambda: self._open(oid))
            )
        return self._stubs[oid]

    @contextlib.contextmanager
    def _open(self, oid: str) -> Iterator[Source]:
        yield BytesSource(self._repo.read_blob(oid))
