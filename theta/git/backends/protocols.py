"""The protocols by which theta reads and writes a repository; they are small enough for git itself to serve.

libgit2 is the fastest implementation (``by_libgit2``).  It cannot open a repository of SHA-256, or one with a
reftable; git can (``by_git``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from theta.git.backends.index_entries import Entry, Staged
from theta.git.object_format import ObjectFormat


class ObjectStore(Protocol):
    """The objects of the repository, by id; none is fetched."""

    @property
    def format(self) -> ObjectFormat:
        """The hash that names the objects."""
        ...

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        ...

    def look_up(self) -> Callable[[str], bool]:
        """Return whether an object is in this repository, asked of the packs that are here now.

        For many objects that are new: :meth:`has` looks for new packs with each of them.
        """
        ...

    def header(self, oid: str) -> tuple[str, int] | None:
        """Return the kind and the size of object ``oid``; None when it is not in this repository."""
        ...

    def read(self, oid: str) -> tuple[str, bytes] | None:
        """Return the kind and the bytes of object ``oid``; None when it is not in this repository.

        Raises :class:`DamagedRepositoryError` when it cannot be read.
        """
        ...

    def write(self, kind: str, data: bytes) -> str:
        """Write an object; return its id."""
        ...


class Refs(Protocol):
    """The refs by their full names."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: str) -> bool: ...

    def head(self) -> tuple[str, str | None]:
        """Return the ref that HEAD names ("" if detached) and its commit (None on an unborn branch).

        Raises :class:`DamagedRepositoryError` when HEAD cannot be read.
        """
        ...

    def target(self, name: str) -> str:
        """Return the target of the existing ref ``name``: an id, or a name for a symbolic ref."""
        ...

    def resolved(self, name: str) -> str | None:
        """Return the id that ref ``name`` resolves to; None for a damaged ref or an unborn branch."""
        ...

    def all_resolved(self) -> dict[str, str]:
        """Return name -> id of all refs that resolve."""
        ...

    def direct(self, *prefixes: str) -> dict[str, str]:
        """Return name -> id of the refs with these prefixes that are not symbolic and resolve."""
        ...

    def is_valid(self, name: str) -> bool:
        """Return whether a ref can have the full name ``name``."""
        ...

    def checked_out(self) -> set[str]:
        """Return the refs that the HEADs of all worktrees name."""
        ...

    def used_elsewhere(self) -> set[str]:
        """Return the branches that other worktrees than this one have at HEAD, rebase or bisect."""
        ...

    def move(self, name: str, new: str, old: str, reason: str) -> bool:
        """Move ref ``name`` from ``old`` ("" for a new one) to ``new``; the reflog gets ``reason``.

        Return False, and do nothing, where git has to do it: it has hooks for that, or says why not.
        """
        ...

    def put(self, refs: Mapping[str, str]) -> None:
        """Set refs, by their names, to objects, whatever their old values."""
        ...

    def remove(self, name: str) -> None:
        """Remove ref ``name``."""
        ...

    def log(self, name: str) -> list[str]:
        """Return the ids in the reflog of ``name``, newest first."""
        ...

    def remotes(self) -> list[str]:
        """Return the names of the remotes."""
        ...


class Config(Protocol):
    """Git's current configuration from all its files.

    Section and key are in lower case, a subsection is as written.
    """

    def __contains__(self, key: str) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def get(self, key: str) -> str | None:
        """Return the effective value; None when the key is not set or has no value."""
        ...

    def all(self, key: str) -> list[str]:
        """Return all values of a key that may be set many times."""
        ...

    def flag(self, key: str) -> bool:
        """Return whether the key is set to true."""
        ...


class History(Protocol):
    """Revisions, and how commits descend from each other.

    A commit that is not in this repository raises :class:`MissingObjectsError`.
    """

    def named(self, revision: str) -> str | None:
        """Return the object that ``revision`` names; None when it names none in this repository."""
        ...

    def merge_base(self, one: str, other: str) -> str | None:
        """Return a merge base; None when there is none."""
        ...

    def descends(self, commit: str, ancestor: str) -> bool:
        """Return whether ``commit`` is a descendant of ``ancestor``."""
        ...

    def since(self, head: str, hidden: Iterable[str] = (), *, parents_first: bool = False) -> Iterator[str]:
        """Yield the commits that ``head`` reaches and none of ``hidden`` does, in any order by default."""
        ...


class EditedIndex(Protocol):
    """An atomic change of an index file.

    The index is written at the end of the ``with`` block, unless the block raises.
    """

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in git's order."""
        ...

    def outside(self, directory: str) -> Iterator[Entry]:
        """Yield the entries that are not below ``directory``, where many may be."""
        ...

    def paths_under(self, directory: str) -> dict[str, tuple[str, bool]]:
        """Return path -> (object id, skip-worktree flag) of the stage-0 entries below ``directory``."""
        ...

    def put(self, item: Staged) -> None:
        """Add or replace the stage-0 entry of ``item.path``, dropping its conflict stages."""
        ...

    def put_conflict(self, path: str, base: str | None, ours: str | None, theirs: str | None) -> None:
        """Put ``path`` into conflict with these blob ids as stages 1 to 3, None for a missing file."""
        ...

    def drop_conflict(self, path: str) -> None:
        """Drop the stages 1 to 3 of ``path``, if any."""
        ...

    def remove(self, path: str) -> None:
        """Remove the stage-0 entry of ``path``."""
        ...

    def remove_conflicts_under(self, directory: str) -> None:
        """Drop the conflict stages of all paths below ``directory``."""
        ...

    def prepare(self) -> None:
        """Write all but the name: the end of the block needs no room then.  Nothing is edited afterwards."""
        ...


class Indexes(Protocol):
    """Index files: that of a worktree, and those that git makes for a moment."""

    def entries(self, path: Path) -> list[Entry]:
        """Return all entries of the index file at ``path``; empty without a file."""
        ...

    def outside(self, path: Path, directory: str) -> list[Entry]:
        """Return the entries that are not below ``directory``, where many may be."""
        ...

    def listing(self, path: Path) -> bytes:
        """Return all entries as ``git ls-files -s -z`` prints them."""
        ...

    def has_conflicts(self, path: Path) -> bool:
        """Return whether entries are in conflict."""
        ...

    def fresh_paths(self, path: Path, seen: Mapping[str, os.stat_result]) -> set[str]:
        """Return those paths of ``seen`` whose index entry has these stat data and is trusted by git."""
        ...

    def write_tree(self, path: Path) -> str | None:
        """Write the tree of the index; None when there are conflicts, or libgit2 cannot write it."""
        ...

    def edit(self, path: Path, scratch: Path, *, patient: bool = True) -> AbstractContextManager[EditedIndex]:
        """Return an atomic change of the index file at ``path``; raises :class:`BusyError` on a lock."""
        ...


class Backend(Protocol):
    """A repository, by whatever it is read and written."""

    @property
    def gitdir(self) -> Path:
        """The directory of git for this worktree."""
        ...

    @property
    def top(self) -> Path | None:
        """The root of the worktree, if there is one."""
        ...

    @property
    def objects(self) -> ObjectStore:
        """The objects."""
        ...

    @property
    def refs(self) -> Refs:
        """The refs."""
        ...

    @property
    def config(self) -> Config:
        """Git's configuration."""
        ...

    @property
    def lasting_config(self) -> Config:
        """Git's configuration without what holds for this command only, if that can be told."""
        ...

    @property
    def history(self) -> History:
        """The commits."""
        ...

    @property
    def indexes(self) -> Indexes:
        """The index files."""
        ...

    def apart(self, place: Path) -> Backend:
        """Return the same repository with ``place`` as the objects directory for new objects."""
        ...
