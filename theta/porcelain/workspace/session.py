"""The view that one command has of a repository: checkpoints, caches, and changes under the lock.

A change writes objects, then the index, then refs, each durable before the next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from theta import _notes
from theta.errors import (
    ManifestError,
    NewerFormatError,
    NotHereYetError,
    ThetaError,
    UsageError,
    concerning,
)
from theta.git import object_values
from theta.git.attributes import tracked_among, tracked_entries
from theta.git.backends.index_entries import Entry, Staged
from theta.git.object_format import is_id
from theta.git.object_values import Tree, TreePath
from theta.git.quoting import from_folder, shell_word
from theta.git.repository import STORES, Repository
from theta.lazy import Module
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoint, Checkpoints, expect, in_tree
from theta.porcelain.workspace.journal import Journal
from theta.store.changes import Version, of_manifest
from theta.store.files.file_source import Identity
from theta.store.files.stat_cache import StatCache
from theta.store.format import listings
from theta.store.format import manifest as manifests
from theta.store.format.manifest import Manifest
from theta.store.odb import joined_packs
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta import parallel
    from theta.engine import executors
    from theta.engine.executors import Engine
    from theta.git.backends.protocols import EditedIndex
    from theta.store.files.ahead import Ahead
    from theta.store.files.known_chunks import KnownChunks
else:
    executors = Module("theta.engine.executors")
    parallel = Module("theta.parallel")


ENGINE: Final = "theta.engine"
"""The setting that names what does large work."""
LAZY: Final = "theta.lazy"
"""The setting of a clone in which checkpoints are filled in only when they are asked for."""


class Session:
    """A repository during one theta command.

    Args:
        repo: the repository.
        cwd: the directory that the user's paths are relative to; by default the top of the worktree.
        in_git: a running git started this process, so changes do not take theta's lock.
    """

    def __init__(self, repo: Repository, cwd: Path | None = None, *, in_git: bool = False) -> None:
        self.repo = repo
        self.cwd = cwd or repo.top
        self.objects = Objects(repo)
        self.journal = Journal(repo, locked=in_git)
        self.began = time.time_ns()
        """The time at which the command began, in nanoseconds since 1970."""
        self.dated_back: list[Staged] | None = None
        """The files that were written with a time in the past; None when files keep their time."""
        self.torn: frozenset[str] | None = None
        """The files that held git's text of a conflict before theta ran git; None if theta runs none."""
        self.ahead: dict[str, Ahead] = {}
        """Path -> what reads the file that is going to be staged."""
        self.known: KnownChunks | None = None
        """The chunks that were hashed before, while files are staged."""
        self._engines: list[Engine] = []
        """The engine, if one was asked for; all views of the worktree share it."""
        self._parsed: dict[str, Manifest] = {}
        self._places: dict[str, str] = {}
        self._trees: dict[str, Checkpoints] = {}
        self._indexes: dict[Path | None, tuple[tuple[Entry, ...], Checkpoints]] = {}

    @classmethod
    def here(cls, start: str | Path, cwd: Path | None = None, *, in_git: bool = False) -> Session:
        """Return a session of the repository around ``start``, which is also the default of ``cwd``."""
        return cls(Repository.discover(start), cwd or Path(start), in_git=in_git)

    def again(self) -> Session:
        """Return a new view of the same worktree, after git may have moved HEAD and the index."""
        fresh = Session(self.repo.again(), self.cwd)
        fresh.repo.attributes = self.repo.attributes
        fresh.repo.marks = self.repo.marks
        fresh.objects.knowing(self.objects)
        fresh.objects.keeps = self.objects.keeps  # the change releases them at its end
        fresh.journal, fresh.dated_back, fresh.began = self.journal, self.dated_back, self.began
        fresh.torn = self.torn
        fresh._engines = self._engines
        fresh._parsed, fresh._trees = self._parsed, self._trees
        return fresh

    def from_root(self, path: str) -> str:
        """Return ``path`` (from the current directory) as a path from the root of the worktree."""
        root = os.path.realpath(self.repo.worktree)
        parent, name = os.path.split(os.path.normpath(os.path.join(os.path.abspath(self.cwd), path)))
        place = os.path.join(os.path.realpath(parent), name)
        if place != root and not place.startswith(root + os.sep):
            raise UsageError(f"{path} is outside of the repository")
        return os.path.relpath(place, root)

    def tree_path(self, text: str) -> TreePath | None:
        """Return the file that ``REV:PATH`` names, its path from the root; None of other text.

        As in git, a path that begins with ``./`` or ``../`` is from the current directory.
        """
        found = object_values.tree_path(text)
        if found is None or not found.is_relative:
            return found
        path = self.from_root(found.path)
        return replace(found, path="" if path == "." else path)

    def word(self, path: str) -> str:
        """Return ``path`` (from the root of the worktree) as a word of a command in the current directory."""
        return shell_word(self.place(path))

    def place(self, path: str) -> str:
        """Return ``path`` (from the root of the worktree) as a path from the current directory."""
        return from_folder(path, self._folder)

    @cached_property
    def _folder(self) -> str:
        """The current directory, from the root of the worktree."""
        return self.repo.folder(self.cwd)

    @cached_property
    def cache(self) -> StatCache:
        """The stat cache of the worktree."""
        return StatCache(self.repo)

    # -- manifests -------------------------------------------------------------------

    def manifest(self, oid: str) -> Manifest:
        """Return the manifest in blob ``oid``; raises :class:`ManifestError` if it is none."""
        if oid not in self._parsed:
            with concerning(self._places.get(oid, "")):
                self._parsed[oid] = listings.read(self.objects, self.objects.text(oid, manifests.MAX_BYTES))
        return self._parsed[oid]

    def remember(self, oid: str, manifest: Manifest) -> None:
        """Remember that blob ``oid`` holds ``manifest``, which was just written."""
        self._parsed[oid] = manifest

    def manifest_or_none(self, oid: str) -> Manifest | None:
        """Return the manifest in blob ``oid``; None when the blob is something else."""
        if oid in self._parsed:
            return self._parsed[oid]
        blob = self.repo.blob(oid)
        if blob is None or blob.size > manifests.MAX_BYTES:
            return None
        try:
            return self.manifest(oid)
        except ManifestError:
            return None

    def expect(self, oids: Iterable[str]) -> None:
        """Announce that the tensors of the manifests ``oids`` will be read."""
        if self.repo.promised.is_partial:
            oids = list(oids)
            self.repo.promised.expect(oids)
            with contextlib.suppress(NotHereYetError):  # reading them raises it again
                for oid in oids:
                    if (manifest := self.manifest_or_none(oid)) is not None:
                        self.objects.expect(manifest.trees())

    def malformed(self, oid: str | None) -> ThetaError | None:
        """Return the error of reading blob ``oid`` if it looks like a manifest; None without an error."""
        blob = self.repo.blob(oid) if oid else None
        if oid is None or blob is None or not manifests.looks_like_manifest(blob.data):
            return None
        try:
            self.manifest(oid)
        except (ManifestError, NewerFormatError) as error:
            return error
        return None

    def version(self, oid: str | None) -> Version | None:
        """Return the checkpoint of manifest ``oid`` for a comparison; None when it is no manifest."""
        manifest = self.manifest_or_none(oid) if oid else None
        return of_manifest(manifest) if manifest else None

    # -- checkpoints -----------------------------------------------------------------

    @property
    def index(self) -> Checkpoints:
        """The tracked files of the index, cached until the index or an attribute changes."""
        return self.index_of(None)

    def index_of(self, file: Path | None) -> Checkpoints:
        """Return the tracked files of the index in ``file``, or of the repository's if None."""
        entries = tracked_entries(self.repo, file)
        known = self._indexes.get(file)
        if known is None or known[0] is not entries:
            known = self._indexes[file] = entries, self._of_entries(entries)
        return known[1]

    def edited(self, edit: EditedIndex) -> Checkpoints:
        """Return the tracked files of an index that is not written yet."""
        return self._of_entries(tracked_among(self.repo, edit.outside(STORES)))

    def _of_entries(self, entries: tuple[Entry, ...]) -> Checkpoints:
        self.repo.promised.expect(entry.oid for entry in entries)
        self._places |= {entry.oid: entry.path for entry in entries}
        found = [Checkpoint(entry.path, entry.oid, entry.mode, entry.stage) for entry in entries]
        return Checkpoints(found, self.manifest_or_none)

    @property
    def head(self) -> Checkpoints:
        """The checkpoints of the commit at HEAD; empty on an unborn branch."""
        return self.at("HEAD") if self.repo.head() else EMPTY

    def at(self, revision: str) -> Checkpoints:
        """Return the checkpoints in the tree of ``revision``."""
        found = self.of_tree(self.repo.tree_of(revision))
        label = revision[:12] if is_id(revision) else revision
        self._places = {one.oid: f"{label}:{path}" for path, one in found.items()} | self._places
        return found

    def of_tree(self, tree: Tree) -> Checkpoints:
        """Return the checkpoints in ``tree``."""
        if tree.id not in self._trees:
            self._trees[tree.id] = Checkpoints(in_tree(self.repo, tree), self.manifest_or_none)
        return self._trees[tree.id]

    @property
    def files(self) -> Checkpoints:
        """The files of the worktree whose manifest the stat cache knows, even if it is not staged."""
        found = []
        for path in self.index:
            with contextlib.suppress(OSError):
                info = os.lstat(self.repo.worktree / path)
                if (oid := self.cache.manifest_of(path, Identity.of(info))) is not None:
                    found.append(Checkpoint(path, oid, info.st_mode))
        return Checkpoints(found, self.manifest_or_none)

    def leaves(self, path: str) -> bool:
        """Return whether the manifest at ``path`` stays in place of the file, as it is a lazy clone's.

        There a file is filled in when it is asked for, and kept filled in from then on.
        """
        return self.repo.config.flag(LAZY) and not self.cache.has(path)

    def expect_trees(self, revisions: Iterable[str]) -> None:
        """Announce that the checkpoints of ``revisions`` will be read."""
        expect(self.repo, revisions)

    # -- changing --------------------------------------------------------------------

    def engine(self, nbytes: int) -> Engine | None:
        """Return the engine that does work on ``nbytes``; None for the threads of this process.

        It is the one that the setting ``theta.engine`` names, unless another was given.
        """
        if not parallel.is_worth_spreading(nbytes) or not self.objects.are_shared:
            return None
        if not self._engines and (spec := self.repo.config.get(ENGINE)):
            self._engines += filter(None, [executors.engine_of(spec)])
        return next(iter(self._engines), None)

    def use(self, engine: Engine) -> None:
        """Let ``engine`` do large work."""
        self._engines[:] = [engine]

    @contextlib.contextmanager
    def engaged(self) -> Iterator[None]:
        """Shut the engine down when the block ends, or when the change ends that it is a part of."""
        try:
            yield
        finally:
            if not self.journal.locked:
                self._close_engine()

    def _close_engine(self) -> None:
        for engine in self._engines:
            engine.close()

    @contextlib.contextmanager
    def change(self, index: Path | None = None) -> Iterator[Change]:
        """Return a context manager of one change, under theta's lock.

        ``index`` is another index file to change.  A nested block is a change of its own, which is
        complete when the inner block ends.  The outermost one lets git repack what it stored, and joins
        small packs, if there are many.
        """
        file = index or self.repo.index_path
        is_inner = self.journal.locked
        with self.journal.exclusive():
            try:
                with Change(self, file) as change:
                    yield change
            finally:
                if not is_inner:
                    self.objects.keeps.release()
                    self._close_engine()
            if not is_inner and joined_packs.join(self.repo):
                self.objects.refresh()

    def scratch(self) -> Path:
        """Return a directory for temporary files, on the file system of the repository.

        Their names are those of :func:`theta._fs.own_temporary`, by which the next command removes what a
        killed one left.
        """
        place = self.repo.private / "tmp"
        _notes.directory(place)
        return place


class Change:  # of a repository; store.changes.Change is that of one tensor
    """The writes of one step of a command; a context manager.

    At the end of the block the objects become durable, the index is written, and refs move, in this
    order.  If the block raises, nothing is written except objects that :meth:`store` made durable.
    """

    def __init__(self, session: Session, index: Path) -> None:
        self._session, self._file = session, index
        self._open = ExitStack()
        self._pack: PackWriter | None = None
        self._edit: EditedIndex | None = None
        self._moves: list[tuple[str, str, str, str]] = []

    @property
    def pack(self) -> PackWriter:
        """The writer of new objects, in one pack or in two."""
        if self._pack is None:
            self._open.callback(self._session.objects.refresh)
            self._pack = self._open.enter_context(self._session.objects.writer(keep=True, in_parts=True))
        return self._pack

    def store(self) -> None:
        """Make the objects of the pack durable and readable."""
        if self._pack is not None:
            self._pack.finish()
            self._pack = None
            self._session.objects.refresh()

    @property
    def index(self) -> EditedIndex:
        """The index for editing, locked; the objects of the pack are durable by then."""
        self.store()
        if self._edit is None:
            edit = self._session.repo.edit_index(self._file, self._session.scratch())
            self._edit = self._open.enter_context(edit)
        return self._edit

    def move(self, ref: str, new: str, old: str, reason: str) -> None:
        """Move ``ref`` to ``new`` at the end, if it is still ``old``."""
        self._moves.append((reason, ref, new, old))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None:
            for reason, ref, new, old in self._moves:
                repo = self._session.repo
                if not repo.refs.move(ref, new, old, reason):
                    repo.git().run("update-ref", "-m", reason, ref, new, old)
