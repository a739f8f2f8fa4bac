"""Versions of a folder as a gate reads them: the worktree, or the tree of a commit."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta.errors import NotFoundError
from theta.formats import sharded
from theta.formats.pickle_files.pickle_scan import PickleReport
from theta.porcelain.tensors import scanning, sources
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.checkpoints import by_model, shards_of
from theta.porcelain.workspace.session import Session
from theta.store.format import listings

MOST: Final = 256 << 20
"""The size up to which a file beside a checkpoint is read."""
PICKLED: Final = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
"""Ends of the names of files that are pickles, or hold some, by custom."""


@dataclass(frozen=True)
class VersionPlace:
    """A version as any process finds it: a commit, or the files below a folder if ``commit`` is ""."""

    root: str
    commit: str

    def opened(self, session: Session) -> VersionFiles:
        """Return the version, in the repository of ``session``."""
        if self.commit:
            return RevisionFiles(session, self.commit)
        return WorktreeFiles(Path(self.root), session)


class VersionFiles(ABC):
    """A version of a folder; paths are relative to its root, with slashes."""

    @property
    @abstractmethod
    def place(self) -> VersionPlace:
        """How another process finds this version."""

    @abstractmethod
    def model(self, path: str, stack: contextlib.ExitStack) -> Model:
        """Open a checkpoint, or a model in shards by the name of the whole, until ``stack`` is closed."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None when there is none, or a huge one."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files in ``folder``, "" for the root."""

    @abstractmethod
    def pickles(self, path: str) -> PickleReport:
        """Return what loading a file would call."""

    @abstractmethod
    def pickled(self) -> list[str]:
        """Return the committed or staged files, in all folders, that are pickles by their names."""

    def files(self, path: str) -> list[str]:
        """Return the files of the checkpoint ``path``: itself, or its shards."""
        folder, _, name = path.rpartition("/")
        names = self.names(folder)
        found = [path] if name in names else shards_of(name, names)
        return [one if "/" in one or not folder else f"{folder}/{one}" for one in found]


class WorktreeFiles(VersionFiles):
    """Files on the disk; ``session`` is of the repository around them, if there is one."""

    def __init__(self, root: Path, session: Session | None) -> None:
        self._root, self._session = root, session

    @property
    def place(self) -> VersionPlace:
        """The folder."""
        return VersionPlace(str(self._root.absolute()), "")

    def model(self, path: str, stack: contextlib.ExitStack) -> Model:
        """Open a file; one that is still a manifest is read from the repository."""
        place = self._root / path
        text = worktree.peek(place) if self._session is not None and place.is_file() else None
        if self._session is not None and text is not None:
            return sources.of_manifest(self._session, listings.read(self._session.objects, text), place.name)
        index = place.with_name(place.name + sharded.SUFFIX)
        return sources.of_file(index if index.is_file() and not place.exists() else place, stack)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file."""
        place = self._root / path
        if not place.is_file() or place.stat().st_size > MOST:
            return None
        return place.read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the files in a folder."""
        place = self._root / folder
        return sorted(item.name for item in place.iterdir() if item.is_file()) if place.is_dir() else []

    def pickles(self, path: str) -> PickleReport:
        """Scan a file."""
        return scanning.of_file(self._root / path)

    def pickled(self) -> list[str]:
        """Return those that git knows, and that are there."""
        entries = self._session.repo.entries() if self._session is not None else ()
        names = dict.fromkeys(entry.path for entry in entries)  # one in conflict has several entries
        return [name for name in names if name.endswith(PICKLED) and (self._root / name).is_file()]


class RevisionFiles(VersionFiles):
    """The tree of a commit."""

    def __init__(self, session: Session, commit: str) -> None:
        self._session, self._commit = session, commit
        self._tree = session.repo.tree_of(commit)

    @property
    def place(self) -> VersionPlace:
        """The commit."""
        return VersionPlace("", self._commit)

    def model(self, path: str, stack: contextlib.ExitStack) -> Model:
        """Open a stored checkpoint."""
        del stack  # what is in the repository holds nothing open
        return sources.of_revision(self._session, self._commit, path, "")

    def read(self, path: str) -> bytes | None:
        """Return the content of a blob."""
        entry = self._tree.get(path)
        if entry is None or not entry.is_file or self._session.objects.size(entry.id) > MOST:
            return None
        return self._session.repo.read_blob(entry.id)

    def names(self, folder: str) -> list[str]:
        """Return the blobs in a folder."""
        entry = self._tree.get(folder) if folder else None
        tree = self._tree if not folder else entry.tree if entry is not None else None
        return sorted(one.name for one in tree if one.is_file) if tree is not None else []

    def pickles(self, path: str) -> PickleReport:
        """Scan a stored file."""
        entry = self._tree.get(path)
        if entry is None:
            raise NotFoundError(f"there is no file {path} in {self._commit[:12]}")
        return scanning.of_blob(self._session, entry.id)

    def pickled(self) -> list[str]:
        """Return those of the tree."""
        return [path for path, _ in self._session.repo.walk_blobs(self._tree) if path.endswith(PICKLED)]


def models(paths: Iterable[str]) -> Iterator[str]:
    """Yield each model among the paths of checkpoints once: a single file, or the name that shards share."""
    for name, files in sorted(by_model(paths).items()):
        if files == {name} or len(files) > 1 or sharded.model_of(next(iter(files))) != next(iter(files)):
            yield name
