"""The digests of the files and tensors of a commit, from its objects or from the files of the worktree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from theta.errors import ThetaError
from theta.git.repository import STORES
from theta.porcelain.signing.statements import IGNORED, Statement
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store import changes
from theta.store.files import file_scan
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest
from theta.store.read.random_access import StoredSource

_PIECE: Final = 4 << 20


def of_commit(session: Session, commit: str, progress: Progress | None = None) -> Statement:
    """Read all of a commit; each chunk of a tensor is proven by its digest while it is read."""
    manifests = _manifests(session, commit)
    begin(progress, "hashing", sum(one.nbytes for one in manifests.values()), "files")
    for manifest in manifests.values():
        session.objects.expect(manifest.trees())
    blobs = dict(_files(session, commit))
    session.repo.promised.expect(blobs.values())
    files = {}
    for path, oid in blobs.items():
        if path in manifests:
            files[path] = _of_stored(session, manifests[path], progress)
        else:
            files[path] = hashlib.sha256(session.repo.read_blob(oid)).hexdigest()
    tensors = {path: _lines(manifest) for path, manifest in manifests.items()}
    return Statement(_name(session), commit, files, tensors)


def of_worktree(
    session: Session, commit: str, signed: Statement, progress: Progress | None = None
) -> Statement:
    """Read the files of the worktree, without those that git ignores.

    One that is the manifest of the commit, as theta leaves it in a lazy clone, is read stored.  Of files that
    differ, the tensors are read too.
    """
    manifests = _manifests(session, commit)
    begin(progress, "hashing", sum(one.nbytes for one in manifests.values()), "files")
    files: dict[str, str] = {}
    tensors: dict[str, Mapping[str, str]] = {}
    for path, oid in _files(session, commit):
        place = session.repo.worktree / path
        manifest = manifests.get(path)
        if manifest is not None and _is_blob(session, worktree.peek(place), oid):
            files[path], tensors[path] = _of_stored(session, manifest, progress), _lines(manifest)
        elif place.is_file() and not place.is_symlink():
            files[path] = _of_file(place, progress)
            if manifest is not None:
                same = files[path] == signed.files.get(path)
                tensors[path] = signed.tensors.get(path, {}) if same else _scanned(session, path, manifest)
    for path in _added(session, commit):
        place = session.repo.worktree / path
        files[path] = _of_file(place, progress) if place.is_file() and not place.is_symlink() else ""
    return Statement(_name(session), commit, files, tensors)


def _is_blob(session: Session, text: bytes | None, oid: str) -> bool:
    return text is not None and session.repo.format.blob_id(text) == oid


def _added(session: Session, commit: str) -> Iterator[str]:
    """Yield the files and links of the worktree that the commit has not; programs may load them instead."""
    known = set(session.repo.git().lines("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit))
    words = ("ls-files", "-z", "-c", "-o", "--exclude-standard", "--full-name", "--", ":(top)")
    for path in dict.fromkeys(session.repo.git().lines(*words)):
        is_there = path not in known and os.path.lexists(session.repo.worktree / path)
        if is_there and path.partition("/")[0] not in (*IGNORED, STORES):
            yield path


def _name(session: Session) -> str:
    return session.repo.top.name or "model"


def _files(session: Session, commit: str) -> Iterator[tuple[str, str]]:
    """Yield path and blob of the regular files; of what Model Signing leaves out at the root, none."""
    for path, entry in session.repo.walk_blobs(session.repo.tree_of(commit)):
        if path.partition("/")[0] not in IGNORED:
            yield path, entry.id


def _manifests(session: Session, commit: str) -> Mapping[str, Manifest]:
    session.expect_trees([commit])
    return session.at(commit).manifests


def _lines(manifest: Manifest) -> Mapping[str, str]:
    return {line.name: _told(line.dtype, line.shape, line.digest) for line in manifest.lines}


def _told(dtype: str, shape: tuple[int, ...], digest: str) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}] {digest}"


def _of_stored(session: Session, manifest: Manifest, progress: Progress | None) -> str:
    source, digest = StoredSource(session.objects, manifest), hashlib.sha256()
    for offset in range(0, source.size, _PIECE):
        piece = source.read(offset, min(_PIECE, source.size - offset))
        digest.update(piece)
        if progress is not None:
            progress(len(piece))
    return digest.hexdigest()


def _of_file(place: Path, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            if progress is not None:
                progress(len(piece))
    return digest.hexdigest()


def _scanned(session: Session, path: str, manifest: Manifest) -> Mapping[str, str]:
    """Return the tensors of a file; nothing for one that cannot be read as the checkpoint it was."""
    kept = worktree.skeleton_of(session, manifest)
    with suppress(ThetaError, OSError), FileSource(session.repo.worktree / path, path) as source:
        version = changes.of_scan(file_scan.scan(source, manifest, kept, None), manifest.skeleton)
        found = version.values.items()
        return {name: _told(value.dtype, value.shape, value.digest) for name, value in found}
    return {}
