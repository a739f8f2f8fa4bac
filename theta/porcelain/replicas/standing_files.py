"""The files of a folder, compared with the version that they are to become."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs
from theta.errors import ThetaError, WouldOverwriteError
from theta.git.object_values import MODE_TREE
from theta.lazy import Module
from theta.porcelain.replicas import half_written
from theta.porcelain.replicas.replica_state import ReplicaState
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource, Identity
from theta.store.format.manifest import Manifest

if TYPE_CHECKING:
    from theta.store.files import file_scan
    from theta.store.format import skeleton as skeletons
    from theta.store.read import revising
    from theta.store.read.revising import Had
else:
    file_scan = Module("theta.store.files.file_scan")
    revising = Module("theta.store.read.revising")
    skeletons = Module("theta.store.format.skeleton")

_MOST_VERSIONS: Final = 64
"""Versions of the history that an unknown file is compared with."""
_MOST_READ: Final = 1 << 30
"""Bytes of the largest file that is no checkpoint and that is compared."""


class Standing(Enum):
    """The relation of a file to the version that is applied."""

    SAME = "same"
    """The file is what it is to become."""
    OURS = "ours"
    """Another version, or what an apply that was cut short left: nothing is lost with it."""
    ABSENT = "absent"
    FOREIGN = "foreign"
    """Its content is in no version that is known here."""


@dataclass(frozen=True)
class Wanted:  # of a version that is applied; restoring's is that of a worktree
    """A file of the version that is applied; ``manifest`` is None for one that is no checkpoint."""

    path: str
    blob: str
    mode: int
    manifest: Manifest | None


@dataclass(frozen=True)
class Stood:
    """The file at a path before it is changed.

    Attributes:
        standing: what it is.
        had: the tensors that it has, for a checkpoint whose parts are known.
        skeleton: the tree of its skeleton, if it is the file of a known version.
        cut_short: an apply was killed while it wrote this file.
        identity: its stat data; None when there is no file.
    """

    standing: Standing
    had: list[Had] = field(default_factory=list)
    skeleton: str = ""
    cut_short: bool = False
    identity: Identity | None = None


class Folder:
    """The files of a folder: ``state`` tells what they were, the history of ``commit`` what they may be."""

    def __init__(self, session: Session, state: ReplicaState, commit: str) -> None:
        self._session, self._state, self._commit = session, state, commit

    def look(self, wanted: Wanted, place: Path) -> Stood:
        """Examine the file at ``place``; it is read only if its stat data do not tell what it is."""
        try:
            info = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return Stood(Standing.ABSENT)
        except OSError as error:  # such as a name that is longer than the file system takes
            raise _fs.as_theta_error(error, place) from error
        if stat.S_ISDIR(info.st_mode):
            raise WouldOverwriteError(f"a directory is where {wanted.path} belongs", hint="move it away")
        if not stat.S_ISREG(info.st_mode):
            return Stood(Standing.FOREIGN, identity=Identity.of(info))
        return replace(self._examined(wanted, place, info), identity=Identity.of(info))

    def _examined(self, wanted: Wanted, place: Path, info: os.stat_result) -> Stood:
        known, writing = self._state.files.get(wanted.path), self._state.writing.get(wanted.path)
        cut = writing is not None and writing.is_of(info)
        if known is not None and not cut and known.is_of(info):
            return self._as_left(wanted, place, known.blob)
        blobs = [*(writing.blobs if writing else ()), *([known.blob] if known else ())]
        return self._by_reading(wanted, place, blobs, cut=cut)

    def _as_left(self, wanted: Wanted, place: Path, blob: str) -> Stood:
        if blob == wanted.blob:
            return Stood(Standing.SAME)
        manifest = self._manifest(blob)
        if wanted.manifest is None or manifest is None:
            # Its version is not here any more.  It is ours all the same.
            return Stood(Standing.OURS, self._scanned(wanted, place))
        if manifest.same_value(wanted.manifest):
            return Stood(Standing.SAME)
        return Stood(Standing.OURS, self._had(manifest), manifest.skeleton)

    def _by_reading(self, wanted: Wanted, place: Path, blobs: list[str], *, cut: bool) -> Stood:
        if wanted.manifest is None:
            found = self._standing_of_bytes(wanted, place, blobs)
            cut = cut and found is Standing.FOREIGN and self._is_half_written(wanted, place, blobs)
            return Stood(Standing.OURS if cut else found, cut_short=cut)
        kept = worktree.skeleton_of(self._session, wanted.manifest)
        with FileSource(place, wanted.path) as source:
            scan = file_scan.scan(source, wanted.manifest, kept)
        digests = scan.digests()
        for manifest in self._versions(wanted, blobs):
            same = digests == {line.name: line.digest for line in manifest.lines}
            # Asked for last: the skeleton of an old version may not be here, or be fetched.
            if same and scan.skeleton == worktree.skeleton_of(self._session, manifest):
                standing = Standing.SAME if manifest is wanted.manifest else Standing.OURS
                return Stood(standing, self._had(manifest), manifest.skeleton)
        cut = cut and self._is_half_written(wanted, place, blobs)
        return Stood(Standing.OURS if cut else Standing.FOREIGN, _of_scan(scan), cut_short=cut)

    def _is_half_written(self, wanted: Wanted, place: Path, blobs: list[str]) -> bool:
        """Return whether all of the file is of the versions ``blobs``, the first of which was being written.

        Where it is not known what was there before, that may be any version of the history.
        """
        is_known = wanted.path in self._state.files
        found = map(self._manifest, [*blobs, *(() if is_known else self._history(wanted.path))])
        manifests = [manifest for manifest in found if manifest is not None]
        with FileSource(place, wanted.path) as source:
            return bool(manifests) and half_written.is_mixture(self._session.objects, source, manifests)

    def _standing_of_bytes(self, wanted: Wanted, place: Path, blobs: list[str]) -> Standing:
        """Compare a file that is no checkpoint; one that the repository has is not lost."""
        with FileSource(place, wanted.path) as source:
            if source.size > _MOST_READ:
                return Standing.FOREIGN
            oid = self._session.repo.format.blob_id(source.read(0, source.size))
        if oid == wanted.blob:
            return Standing.SAME
        return Standing.OURS if oid in blobs or self._session.repo.has(oid) else Standing.FOREIGN

    def _scanned(self, wanted: Wanted, place: Path) -> list[Had]:
        if wanted.manifest is None:
            return []
        with FileSource(place, wanted.path) as source:
            return _of_scan(file_scan.scan(source, None, None))

    # -- versions -----------------------------------------------------------------------------

    def _manifest(self, blob: str) -> Manifest | None:
        """Return the manifest in ``blob`` if it is here."""
        if not self._session.objects.has(blob):
            return None
        try:
            return self._session.manifest_or_none(blob)
        except ThetaError:
            return None

    def _had(self, manifest: Manifest) -> list[Had]:
        try:
            return revising.had_of(skeletons.read(self._session.objects, manifest.skeleton), manifest)
        except ThetaError:
            return []

    def _versions(self, wanted: Wanted, blobs: list[str]) -> Iterator[Manifest]:
        """Yield the versions that a file may be: the new one, those of ``blobs``, those of the history."""
        assert wanted.manifest is not None
        yield wanted.manifest
        for oid in dict.fromkeys([*blobs, *self._history(wanted.path)]):
            manifest = self._manifest(oid) if oid != wanted.blob else None
            if manifest is not None:
                yield manifest

    def _history(self, path: str) -> list[str]:
        """Return the blobs that first parents of the revision have at ``path``, newest first."""
        entries = (_entry(self._session, tree, path.split("/")) for tree in self._trees)
        return [oid for oid in entries if oid is not None]

    @cached_property
    def _trees(self) -> list[str]:
        """The trees of the newest commits that are here."""
        repo, found = self._session.repo, list[str]()
        commit = repo.commit_here(self._commit)
        while commit is not None and len(found) < _MOST_VERSIONS:
            found.append(commit.tree)
            commit = repo.commit_here(commit.parents[0]) if commit.parents else None
        return found


def _of_scan(scan: file_scan.Scan) -> list[Had]:
    digests = scan.digests()
    return [
        revising.Had(tensor.name, tensor.offset, digests[tensor.name], None, chunks)
        for tensor, chunks in zip(scan.layout.tensors, scan.chunks, strict=True)
        if tensor.length
    ]


def _entry(session: Session, tree: str, parts: list[str]) -> str | None:
    """Return the blob at a path below ``tree``, as far as trees are here."""
    for number, part in enumerate(parts):
        here = session.repo.tree_here(tree)
        entry = here.get(part) if here is not None else None
        if entry is None:
            return None
        if number == len(parts) - 1:
            return entry.id
        if entry.mode != MODE_TREE:
            return None
        tree = entry.id
    return None
