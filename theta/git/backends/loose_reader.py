"""A repository of libgit2 for reads alone, whose loose objects theta unpacks.

By itself libgit2 (up to 1.9.7, libgit2/libgit2#7342) reads a loose object that is cut short for ever.  Power
failures leave such files, as git by default syncs no loose objects.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pygit2
from pygit2.enums import ObjectType

from theta.errors import DamagedRepositoryError
from theta.git import state_files
from theta.git.backends.loose_and_packed import ObjectFiles, places
from theta.git.object_format import BLOB, COMMIT, SHA1, TAG, TREE
from theta.lazy import lazy

KINDS: Final = {
    ObjectType.COMMIT: COMMIT,
    ObjectType.TREE: TREE,
    ObjectType.BLOB: BLOB,
    ObjectType.TAG: TAG,
}
NUMBERS: Final = {kind: number for number, kind in KINDS.items()}
_AFTER_PACKS: Final = 2
"""libgit2 asks its packs, which have this priority and are there first, then this, then its loose objects."""


class LooseReader(pygit2.OdbBackend):
    """Loose objects, for libgit2: each whose file is there is read here, and libgit2 checks its id."""

    def __init__(self, files: ObjectFiles) -> None:
        super().__init__()
        self._files = files
        self.damage: DamagedRepositoryError | None = None
        """The last error, which libgit2 does not always pass on."""

    def forget(self) -> None:
        """Forget the last error."""
        self.damage = None

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        """Return the kind and the bytes of an object."""
        try:
            found = self._files.loose(str(oid))
        except DamagedRepositoryError as error:
            self.damage = error
            raise
        if found is None:
            raise KeyError(oid)
        return NUMBERS[found[0]], found[1]

    def read_prefix_cb(self, start: str) -> tuple[int, bytes, pygit2.Oid]:
        """Return the kind, the bytes and the id of the only object whose id begins with ``start``.

        It raises for a damaged one even if a pack has it too: libgit2 would go on to the file.
        """
        found = self._files.loose_ids(start)
        if len(found) != 1:
            raise (ValueError if found else KeyError)(start)
        oid = pygit2.Oid(hex=found.pop())
        return *self.read_cb(oid), oid

    def exists_cb(self, _oid: pygit2.Oid) -> bool:
        """Leave it to libgit2."""
        return False

    def refresh_cb(self) -> None:
        """Do nothing: each file is looked for when it is wanted."""

    def _none(self, *_args: Any) -> NoReturn:
        """Leave it to libgit2."""
        raise KeyError

    read_header_cb = exists_prefix_cb = write_cb = _none


def opened(gitdir: str | Path, place: Path | None = None) -> pygit2.Repository:
    """Open the repository at ``gitdir``, with ``place`` as its objects directory for new objects."""
    raw = pygit2.Repository(str(gitdir))
    if place is not None:
        odb = pygit2.Odb(str(place))
        odb.add_disk_alternate(str(state_files.common_directory(Path(raw.path)) / "objects"))
        raw.set_odb(odb)
    return raw


class ReadingRepository:
    """A repository of which nothing but objects and history is read; it is opened by the first read.

    ``place`` is the directory of its objects, if that is not its own.
    """

    def __init__(self, gitdir: Path, place: Path | None) -> None:
        self._gitdir, self._place = gitdir, place
        own = state_files.common_directory(gitdir) / "objects"
        directories = [own] if place is None else [place, own]
        self.files = ObjectFiles([one for each in directories for one in places(each)], SHA1.size)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def reading(self) -> Iterator[pygit2.Repository]:
        """Give the repository to one thread: libgit2 holds a lock while it waits for Python to read a file.

        Raises :class:`DamagedRepositoryError` for the failure of libgit2 that a damaged file led to.
        """
        with self._lock:
            raw, loose = self._opened
            loose.forget()
            try:
                yield raw
            except (KeyError, ValueError, pygit2.GitError):
                if loose.damage is not None:
                    raise loose.damage from None
                raise

    @lazy
    def _opened(self) -> tuple[pygit2.Repository, LooseReader]:
        raw = opened(self._gitdir, self._place)
        loose = LooseReader(self.files)
        raw.odb.add_backend(loose, _AFTER_PACKS)
        return raw, loose
