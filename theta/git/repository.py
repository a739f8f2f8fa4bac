"""A Git repository: its directories, revisions, blobs and trees."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pygit2

from theta import _modes
from theta.errors import (
    DamagedRepositoryError,
    DiskError,
    MissingObjectsError,
    NotARepositoryError,
    NotFoundError,
    NotHereYetError,
    NoWorktreeError,
    UnsupportedRepositoryError,
    UntrustedOwnerError,
)
from theta.git import object_values, state_files
from theta.git.index import Entry, IndexFile, has_conflicts, listing
from theta.git.named_values import Config, Refs
from theta.git.object_values import DAMAGED, MODE_TREE, Blob, Commit, Tree, TreeEntry
from theta.git.partial import Promised
from theta.git.run import DEFER, Git, redirected

pygit2.settings.enable_fsync_gitdir(True)
# In a partial clone, trees may name objects that are not fetched yet.
pygit2.option(pygit2.enums.Option.ENABLE_STRICT_OBJECT_CREATION, False)
pygit2.settings.set_extensions(["partialclone"])

STORES = ".theta"
ATTRIBUTES: Final = ".gitattributes"
_SMALL: Final = 256 << 10
"""Up to this size in bytes, reading an index here is faster than running git."""
_NO_STORES: Final = f":(exclude,top){STORES}"


class Repository:
    """A repository and, unless it is bare, one of its worktrees."""

    def __init__(self, raw: pygit2.Repository) -> None:
        self.raw = raw
        self.marks: dict[str, str] = {}
        """Environment variables that identify a git as a child process of this command."""
        self.attributes: dict[str, tuple[object, str]] = {}
        self.bases: dict[tuple[str, str], list[str]] = {}
        self.tracked: dict[Path | None, tuple[object, Mapping[str, object], tuple[Entry, ...]]] = {}
        self._attribute_files: dict[Path | None, tuple[object, dict[str, str]]] = {}
        self._indexes: dict[Path, IndexFile] = {}
        self.gitdir = Path(raw.path)
        self.commondir = _common_dir(self.gitdir)
        self.is_bare = not raw.workdir
        if permission := _shared_permission(raw):
            _modes.share(self.commondir, permission)

    @classmethod
    def discover(cls, start: str | Path) -> Repository:
        """Open the repository that contains ``start``; raises a theta error for each kind of failure."""
        try:
            if redirected():
                return cls._redirected(Path(start))
            path = pygit2.discover_repository(str(start))
            if path is None:
                raise NotARepositoryError(
                    "not a git repository (or any of the parent directories)",
                    hint="run 'theta init' or 'git init' first",
                )
            return cls(pygit2.Repository(str(start)))  # the git directory may be elsewhere
        except pygit2.GitError as error:
            raise _opening_error(str(error), start) from error

    @classmethod
    def _redirected(cls, start: Path) -> Repository:
        """Open the repository of ``GIT_DIR`` and ``GIT_WORK_TREE``; libgit2 respects only one of them."""
        git = Git(start)
        found = git.run("rev-parse", "--absolute-git-dir", check=False)
        if found.code:
            raise NotARepositoryError(
                found.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: "),
                hint="GIT_DIR or GIT_WORK_TREE is set",
            )
        raw = pygit2.Repository(found.text.rstrip("\n"))
        top = git.run("rev-parse", "--show-toplevel", check=False).text.rstrip("\n")
        if top and (not raw.workdir or os.path.realpath(raw.workdir) != os.path.realpath(top)):
            raw.workdir = top
        return cls(raw)

    @cached_property
    def worktree(self) -> Path:
        """The root of the worktree; raises :class:`NoWorktreeError` in a bare repository."""
        if self.raw.workdir is None:
            raise NoWorktreeError("this command needs a working tree, and the repository is bare")
        return Path(self.raw.workdir)

    @property
    def top(self) -> Path:
        """The root of the worktree, or the git directory of a bare repository."""
        return Path(self.raw.workdir) if self.raw.workdir else self.gitdir

    def entries(self, index: Path | None = None) -> tuple[Entry, ...]:
        """Return the entries (all stages) of the index, or of the file ``index``, not below ``.theta/``.

        They are cached until the file changes.
        """
        path = index or self.index_path
        known = self._indexes.setdefault(path, IndexFile(path))
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
            return self.index_path.exists() and has_conflicts(self.index_path)
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

    @property
    def shared(self) -> Path:
        """The directory of theta for the repository: locks, staged packs."""
        return self.commondir / "theta"

    def git(self, *, index: Path | None = None, extra: Mapping[str, str] = DEFER) -> Git:
        """Return a runner of git in the worktree; by default theta's filter and hooks do nothing."""
        return Git(self.top, index_file=index, extra=extra, marks=self.marks)

    def setting(self, key: str) -> bool:
        """Return a boolean of git's configuration whose default is true."""
        return self.git().run("config", "--type=bool", "--get", key, check=False).text.strip() != "false"

    @property
    def config(self) -> Config:
        """Git's configuration."""
        return Config(self.raw.config)

    @property
    def refs(self) -> Refs:
        """The references of the repository."""
        return Refs(self.raw)

    def apart(self, place: Path) -> Repository:
        """Return this repository with ``place`` as the objects directory for new objects."""
        raw, odb = pygit2.Repository(str(self.gitdir)), pygit2.Odb(str(place))
        odb.add_disk_alternate(str(self.commondir / "objects"))
        raw.set_odb(odb)
        return Repository(raw)

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
                return listing(self.index_path)
        return self.git().run("ls-files", "-s", "-z").stdout

    def resolve(self, revision: str) -> str:
        """Return the object id that ``revision`` names; raises :class:`NotFoundError`."""
        try:
            return str(self.raw.revparse_single(revision).id)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise NotFoundError(f"no such revision: {revision}") from error

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that ``revision`` names; None when it names something else or nothing."""
        try:
            return str(self.raw.revparse_single(revision).peel(pygit2.Commit).id)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def tree_of(self, revision: str) -> Tree:
        """Return the tree of the commit, tag or tree that ``revision`` names, with all subtrees fetched."""
        try:
            if self.promised.is_partial and ":" in revision:
                self.tree_of(revision.partition(":")[0] or "HEAD")
            found: Any = self.raw.revparse_single(revision)
            while isinstance(found, pygit2.Tag):
                found = found.get_object()
            tree = found.tree_id if isinstance(found, pygit2.Commit) else found.id
            return self.whole_tree(str(tree))
        except (KeyError, ValueError, pygit2.GitError, MissingObjectsError) as error:
            if isinstance(error, NotHereYetError):
                raise
            raise NotFoundError(f"no such revision: {revision}") from error

    def head(self) -> str | None:
        """Return the commit at HEAD; None on an unborn branch."""
        try:
            return None if self.raw.head_is_unborn else str(self.raw.head.target)
        except (KeyError, ValueError, pygit2.GitError) as error:
            said = self.git().run("log", "-1", "--format=%H", check=False).stderr.decode("utf-8", "replace")
            words = said.strip().removeprefix("fatal: ").splitlines() or [str(error)]
            raise DamagedRepositoryError(f"HEAD cannot be read: {words[-1]}", hint=DAMAGED) from error

    def merge_heads(self) -> list[str]:
        """Return the commits in MERGE_HEAD; empty when no merge is in progress."""
        return state_files.commits(self.gitdir, state_files.MERGE_HEAD)

    @property
    def is_detached(self) -> bool:
        """Whether HEAD is detached."""
        return self.raw.head_is_detached

    @property
    def branch(self) -> str:
        """The name of the branch that is checked out; ``HEAD`` if detached."""
        return self.raw.head.shorthand

    def parents_ahead(self) -> list[str]:
        """Return the parents of the next commit: HEAD and, in a merge, MERGE_HEAD."""
        found = [head] if (head := self.head()) else []
        return found + self.merge_heads()

    def in_progress(self) -> bool:
        """Return whether a rebase, am, cherry-pick or revert sequence is in progress."""
        return state_files.sequencing(self.gitdir)

    # -- objects ---------------------------------------------------------------------

    def _here(self, oid: str) -> pygit2.Object | None:
        """Return object ``oid`` without fetching it; None when it is not in this repository."""
        try:
            return self.raw.get(oid)
        except (ValueError, pygit2.GitError):
            return None

    def _find(self, oid: str) -> pygit2.Object | None:
        found = self._here(oid)
        return self._here(oid) if found is None and self.promised.bring(oid) else found

    def obtains(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository, after fetching it if it is promised.

        Raises :class:`NotHereYetError` if the fetch fails, as all methods that read objects do.
        """
        return self._find(oid) is not None

    def blob(self, oid: str) -> Blob | None:
        """Return blob ``oid``; None when it is missing or another kind of object."""
        return object_values.blob(self._find(oid))

    def blob_here(self, oid: str) -> Blob | None:
        """Return blob ``oid`` like :meth:`blob`, without fetching it."""
        return object_values.blob(self._here(oid))

    def tree_here(self, oid: str) -> Tree | None:
        """Return tree ``oid`` without fetching it; None when it is not in this repository."""
        return object_values.tree(self._here(oid))

    def commit_or_none(self, oid: str) -> Commit | None:
        """Return commit ``oid``; None when it is missing or another kind of object."""
        return object_values.commit(self._find(oid))

    def commit_here(self, oid: str) -> Commit | None:
        """Return commit ``oid`` like :meth:`commit_or_none`, without fetching it."""
        return object_values.commit(self._here(oid))

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
        found = object_values.tree(self._find(oid))
        if found is None:
            raise MissingObjectsError(f"tree {oid} is not in this repository")
        return found

    def whole_tree(self, oid: str) -> Tree:
        """Return tree ``oid`` with all subtrees fetched; raises :class:`MissingObjectsError`."""
        tree = self.read_tree(oid)
        if self.promised.is_partial:
            self.promised.bring_below(oid)
        return tree

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        return pygit2.Oid(hex=oid) in self.raw.odb

    def write_blob(self, data: bytes) -> str:
        """Write a small blob as a loose object; return its id."""
        return str(self.raw.create_blob(data))

    def walk_blobs(self, tree: Tree, prefix: str = "") -> Iterator[tuple[str, TreeEntry]]:
        """Yield (path, entry) of all files of ``tree`` that are not below ``.theta/``."""
        for entry in tree:
            path = prefix + entry.name
            if entry.mode == MODE_TREE:
                if path != STORES and entry.tree is not None:
                    yield from self.walk_blobs(entry.tree, path + "/")
            elif entry.is_file:
                yield path, entry


def _found(start: str | Path) -> Path:
    """Return the root of the worktree, or the bare repository, that contains ``start``."""
    place = Path(start).resolve()
    signs = (".git", "HEAD")
    return next((at for at in (place, *place.parents) if any((at / sign).exists() for sign in signs)), place)


def _shared_permission(raw: pygit2.Repository) -> int:
    """Return the file mode bits of ``core.sharedRepository``, as git's ``git_config_perm``.

    They are added to those of the umask if positive and replace them if negative; 0 if not shared.
    """
    value = raw.config["core.sharedrepository"] if "core.sharedrepository" in raw.config else ""  # noqa: SIM401
    word = str(value).lower()
    if word in ("all", "world", "everybody", "2"):
        return 0o664
    if word in ("group", "true", "yes", "on", "1"):
        return 0o660
    exact = int(word, 8) & 0o666 if word and set(word) <= set("01234567") else 0
    return -exact


def _common_dir(gitdir: Path) -> Path:
    pointer = gitdir / "commondir"
    if not pointer.exists():
        return gitdir
    return Path(os.path.normpath(gitdir / pointer.read_text().strip()))


def _opening_error(message: str, start: str | Path) -> Exception:
    lowered = message.lower()
    if "not owned by" in lowered:
        place = _found(start)
        return UntrustedOwnerError(
            f"detected dubious ownership in repository at '{place}'",
            hint=f"to trust its owner: git config --global --add safe.directory {shlex.quote(str(place))}",
        )
    for sign, what in (("sha256", "SHA-256 objects"), ("object format", "another object format")):
        if sign in lowered:
            return UnsupportedRepositoryError(f"this repository uses {what}, which theta cannot write yet")
    if "refstorage" in lowered:
        return UnsupportedRepositoryError(
            "this repository keeps its refs as a reftable, which theta cannot write yet",
            hint="git refs migrate --ref-format=files",
        )
    if "extension" in lowered:
        return UnsupportedRepositoryError(f"this repository needs a Git feature that theta lacks: {message}")
    return NotARepositoryError(f"cannot open the repository at {start}: {message}")
