"""A Git repository: its directories, revisions, blobs and trees."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _modes
from theta.errors import (
    DamagedRepositoryError,
    DiskError,
    IdentityError,
    MissingObjectsError,
    NotFoundError,
    NotHereYetError,
    NoWorktreeError,
    UnsupportedRepositoryError,
)
from theta.git import object_values, state_files
from theta.git.backends import opening
from theta.git.backends.index import IndexFile
from theta.git.backends.index_entries import Entry
from theta.git.object_format import BLOB, COMMIT, TREE, ObjectFormat
from theta.git.object_values import DAMAGED, MODE_TREE, Blob, Commit, Tree, TreeEntry, TreePath, tree_bytes
from theta.git.partial import Promised
from theta.git.quoting import from_folder
from theta.git.run import DEFER, Git, GitFailedError

if TYPE_CHECKING:
    from theta.git.backends.protocols import Backend, Config, EditedIndex, Refs

STORES = ".theta"
ATTRIBUTES: Final = ".gitattributes"
_SMALL: Final = 256 << 10
"""Up to this size in bytes, reading an index here is faster than running git."""
_NO_STORES: Final = f":(exclude,top){STORES}"


class Repository:
    """A repository and, unless it is bare, one of its worktrees."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.marks: dict[str, str] = {}
        """Environment variables that identify a git as a child process of this command."""
        self.attributes: dict[str, tuple[object, str]] = {}
        self.bases: dict[tuple[str, str], list[str]] = {}
        self.tracked: dict[Path | None, tuple[object, Mapping[str, object], tuple[Entry, ...]]] = {}
        self._attribute_files: dict[Path | None, tuple[object, dict[str, str]]] = {}
        self._indexes: dict[Path, IndexFile] = {}
        self._has_staged_trees = False
        self.gitdir = backend.gitdir
        self.commondir = state_files.common_directory(self.gitdir)
        self.is_bare = backend.top is None
        if permission := opening.shared_permission(backend.config):
            _modes.share(self.commondir, permission)

    @classmethod
    def discover(cls, start: str | Path) -> Repository:
        """Open the repository that contains ``start``; raises a theta error for each kind of failure."""
        return cls(opening.discovered(start))

    def again(self) -> Repository:
        """Return the repository without what is cached of it, after git may have changed it."""
        return Repository(opening.reopened(self.backend, self.top))

    @property
    def format(self) -> ObjectFormat:
        """The hash that names the objects."""
        return self.backend.objects.format

    @cached_property
    def worktree(self) -> Path:
        """The root of the worktree; raises :class:`NoWorktreeError` in a bare repository."""
        if self.backend.top is None:
            raise NoWorktreeError("this command needs a working tree, and the repository is bare")
        return self.backend.top

    @property
    def top(self) -> Path:
        """The root of the worktree, or the git directory of a bare repository."""
        return self.backend.top or self.gitdir

    def entries(self, index: Path | None = None) -> tuple[Entry, ...]:
        """Return the entries (all stages) of the index, or of the file ``index``, not below ``.theta/``.

        They are cached until the file changes.
        """
        path = index or self.index_path
        known = self._indexes.setdefault(path, IndexFile(self.backend.indexes, path))
        try:
            return known.outside(STORES)
        except (UnsupportedRepositoryError, DiskError):  # git can read it, or has a better error message
            return tuple(self._listed(index))

    def unmerged(self) -> dict[str, dict[int, Entry]]:
        """Return path -> stage -> entry of the files in conflict, without those below ``.theta/``."""
        found: dict[str, dict[int, Entry]] = {}
        for entry in self.entries():
            if entry.stage:
                found.setdefault(entry.path, {})[entry.stage] = entry
        return found

    def has_unmerged(self) -> bool:
        """Return whether anything is in conflict, files below ``.theta/`` included."""
        try:
            return self.index_path.exists() and self.backend.indexes.has_conflicts(self.index_path)
        except (UnsupportedRepositoryError, DiskError):
            return bool(self.git().run("ls-files", "-u", "-z").stdout)

    def _listed(self, index: Path | None) -> Iterator[Entry]:
        """Yield :meth:`entries` as git lists them, for a split or sparse index."""
        rows = self.git(index=index).lines("ls-files", "-s", "-z", "--full-name", "--", ":(top)", _NO_STORES)
        for row in rows:
            head, _, path = row.partition("\t")
            mode, oid, stage = head.split(" ")
            yield Entry(path, oid, int(mode, 8), int(stage), False)

    def attribute_files(self, index: Path | None = None) -> dict[str, str]:
        """Return path -> blob id of each ``.gitattributes`` in the index."""
        entries = self.entries(index)
        known = self._attribute_files.get(index)
        if known is None or known[0] is not entries:
            found = {e.path: e.oid for e in entries if e.path.rpartition("/")[2] == ATTRIBUTES}
            known = self._attribute_files[index] = entries, found
        return known[1]

    @cached_property
    def promised(self) -> Promised:
        """The objects that remotes promised to this clone."""
        return Promised(self)

    @cached_property
    def is_read_only(self) -> bool:
        """Whether the repository cannot be written: a read-only mount, or permissions."""
        return not any(os.access(place, os.W_OK) for place in (self.gitdir, self.commondir / "objects"))

    @property
    def index_path(self) -> Path:
        """The index file of this worktree."""
        return self.gitdir / "index"

    @property
    def private(self) -> Path:
        """The directory of theta for this worktree: stat cache, journal, temporary files."""
        return self.gitdir / "theta"

    def shallow_ends(self) -> frozenset[str]:
        """Return the commits whose parents are not here, since the history was fetched to them only."""
        return state_files.shallow(self.commondir)

    @property
    def shared(self) -> Path:
        """The directory of theta for the repository: locks, staged packs."""
        return self.commondir / "theta"

    def git(self, *, index: Path | None = None, extra: Mapping[str, str] = DEFER) -> Git:
        """Return a runner of git in the worktree; by default theta's filter and hooks do nothing."""
        return Git(self.top, index_file=index, extra=extra, marks=self.marks)

    def identity(self, who: str = "COMMITTER") -> str:
        """Return name and e-mail of the ``COMMITTER`` or ``AUTHOR`` of a commit that is made now.

        Raises :class:`IdentityError` if git has none.  A date of the environment has no part in it: the git
        that makes the commit tells what is wrong with that.
        """
        dateless = {**DEFER, f"GIT_{who}_DATE": ""}
        done = self.git(extra=dateless).run("var", f"GIT_{who}_IDENT", check=False)
        if done.code:
            error = GitFailedError("var", done.code, done.stderr.decode("utf-8", "replace"))
            raise IdentityError(
                f"git does not know who you are: {error}",
                hint='git config --global user.name "Your Name"; '
                "git config --global user.email you@example.com",
            )
        return done.text.strip().rpartition("> ")[0] + ">"

    def folder(self, place: str | Path) -> str:
        """Return the folder ``place`` as a path from the root of the worktree; "." is the root."""
        return os.path.relpath(os.path.realpath(place), os.path.realpath(self.worktree))

    def here(self, path: str) -> str:
        """Return ``path`` (from the root of the worktree) as a path from the directory of the process."""
        return path if self.is_bare else from_folder(path, self.folder("."))

    def setting(self, key: str) -> bool:
        """Return a boolean of git's configuration whose default is true."""
        if key.lower() not in self.config:
            return True
        return self.git().run("config", "--type=bool", "--get", key, check=False).text.strip() != "false"

    @property
    def config(self) -> Config:
        """Git's configuration."""
        return self.backend.config

    @property
    def lasting_config(self) -> Config:
        """Git's configuration without what ``-c`` or the environment adds to it for this command.

        It says where something belongs that stays.
        """
        return self.backend.lasting_config

    @property
    def refs(self) -> Refs:
        """The references of the repository."""
        return self.backend.refs

    def apart(self, place: Path) -> Repository:
        """Return this repository with ``place`` as the objects directory for new objects."""
        return Repository(self.backend.apart(place))

    # -- revisions -------------------------------------------------------------------

    def refresh_index(self) -> None:
        """Refresh the stat data in the index, as most of git's commands do first.

        Commands that give up a merge do not, and refuse if an index edit marked a file as possibly changed.
        """
        self.git().run("update-index", "-q", "--refresh", check=False)

    def listing(self) -> bytes:
        """Return the index as ``git ls-files -s -z`` prints it."""
        with contextlib.suppress(UnsupportedRepositoryError, DiskError, FileNotFoundError):
            if os.stat(self.index_path).st_size <= _SMALL:
                return self.backend.indexes.listing(self.index_path)
        return self.git().run("ls-files", "-s", "-z").stdout

    def read_index(self, path: Path | None = None) -> list[Entry]:
        """Return all entries of the index, or of the file ``path``, those below ``.theta/`` included."""
        return self.backend.indexes.entries(path or self.index_path)

    def edit_index(
        self, path: Path | None, scratch: Path, *, patient: bool = True
    ) -> AbstractContextManager[EditedIndex]:
        """Return an atomic change of the index, or of the file ``path``; raises :class:`BusyError`."""
        return self.backend.indexes.edit(path or self.index_path, scratch, patient=patient)

    def resolve(self, revision: str) -> str:
        """Return the object id that ``revision`` names; raises :class:`NotFoundError`."""
        found = self.backend.history.named(revision)
        if found is None:
            raise NotFoundError(f"no such revision: {revision}")
        return found

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that ``revision`` names; None when it names something else or nothing."""
        found = self.backend.history.named(revision)
        peeled = object_values.peeled(self.backend.objects, found) if found else ""
        kind = self.backend.objects.header(peeled) if peeled else None
        return peeled if kind is not None and kind[0] == COMMIT else None

    def tree_of(self, revision: str) -> Tree:
        """Return the tree of the commit, tag or tree that ``revision`` names, with all subtrees fetched."""
        try:
            if self.promised.is_partial and ":" in revision:
                self.tree_of(revision.partition(":")[0] or "HEAD")
            found = object_values.peeled(self.backend.objects, self.resolve(revision))
            commit = object_values.commit(self.backend.objects, found)
            return self.whole_tree(commit.tree if commit is not None else found)
        except MissingObjectsError as error:
            if isinstance(error, NotHereYetError):
                raise
            raise NotFoundError(f"no such revision: {revision}") from error

    def file_at(self, place: TreePath) -> str | None:
        """Return the id of the file at ``place``, whose path is from the root; None when there is none.

        Raises :class:`NotFoundError` for a revision that is not there, or a path of the index in conflict.
        """
        if not place.is_staged:
            entry = self.tree_of(place.revision).get(place.path)
            return entry.id if entry is not None and entry.is_file else None
        found = {entry.stage: entry.oid for entry in self.entries() if entry.path == place.path}
        if found and 0 not in found and not place.revision:
            raise NotFoundError(f"{place.path} is in conflict", hint="'theta resolve' settles it")
        return found.get(int(place.revision[1:] or 0))

    def head(self) -> str | None:
        """Return the commit at HEAD; None on an unborn branch."""
        try:
            return self.refs.head()[1]
        except DamagedRepositoryError as error:
            said = self.git().run("log", "-1", "--format=%H", check=False).stderr.decode("utf-8", "replace")
            words = said.strip().removeprefix("fatal: ").splitlines() or [str(error)]
            raise DamagedRepositoryError(f"HEAD cannot be read: {words[-1]}", hint=DAMAGED) from error

    def merge_heads(self) -> list[str]:
        """Return the commits in MERGE_HEAD; empty when no merge is in progress."""
        return state_files.commits(self.gitdir, state_files.MERGE_HEAD)

    @property
    def is_detached(self) -> bool:
        """Whether HEAD is detached."""
        return not self.refs.head()[0]

    @property
    def branch(self) -> str:
        """The name of the branch that is checked out; ``HEAD`` if detached."""
        return self.refs.head()[0].removeprefix("refs/heads/") or "HEAD"

    def parents_ahead(self) -> list[str]:
        """Return the parents of the next commit: HEAD and, in a merge, MERGE_HEAD."""
        found = [head] if (head := self.head()) else []
        return found + self.merge_heads()

    def in_progress(self) -> bool:
        """Return whether a rebase, am, cherry-pick or revert sequence is in progress."""
        return state_files.sequencing(self.gitdir)

    # -- objects ---------------------------------------------------------------------

    def obtains(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository, after fetching it if it is promised.

        Raises :class:`NotHereYetError` if the fetch fails, as all methods that read objects do.
        """
        return self.has(oid) or (self.promised.bring(oid) and self.has(oid))

    def blob(self, oid: str) -> Blob | None:
        """Return blob ``oid``; None when it is missing or another kind of object."""
        found = self.blob_here(oid)
        return self.blob_here(oid) if found is None and self.promised.bring(oid) else found

    def blob_here(self, oid: str) -> Blob | None:
        """Return blob ``oid`` like :meth:`blob`, without fetching it."""
        return object_values.blob(self.backend.objects, oid)

    def tree_here(self, oid: str) -> Tree | None:
        """Return tree ``oid`` without fetching it; None when it is not in this repository."""
        return object_values.tree(self.backend.objects, oid)

    def ids_here(self, tree: str) -> dict[str, str] | None:
        """Return name -> id of the entries of ``tree`` without fetching it; None when it is not here."""
        return object_values.ids(self.backend.objects, tree)

    def files_here(self, tree: str) -> dict[str, str] | None:
        """Return name -> id of ``tree``, which holds plain files alone, or raise ``CorruptError``."""
        return object_values.files(self.backend.objects, tree)

    def commit_or_none(self, oid: str) -> Commit | None:
        """Return commit ``oid``; None when it is missing or another kind of object."""
        found = self.commit_here(oid)
        return self.commit_here(oid) if found is None and self.promised.bring(oid) else found

    def commit_here(self, oid: str) -> Commit | None:
        """Return commit ``oid`` like :meth:`commit_or_none`, without fetching it."""
        return object_values.commit(self.backend.objects, oid)

    def commit(self, oid: str) -> Commit:
        """Return commit ``oid``; raises :class:`MissingObjectsError`."""
        found = self.commit_or_none(oid)
        if found is None:
            raise MissingObjectsError(f"commit {oid} is not in this repository")
        return found

    def read_blob(self, oid: str) -> bytes:
        """Return the bytes of blob ``oid``; raises :class:`MissingObjectsError`."""
        found = self.blob(oid)
        if found is None:
            raise MissingObjectsError(f"blob {oid} is not in this repository")
        return found.data

    def read_tree(self, oid: str) -> Tree:
        """Return tree ``oid``; raises :class:`MissingObjectsError`."""
        found = self.tree_here(oid)
        if found is None and (self.promised.bring(oid) or self.write_staged_trees()):
            found = self.tree_here(oid)
        if found is None:
            raise MissingObjectsError(f"tree {oid} is not in this repository")
        return found

    def write_staged_trees(self) -> bool:
        """Write the trees below ``.theta/`` of the index that are missing; return whether there were any.

        An index keeps its blobs from git's gc, and not the trees of its folders.
        """
        if self._has_staged_trees or self.is_bare or self.is_read_only or not self.index_path.exists():
            return False
        self._has_staged_trees = True
        folders: dict[str, list[tuple[str, int, str]]] = {}
        for entry in self.read_index():
            if entry.path.startswith(f"{STORES}/") and not entry.stage:
                folder, _, name = entry.path.rpartition("/")
                folders.setdefault(folder, []).append((name, entry.mode, entry.oid))
        trees = {
            self.format.object_id(TREE, (body,), len(body)).hex(): body
            for body in map(tree_bytes, folders.values())
        }
        lost = [body for oid, body in trees.items() if not self.has(oid)]
        for body in lost:
            self.backend.objects.write(TREE, body)
        return bool(lost)

    def whole_tree(self, oid: str) -> Tree:
        """Return tree ``oid`` with all subtrees fetched; raises :class:`MissingObjectsError`."""
        tree = self.read_tree(oid)
        if self.promised.is_partial:
            self.promised.bring_below(oid)
        return tree

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        return self.backend.objects.has(oid)

    def look_up(self) -> Callable[[str], bool]:
        """Return whether an object is in this repository, asked of the packs that are here now."""
        return self.backend.objects.look_up()

    def write_blob(self, data: bytes) -> str:
        """Write a small blob as a loose object; return its id."""
        return self.backend.objects.write(BLOB, data)

    def walk_blobs(self, tree: Tree, prefix: str = "") -> Iterator[tuple[str, TreeEntry]]:
        """Yield (path, entry) of all files of ``tree`` that are not below ``.theta/``."""
        for entry in tree:
            path = prefix + entry.name
            if entry.mode == MODE_TREE:
                if path != STORES and entry.tree is not None:
                    yield from self.walk_blobs(entry.tree, path + "/")
            elif entry.is_file:
                yield path, entry
