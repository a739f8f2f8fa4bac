"""The state of a folder that versions are applied to: what theta wrote there, and what it was writing.

It is in ``.theta-applied/`` of the folder, with a lock and the temporary files.  Anybody may have written
it, so that nothing in it counts before the files' stat data agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from theta import _fs, _notes
from theta.errors import WouldOverwriteError
from theta.git import processes
from theta.git.object_format import is_id
from theta.store.files.file_source import Identity

PRIVATE: Final = ".theta-applied"
"""The directory of theta in the folder; no file of a version goes there."""
_RESERVED: Final = (".", "..", ".git", PRIVATE)
_LONG: Final = 86_400.0
"""Seconds after which a temporary folder of another machine is one of the dead."""
_STATE: Final = "state.json"
_KEY: Final = "theta.applied/v1"


@dataclass(frozen=True)
class Known:
    """A file as theta left it: the blob that it is the file of, and its stat data at that time."""

    blob: str
    identity: Identity
    seen_ns: int

    def is_of(self, info: os.stat_result) -> bool:
        """Return whether the file with this stat data surely is the one that was left."""
        return Identity.of(info) == self.identity and not self.identity.is_racy(self.seen_ns)


@dataclass(frozen=True)
class Writing:
    """A file that is being written: the blob that it becomes; its inode and size if that is done in place.

    ``over`` are the blobs of earlier attempts, which were cut short too: some of their bytes may be left.
    """

    blob: str
    inode: int = 0
    device: int = 0
    size: int = 0
    over: tuple[str, ...] = ()

    def next(self, blob: str, info: os.stat_result) -> Writing:
        """Return the mark of ``blob``, which is written in place over what this one left."""
        left = (one for one in self.blobs if one != blob)
        return Writing(blob, info.st_ino, info.st_dev, info.st_size, tuple(left) if self.is_of(info) else ())

    def is_of(self, info: os.stat_result) -> bool:
        """Return whether the file with this stat data may be half written."""
        return (self.inode, self.device, self.size) == (info.st_ino, info.st_dev, info.st_size)

    @property
    def blobs(self) -> tuple[str, ...]:
        """All versions that were being written, the last attempt first."""
        return self.blob, *self.over


@dataclass(frozen=True)
class ReplicaState:
    """The content of a folder.

    Attributes:
        commit: the commit that was applied last; "" when none was, or one is not complete.
        files: path -> the file as it was left.
        writing: path -> what was being written there; empty when all is complete.
    """

    commit: str = ""
    files: Mapping[str, Known] = field(default_factory=dict)
    writing: Mapping[str, Writing] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether no apply was cut short."""
        return not self.writing


def read(folder: Path) -> ReplicaState:
    """Return the state of ``folder``; that of an untouched one when it has none that can be read."""
    body = _notes.read_json(folder / PRIVATE / _STATE).get(_KEY)
    if not isinstance(body, dict):
        return ReplicaState()
    files, writing = body.get("files"), body.get("writing")
    known = {path: _known(row) for path, row in files.items()} if isinstance(files, dict) else {}
    cut = {path: _writing(row) for path, row in writing.items()} if isinstance(writing, dict) else {}
    commit = body.get("commit")
    return ReplicaState(
        commit if isinstance(commit, str) and is_id(commit) else "",
        {path: one for path, one in known.items() if one is not None},
        {path: one for path, one in cut.items() if one is not None},
    )


def write(folder: Path, state: ReplicaState) -> None:
    """Write the state; it is durable when this returns."""
    files = {path: asdict(known) for path, known in state.files.items()}
    writing = {path: asdict(one) for path, one in state.writing.items()}
    body = {"commit": state.commit, "files": files, "writing": writing}
    _fs.write_atomic(folder / PRIVATE / _STATE, json.dumps({_KEY: body}).encode())


def _known(row: Any) -> Known | None:
    try:
        known = Known(row["blob"], Identity(**row["identity"]), row["seen_ns"])
    except (KeyError, TypeError):
        return None
    numbers = (*asdict(known.identity).values(), known.seen_ns)
    return known if _is_blob(known.blob) and all(type(number) is int for number in numbers) else None


def _writing(row: Any) -> Writing | None:
    try:
        over = tuple(row.get("over", ()))
        found = Writing(row["blob"], row["inode"], row["device"], row["size"], over)
    except (AttributeError, KeyError, TypeError):
        return None
    whole = type(found.inode) is type(found.device) is type(found.size) is int
    return found if whole and all(map(_is_blob, found.blobs)) else None


def _is_blob(blob: object) -> bool:
    return isinstance(blob, str) and is_id(blob)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if it is not there, and keep other applies out of it during the block.

    Temporary files of an apply that was killed are removed, as are the folders of processes that ended.
    """
    _fs.make_dirs(folder)
    place = private(folder)
    lock = _fs.Lock(place / "lock", patience=30.0)
    try:
        for entry in os.scandir(place):
            if not entry.name.startswith(_fs.TEMPORARY):
                continue
            if not entry.is_dir(follow_symlinks=False):
                _fs.remove(entry.path)
            elif not _is_running(entry):  # another follower may make its repository
                _fs.remove_tree(entry.path)
        yield
    finally:
        lock.release()


def _is_running(folder: os.DirEntry[str]) -> bool:
    """Return whether the process that made the temporary ``folder`` may be running, here or elsewhere."""
    number, _, rest = folder.name.removeprefix(_fs.TEMPORARY).partition("_")
    if not rest.startswith(f"{_fs.machine()}_"):
        return time.time() - folder.stat(follow_symlinks=False).st_mtime < _LONG
    return re.fullmatch(r"[0-9]{1,9}", number) is not None and processes.exists(int(number))


def private(folder: Path) -> Path:
    """Return theta's directory in ``folder``, which is made if needed; refuses a link or a file there."""
    place = folder / PRIVATE
    if not os.path.lexists(place):
        _fs.make_dirs(place)
    if not stat.S_ISDIR(os.lstat(place).st_mode):
        raise WouldOverwriteError(
            f"{place} is not a directory", hint="move it away; theta keeps its notes there"
        )
    return place


def inside(folder: Path, path: str) -> Path | None:
    """Return the place of ``path`` in ``folder``; None when it leads out of it, or through a link.

    There is none for what git or theta runs programs of, at any depth and in any case: the folder may be in
    another one that versions are applied to, on a file system that takes names in any case.
    """
    parts = path.split("/")
    if not all(parts) or "\0" in path or any(part.casefold() in _RESERVED for part in parts):
        return None
    place = folder.joinpath(*parts)
    root = os.path.realpath(folder)
    return place if os.path.realpath(place.parent) == os.path.join(root, *parts[:-1]).rstrip("/") else None
