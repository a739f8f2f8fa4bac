"""One command's view of a repository: manifests, caches, and the lock that changes need."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from theta import _notes
from theta.errors import (
    BusyError,
    DiskError,
    ManifestError,
    NewerFormatError,
    NoSpaceError,
    NotHereYetError,
    ThetaError,
    UsageError,
    concerning,
)
from theta.git import processes
from theta.git.attributes import tracked_entries
from theta.git.index import Entry, IndexEdit
from theta.git.object_values import Tree
from theta.git.repository import Repository
from theta.porcelain.workspace import recovery, rollback
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoint, Checkpoints, expect, in_tree
from theta.store.changes import Version, of_manifest
from theta.store.files.file_source import Identity
from theta.store.files.stat_cache import StatCache
from theta.store.format import listings
from theta.store.format import manifest as manifests
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects


class Session:
    """A repository as one theta command works on it.

    ``cwd`` is the directory that the user's paths start from; by default the top of the worktree.
    """

    def __init__(self, repo: Repository, cwd: Path | None = None) -> None:
        self.repo = repo
        self.cwd = cwd or repo.top
        self.objects = Objects(repo)
        self.journal = repo.private / recovery.JOURNAL
        self._parsed: dict[str, Manifest] = {}
        self._places: dict[str, str] = {}
        self._trees: dict[str, Checkpoints] = {}
        self._indexes: dict[Path | None, tuple[tuple[Entry, ...], Checkpoints]] = {}

    @classmethod
    def here(cls, start: str | Path, cwd: Path | None = None) -> Session:
        """The session of the repository around ``start``, which is the directory unless ``cwd`` is."""
        return cls(Repository.discover(start), cwd or Path(start))

    def again(self) -> Session:
        """A new view of the same worktree: git may have moved HEAD and the index under this one."""
        fresh = Session.here(self.repo.worktree, self.cwd)
        fresh.repo.attributes = self.repo.attributes
        fresh._parsed, fresh._trees = self._parsed, self._trees
        return fresh

    def from_root(self, path: str) -> str:
        """``path`` (from the current directory) as a path from the root of the worktree."""
        root = os.path.realpath(self.repo.worktree)
        parent, name = os.path.split(os.path.normpath(os.path.join(os.path.abspath(self.cwd), path)))
        place = os.path.join(os.path.realpath(parent), name)
        if place != root and not place.startswith(root + os.sep):
            raise UsageError(f"{path} is outside of the repository")
        return os.path.relpath(place, root)

    @cached_property
    def cache(self) -> StatCache:
        """The stat cache of the worktree."""
        return StatCache(self.repo)

    # -- manifests -------------------------------------------------------------------

    def manifest(self, oid: str) -> Manifest:
        """The manifest in blob ``oid``; raises :class:`ManifestError` where it is none."""
        if oid not in self._parsed:
            with concerning(self._places.get(oid, "")):
                self._parsed[oid] = listings.read(self.objects, self.objects.text(oid, manifests.MAX_BYTES))
        return self._parsed[oid]

    def manifest_or_none(self, oid: str) -> Manifest | None:
        """The manifest in blob ``oid``, or none where the blob is something else."""
        blob = self.repo.blob(oid)
        if blob is None or blob.size > manifests.MAX_BYTES:
            return None
        try:
            return self.manifest(oid)
        except ManifestError:
            return None

    def expect(self, oids: Iterable[str]) -> None:
        """The tensors of the manifests ``oids`` are going to be read."""
        if self.repo.promised.is_partial:
            oids = list(oids)
            self.repo.promised.expect(oids)
            with contextlib.suppress(NotHereYetError):  # who reads them is told
                for oid in oids:
                    if (manifest := self.manifest_or_none(oid)) is not None:
                        self.objects.expect(manifest.trees())

    def malformed(self, oid: str | None) -> ThetaError | None:
        """Why blob ``oid`` cannot be read, which claims to be a manifest; None where all is well."""
        blob = self.repo.blob(oid) if oid else None
        if oid is None or blob is None or not manifests.looks_like_manifest(blob.data):
            return None
        try:
            self.manifest(oid)
        except (ManifestError, NewerFormatError) as error:
            return error
        return None

    def version(self, oid: str | None) -> Version | None:
        """The checkpoint in manifest blob ``oid``, for comparing; none where there is none."""
        manifest = self.manifest_or_none(oid) if oid else None
        return of_manifest(manifest) if manifest else None

    # -- checkpoints -----------------------------------------------------------------

    @property
    def index(self) -> Checkpoints:
        """The tracked files of the index: the same each time, until the index or an attribute changes."""
        return self.index_of(None)

    def index_of(self, file: Path | None) -> Checkpoints:
        """:attr:`index`, of the index in ``file``."""
        entries = tracked_entries(self.repo, file)
        known = self._indexes.get(file)
        if known is None or known[0] is not entries:
            self.repo.promised.expect(entry.oid for entry in entries)
            self._places |= {entry.oid: entry.path for entry in entries}
            found = (Checkpoint(entry.path, entry.oid, entry.mode, entry.stage) for entry in entries)
            known = self._indexes[file] = entries, Checkpoints(found, self.manifest_or_none)
        return known[1]

    @property
    def head(self) -> Checkpoints:
        """The checkpoints of the commit at HEAD; none on an unborn branch."""
        return self.at("HEAD") if self.repo.head() else EMPTY

    def at(self, revision: str) -> Checkpoints:
        """The checkpoints in the tree of ``revision``."""
        found = self.of_tree(self.repo.tree_of(revision))
        label = revision[:12] if _is_id(revision) else revision
        self._places = {one.oid: f"{label}:{path}" for path, one in found.items()} | self._places
        return found

    def of_tree(self, tree: Tree) -> Checkpoints:
        """The checkpoints in ``tree``."""
        if tree.id not in self._trees:
            self._trees[tree.id] = Checkpoints(in_tree(self.repo, tree), self.manifest_or_none)
        return self._trees[tree.id]

    @property
    def files(self) -> Checkpoints:
        """The files of the worktree that are known to be checkpoints, whether these are staged or not."""
        found = []
        for path in self.index:
            with contextlib.suppress(OSError):
                info = os.lstat(self.repo.worktree / path)
                if (oid := self.cache.manifest_of(path, Identity.of(info))) is not None:
                    found.append(Checkpoint(path, oid, info.st_mode))
        return Checkpoints(found, self.manifest_or_none)

    def expect_trees(self, revisions: Iterable[str]) -> None:
        """:meth:`at` is going to be asked for ``revisions``."""
        expect(self.repo, revisions)

    # -- changing --------------------------------------------------------------------

    def index_edit(self, path: Path | None = None, *, patient: bool = True) -> IndexEdit:
        """A change of the index (or of the index file at ``path``)."""
        return IndexEdit(path or self.repo.index_path, self.scratch(), patient=patient)

    def scratch(self) -> Path:
        """A directory for temporaries, on the file system of the repository."""
        place = self.repo.private / "tmp"
        _notes.directory(place)
        return place

    def note(self, **facts: Any) -> None:
        """Add to the journal what must be known if this command is killed (:mod:`recovery`)."""
        found = _notes.read_json(self.journal)
        durable = any(facts.values())  # for the next command after a power failure
        _notes.write(self.journal, json.dumps({**found, **facts}), durable=durable)

    def moving(self, *toward: str) -> None:
        """Note the state before git changes files of the worktree toward those of commits ``toward``."""
        self.note(moving=rollback.mark(self.repo, toward))

    def undo(self, *, killed: bool = False) -> list[str]:
        """Put back what a git that failed changed in the worktree; return the files that stay changed.

        ``killed``: it left its locks.  Raises :class:`NoSpaceError` where the disk is full; the next
        command puts them back then.
        """
        note = recovery.read(self.journal)
        if note is None:
            return []
        if killed:
            recovery.unlock(self.repo, note["started"])
        return rollback.undo(self.repo, note)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold theta's lock: one changing command a worktree, and what dead ones left healed first.

        Worktrees of one repository do not exclude each other: what they share (objects, refs) git
        locks, and the lock files that a dead git left there are removed when no theta runs anywhere.
        """
        with contextlib.ExitStack() as stack:
            lock = _notes.lock(self.repo.private / "lock")
            stack.callback(lock.release)
            recovery.heal(self.repo)
            users = _notes.lock(self.repo.shared / recovery.USERS, shared=True)
            stack.callback(users.release)
            with self._journal(recovery.JOURNAL):
                yield

    def heal(self) -> None:
        """Heal what a dead command left, if there is anything and nobody is at work."""
        if not recovery.notes(self.repo):
            return
        with contextlib.suppress(BusyError, DiskError, NoSpaceError):
            lock = _notes.lock(self.repo.private / "lock", patience=0)
            try:
                recovery.heal(self.repo)
            finally:
                lock.release()

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Note that a git of the user's runs, without the lock: it may start theta itself.

        What dead commands left is healed first, unless a theta is at work.  Where nothing can be
        written, git tells that itself.
        """
        self.heal()
        with self._journal(f"{recovery.DRIVING}{uuid.uuid4().hex}", needed=False):
            yield

    @contextlib.contextmanager
    def _journal(self, name: str, *, needed: bool = True) -> Iterator[None]:
        """Write down whose children git's are for the time of the block; a killed theta leaves it."""
        journal, before, outer = self.repo.private / name, self.repo.token, self.journal
        self.journal, self.repo.token = journal, uuid.uuid4().hex
        body = {"token": self.repo.token, "started": time.time(), "owner": processes.this()}
        try:
            with contextlib.nullcontext() if needed else contextlib.suppress(DiskError, NoSpaceError):
                _notes.write(journal, json.dumps(body))
            yield
            if journal.exists():
                _notes.drop(journal)
        except Exception:
            recovery.give_up(self.repo, journal)
            raise
        finally:
            self.journal, self.repo.token = outer, before


def _is_id(revision: str) -> bool:
    return len(revision) == 40 and all(letter in "0123456789abcdef" for letter in revision)
