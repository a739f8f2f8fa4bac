"""The files of a commit, written to a folder of the user's own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from theta import _fs, _room
from theta.errors import NotFoundError, WouldOverwriteError
from theta.git.repository import ATTRIBUTES
from theta.porcelain.tensors import sources
from theta.porcelain.workspace import name_twins, worktree
from theta.porcelain.workspace.session import Session
from theta.store.files import file_scan
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest


@dataclass(frozen=True)
class _Coming:
    """A file of the commit: the id of its blob, and what it stands for if that is a manifest."""

    path: str
    oid: str
    manifest: Manifest | None


def write(session: Session, commit: str, folder: Path) -> None:
    """Write all files of ``commit`` below ``folder``, without ``.gitattributes``.

    Files that are there and equal stay as they are.

    Raises:
        WouldOverwriteError: another file is there, or a path that must not be written; nothing was.
        NoSpaceError: the disk is full.
        NotHereYetError: the remote of a partial clone cannot be reached.
    """
    coming = list(_of(session, commit))
    trees = [file.manifest.trees() for file in coming if file.manifest]
    session.objects.expect({oid: size for found in trees for oid, size in found.items()})
    missing = [file for file in coming if not _is_there(session, file, folder / file.path)]
    _fs.make_dirs(folder)
    name_twins.require_none((file.path for file in coming), folder)
    _room.require(folder, sum(file.manifest.nbytes for file in missing if file.manifest))
    for file, place in [(file, _fs.safe_target(folder, file.path)) for file in missing]:
        _write(session, file, place)


def read(session: Session, commit: str, path: str) -> bytes:
    """Return the bytes of one file of ``commit``; raises :class:`NotFoundError` if there is none."""
    entry = session.repo.tree_of(commit).get(path)
    if entry is None or not entry.is_file:
        raise NotFoundError(f"there is no file {path} in {commit}")
    found = session.at(commit)
    if path not in found:
        return session.repo.read_blob(entry.id)
    with _fs.temporary_directory("theta-read-") as folder:
        sources.copy_exactly(session, session.manifest(entry.id), folder / "file", force=False)
        return (folder / "file").read_bytes()


def _of(session: Session, commit: str) -> Iterator[_Coming]:
    found = session.at(commit)
    for path, entry in session.repo.walk_blobs(session.repo.tree_of(commit)):
        if path.rpartition("/")[2] != ATTRIBUTES:
            yield _Coming(path, entry.id, session.manifest(entry.id) if path in found else None)


def _is_there(session: Session, file: _Coming, place: Path) -> bool:
    """Return whether the file is there and equal; raises :class:`WouldOverwriteError` for another one."""
    try:
        is_file = stat.S_ISREG(os.lstat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if is_file and _equals(session, file, place):
        return True
    raise WouldOverwriteError(f"another file is at {place}", hint="move it away, or choose another folder")


def _equals(session: Session, file: _Coming, place: Path) -> bool:
    with FileSource(place) as source:
        if file.manifest is None:
            data = session.repo.read_blob(file.oid)
            return source.size == len(data) and source.read(0, source.size) == data
        kept = worktree.skeleton_of(session, file.manifest)
        return file_scan.scan(source, file.manifest, kept).equals(file.manifest, kept)


def _write(session: Session, file: _Coming, place: Path) -> None:
    if file.manifest is None:
        _fs.write_atomic(place, session.repo.read_blob(file.oid))
    else:
        sources.copy_exactly(session, file.manifest, place, force=False)
