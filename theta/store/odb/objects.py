"""The object database as the store needs it: fast reads, and writes into one pack."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from theta.errors import CorruptError, MissingObjectsError
from theta.git.object_format import TREE
from theta.git.object_values import plain_files
from theta.git.repository import Repository
from theta.git.run import Git
from theta.store.odb.held_notes import staged_packs
from theta.store.odb.pack_keeps import Keeps
from theta.store.odb.packs import Pack, PackWriter

BLOB_LIMIT: Final = 10 << 20

T = TypeVar("T")


class Objects:
    """Reads and writes the objects of one repository.

    Packs are searched first, by memory map.  libgit2 reads the other objects: loose ones, deltas, and
    those of alternates.
    """

    are_shared = True
    """Whether other processes see what writers write."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self._packs: dict[str, Pack] | None = None
        self._known: dict[str, Pack] = {}
        self._remembered: dict[tuple[str, str], Any] | None = None
        self._latest = ""
        self.keeps = Keeps()

    @property
    def directory(self) -> Path:
        """``objects/pack``."""
        return self.repo.commondir / "objects" / "pack"

    @cached_property
    def _staged_only(self) -> Callable[[str], bool]:
        """Whether an object may vanish, because only a staged pack is known to hold it."""
        packs = [Pack(path.with_suffix(".idx"), self.repo.format) for path in staged_packs(self.repo)]
        return lambda oid: any(oid in pack for pack in packs)

    def git(self) -> Git:
        """Return a runner of git that writes new objects where :meth:`writer` does."""
        return self.repo.git()

    def writer(self, *, keep: bool = False, in_parts: bool = False) -> PackWriter:
        """Begin a new pack; if ``keep``, git does not repack it before ``keeps`` are released.

        If ``in_parts``, what is written may come to be in several packs.
        """
        keeps = self.keeps if keep else None
        return PackWriter(self.directory, self._kept(), self.repo.format, keeps, in_parts=in_parts)

    def _kept(self) -> Callable[[str], bool]:
        """Return whether an object is here and stays: one that comes meanwhile is written twice at worst."""
        is_here = self.repo.look_up()
        return lambda oid: is_here(oid) and not self._staged_only(oid)

    @contextlib.contextmanager
    def writing(self, *, keep: bool = False) -> Iterator[PackWriter]:
        """Begin a new pack; once the block ends, it is durable and can be read from here.

        Nothing of it stays when the block raises.
        """
        with self.writer(keep=keep) as pack:
            yield pack
        self.refresh()

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is here."""
        return self.repo.has(oid)

    def has_files(self, tree: str) -> bool:
        """Return whether ``tree`` and all its files are here."""
        found = self.repo.tree_here(tree)
        return found is not None and all(self.has(entry.id) for entry in found)

    def text(self, oid: str, limit: int = BLOB_LIMIT) -> bytes:
        """Return the bytes of blob ``oid``, its id checked; raises :class:`CorruptError`."""
        found = self.chunk(oid, limit)
        data = found if isinstance(found, bytes) else bytes(found)
        if self.repo.format.blob_id(data) != oid:
            raise CorruptError(f"object {oid} is damaged", hint="run 'git fsck' and fetch it again")
        return data

    def chunk(self, oid: str, limit: int = BLOB_LIMIT) -> bytes | memoryview:
        """Return the bytes of blob ``oid``, at most ``limit``, whose digest the caller checks.

        Raises :class:`MissingObjectsError` and :class:`CorruptError`.
        """
        data = self._packed(oid, limit)
        if data is None and not self.has(oid) and self.repo.promised.bring(oid):
            self.refresh()
            data = self._packed(oid, limit)
        data = self.repo.read_blob(oid) if data is None else data
        if len(data) > limit:
            raise CorruptError(f"object {oid} has {len(data)} bytes, over the limit of {limit}")
        return data

    def _packed(self, oid: str, limit: int) -> bytes | memoryview | None:
        packs = self._loaded()
        latest = packs.get(self._latest)  # what belongs together is mostly in one pack
        if latest is not None and (data := latest.read(oid, limit)) is not None:
            return data
        for name in packs:
            if name != self._latest and (data := packs[name].read(oid, limit)) is not None:
                self._latest = name
                return data
        return None

    def expect(self, trees: Mapping[str, int]) -> None:
        """Announce that the files of these trees (tree -> bytes that they stand for) will be read.

        A partial clone then fetches all of them with the first that it lacks.
        """
        self.repo.promised.expect_files(trees)

    def obtain(self, trees: Mapping[str, int]) -> None:
        """Fetch in one request what this clone lacks of the files of these trees."""
        if not self.repo.promised.is_partial:
            return
        self.expect(trees)
        for oid in (oid for tree in trees for _, oid in self.tree(tree).values()):
            if not self.has(oid):
                self.repo.promised.bring(oid)
        self.refresh()

    def remembering(self) -> Objects:
        """Return the same objects, with chunks remembered (:meth:`once`) while one tensor is read."""
        self._loaded()
        other = copy.copy(self)
        other._remembered = {}
        return other

    def once(self, oid: str, kind: str, decode: Callable[[], T]) -> T:
        """Return ``decode()``, or its remembered result for blob ``oid`` and ``kind``."""
        if self._remembered is None:
            return decode()
        key = oid, kind
        if key not in self._remembered:
            self._remembered[key] = decode()
        found: T = self._remembered[key]
        return found

    def remembered(self, oid: str, kind: str) -> Any | None:
        """Return what :meth:`once` remembers of blob ``oid`` and ``kind``; None when that is nothing."""
        return None if self._remembered is None else self._remembered.get((oid, kind))

    def size(self, oid: str) -> int:
        """Return the bytes of blob ``oid``; raises :class:`MissingObjectsError`."""
        if not self.has(oid) and not self.repo.promised.bring(oid):
            raise MissingObjectsError(f"blob {oid} is not in this repository")
        found = self.repo.backend.objects.header(oid)
        if found is None:
            raise CorruptError(f"object {oid} is damaged", hint="run 'git fsck' and fetch it again")
        return found[1]

    def tree(self, oid: str) -> dict[str, tuple[int, str]]:
        """Return name -> (mode, id) of tree ``oid``."""
        return {entry.name: (entry.mode, entry.id) for entry in self.repo.read_tree(oid)}

    def files(self, tree: str) -> dict[str, str]:
        """Return name -> id of ``tree``, which holds plain files alone.

        Raises :class:`MissingObjectsError`, and :class:`CorruptError` for a tree that holds anything else.
        """
        found = self._plain_files(tree)
        if found is not None:
            return found
        found = self.repo.files_here(tree)
        if found is None:
            self.repo.read_tree(tree)  # which brings it
            found = self.repo.files_here(tree)
        if found is None:
            raise MissingObjectsError(f"tree {tree} is not in this repository")
        return found

    def ids_here(self, tree: str) -> dict[str, str] | None:
        """Return name -> id of the entries of ``tree`` without fetching it; None when it is not here."""
        found = self._plain_files(tree)
        return self.repo.ids_here(tree) if found is None else found

    def _plain_files(self, tree: str) -> dict[str, str] | None:
        """Return name -> id of ``tree``, its id checked, if a pack has it whole; None leaves it to others."""
        try:
            data = self._packed(tree, BLOB_LIMIT)
        except CorruptError:
            return None
        form = self.repo.format
        if data is None or form.object_id(TREE, (data,), len(data)).hex() != tree:
            return None
        return plain_files(data, form.size)

    def _loaded(self) -> dict[str, Pack]:
        if self._packs is None:
            self._packs = {}
            self.refresh()
        return self._packs

    def refresh(self) -> None:
        """Look for packs that came or went since."""
        known, self._known = self._packs or self._known, {}
        found: dict[str, Pack] = {}
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        for name in sorted(name for name in names if name.endswith(".idx")):
            if name in known:
                found[name] = known[name]
            else:
                # Packs that cannot be read here (an older index, damage) are left to libgit2.
                with contextlib.suppress(OSError, CorruptError):
                    found[name] = Pack(self.directory / name, self.repo.format)
        self._packs = found

    def knowing(self, other: Objects) -> Objects:
        """Return these objects, which need not open the packs that ``other`` has open."""
        self._known = other._packs or other._known
        return self
