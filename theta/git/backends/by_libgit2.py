"""A repository that libgit2 reads and writes, without starting a process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pygit2
from pygit2.enums import ObjectType, SortMode

from theta.errors import DamagedRepositoryError, DiskError, MissingObjectsError, UnsupportedRepositoryError
from theta.git import state_files
from theta.git.backends import index
from theta.git.backends.index_entries import Entry
from theta.git.backends.loose_and_packed import ObjectFiles
from theta.git.backends.loose_reader import KINDS, NUMBERS, ReadingRepository, opened
from theta.git.object_format import SHA1, TREE
from theta.git.object_values import DAMAGED
from theta.git.run import Git, configures
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git.backends import git_settings
    from theta.git.backends.git_settings import GitSettings
    from theta.git.backends.protocols import Config
else:
    git_settings = Module("theta.git.backends.git_settings")

pygit2.settings.enable_fsync_gitdir(True)
# In a partial clone, trees may name objects that are not fetched yet.
pygit2.option(pygit2.enums.Option.ENABLE_STRICT_OBJECT_CREATION, False)
pygit2.settings.set_extensions(["partialclone"])
# libgit2 maps packs by the gigabyte, and what it has read of them counts as our memory.
pygit2.settings.mwindow_size = 4 << 20
pygit2.settings.mwindow_mapped_limit = 64 << 20

_BY_REMOTE: Final = "includeif.hasconfig:"
_HOOK: Final = "reference-transaction"
"""The hook that git runs when refs move; libgit2 runs none."""
_LOCK_TRIES: Final = 20
"""Times, .05 s apart, that a locked ref is tried; git itself waits .1 s for one ref and 1 s for all."""
_BUILT_IN: Final = {SHA1.object_id(TREE, (), 0).hex(): (TREE, b"")}
"""The empty tree, which git and the headers of libgit2 have built in."""


class Libgit2:
    """One repository, opened by libgit2."""

    def __init__(self, raw: pygit2.Repository, objects: Path | None = None) -> None:
        """Take ``raw``, and the directory for its new objects if that is not its own."""
        self.raw = raw
        self.gitdir = Path(raw.path)
        self.top = Path(raw.workdir) if raw.workdir else None
        reader = ReadingRepository(self.gitdir, objects)
        self.objects = Libgit2Objects(raw, reader.files)
        self._settings = Libgit2Settings(raw, self.top or self.gitdir)
        self.refs = Libgit2Refs(raw, self._settings)
        self.history = Libgit2History(reader, self.objects)
        self.indexes = Libgit2Indexes(raw)

    @property
    def config(self) -> Config:
        """Git's configuration."""
        return self._settings.config

    @property
    def lasting_config(self) -> Config:
        """Git's configuration without what holds for this command only."""
        return self._settings.lasting

    def apart(self, place: Path) -> Libgit2:
        """Return the same repository with ``place`` as the objects directory for new objects."""
        return Libgit2(opened(self.gitdir, place), place)


class Libgit2Objects:
    """The objects of the repository."""

    format = SHA1

    def __init__(self, raw: pygit2.Repository, files: ObjectFiles) -> None:
        self._odb, self._files = raw.odb, files

    def has(self, oid: str) -> bool:
        """Return whether object ``oid`` is in this repository."""
        return pygit2.Oid(hex=oid) in self._odb

    def look_up(self) -> Callable[[str], bool]:
        """Return whether an object is in this repository, asked of the packs that are here now."""
        packs, loose = self._parts
        for part in packs:
            part.refresh()
        parts = [*packs, *loose]
        return lambda oid: any(part.exists(pygit2.Oid(hex=oid)) for part in parts)

    @cached_property
    def _parts(self) -> tuple[list[pygit2.OdbBackendPack], list[pygit2.OdbBackendLoose]]:
        # Made once: libgit2 1.9 does not let go of the multi-pack-index of a backend.
        places = [str(place) for place in self._files.places]
        packs = [pygit2.OdbBackendPack(place) for place in places]
        return packs, [pygit2.OdbBackendLoose(place, 0, False) for place in places]

    def header(self, oid: str) -> tuple[str, int] | None:
        """Return the kind and the size of object ``oid``; None when it is missing or cannot be read."""
        try:
            kind, size = self._odb.read_header(pygit2.Oid(hex=oid))
        except (KeyError, ValueError, pygit2.GitError):
            return None
        return KINDS[ObjectType(kind)], size

    def read(self, oid: str) -> tuple[str, bytes] | None:
        """Return the kind and the bytes of object ``oid``; None when it is not in this repository."""
        try:
            return self._files.loose(oid) or _read(self._odb, oid)
        except (KeyError, ValueError):
            return _BUILT_IN.get(oid)
        except pygit2.GitError as error:
            raise DamagedRepositoryError(f"object {oid} cannot be read: {error}", hint=DAMAGED) from error
        except DamagedRepositoryError:  # a pack may have it too
            if (found := self._packed(oid)) is None:
                raise
            return found

    def _packed(self, oid: str) -> tuple[str, bytes] | None:
        """Return an object of a pack; libgit2 would read its file as well."""
        packs = pygit2.Odb()
        for place in self._files.places:
            packs.add_backend(pygit2.OdbBackendPack(str(place)), 1)
        with contextlib.suppress(KeyError, ValueError, pygit2.GitError):
            return _read(packs, oid)
        return None

    def write(self, kind: str, data: bytes) -> str:
        """Write an object; return its id."""
        return str(self._odb.write(NUMBERS[kind], data))


def _read(odb: pygit2.Odb, oid: str) -> tuple[str, bytes]:
    kind, data = odb.read(pygit2.Oid(hex=oid))
    return KINDS[ObjectType(kind)], data


class Libgit2Refs:
    """The refs by their full names."""

    def __init__(self, raw: pygit2.Repository, settings: Libgit2Settings) -> None:
        self._raw, self._settings = raw, settings
        self._shared = state_files.common_directory(Path(raw.path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw.references)

    def __contains__(self, name: str) -> bool:
        try:
            return name in self._raw.references
        except ValueError:  # longer than any name of a ref
            return False

    def head(self) -> tuple[str, str | None]:
        """Return the ref that HEAD names ("" if detached) and its commit (None on an unborn branch)."""
        raw = self._raw
        try:
            name = "" if raw.head_is_detached else str(raw.lookup_reference("HEAD").target)
            return name, None if raw.head_is_unborn else str(raw.head.target)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise DamagedRepositoryError(f"HEAD cannot be read: {error}", hint=DAMAGED) from error

    def target(self, name: str) -> str:
        """Return the target of the existing ref ``name``: an id, or a name for a symbolic ref."""
        return str(self._raw.references[name].target)

    def resolved(self, name: str) -> str | None:
        """Return the id that ref ``name`` resolves to; None for a damaged ref or an unborn branch."""
        try:
            return str(self._raw.references[name].resolve().target)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def all_resolved(self) -> dict[str, str]:
        """Return name -> id of all refs that resolve."""
        return {name: oid for name in self if (oid := self.resolved(name)) is not None}

    def direct(self, *prefixes: str) -> dict[str, str]:
        """Return name -> id of the refs with these prefixes that are not symbolic and resolve."""
        found = {}
        for name in filter(lambda name: name.startswith(prefixes), self):
            with contextlib.suppress(KeyError):  # somebody removed it meanwhile
                oid = self.resolved(name)
                if oid is not None and self.target(name) == oid:
                    found[name] = oid
        return found

    def is_valid(self, name: str) -> bool:
        """Return whether a ref can have the full name ``name``."""
        try:
            return bool(pygit2.reference_is_valid_name(name))
        except ValueError:  # it is not UTF-8, or has a NUL
            return False

    def checked_out(self) -> set[str]:
        """Return the refs that the HEADs of all worktrees name."""
        is_bare = self._settings.config.flag("core.bare")
        return state_files.checked_out(self._shared, is_bare=is_bare)

    def used_elsewhere(self) -> set[str]:
        """Return the branches that other worktrees than this one have at HEAD, rebase or bisect."""
        is_bare = self._settings.config.flag("core.bare")
        return state_files.used_elsewhere(Path(self._raw.path), is_bare=is_bare)

    def move(self, name: str, new: str, old: str, reason: str) -> bool:
        """Move ref ``name`` from ``old`` to ``new``; return False where git has to do it."""
        if self._may_have_hook():
            return False
        try:
            if not old:
                self._raw.create_reference_direct(name, pygit2.Oid(hex=new), False, reason)
                return True
            ref = self._raw.references[name]
            if ref.raw_target != pygit2.Oid(hex=old):
                return False
            ref.set_target(pygit2.Oid(hex=new), reason)
        except (KeyError, ValueError, OSError, pygit2.GitError):
            return False
        return True

    def _may_have_hook(self) -> bool:
        """Return whether git may have a hook for refs: a file, or a setting (git 2.54)."""
        config = self._settings.config
        if "core.hookspath" in config or (self._shared / "hooks" / _HOOK).exists():
            return True
        events = (key for key in config if key.startswith("hook.") and key.endswith(".event"))
        return any(_HOOK in config.all(key) for key in events)

    def put(self, refs: Mapping[str, str]) -> None:
        """Set refs, by their names, to objects, whatever their old values."""
        for name, oid in refs.items():
            _patiently(partial(self._raw.references.create, name, pygit2.Oid(hex=oid), force=True))

    def remove(self, name: str) -> None:
        """Remove ref ``name``, if it is there."""
        with contextlib.suppress(KeyError):  # another process was first
            _patiently(partial(self._raw.references.delete, name))

    def log(self, name: str) -> list[str]:
        """Return the ids in the reflog of ``name``, newest first."""
        return [str(line.oid_new) for line in self._raw.references[name].log()]

    def remotes(self) -> list[str]:
        """Return the names of the remotes."""
        return git_settings.remotes(self._settings.config)


def _patiently(change: Callable[[], object]) -> None:
    """Make a change of refs; wait, as git does and libgit2 does not, while another process locks them."""
    for _ in range(_LOCK_TRIES):
        try:
            change()
            return
        except (OSError, pygit2.GitError) as error:
            if "failed to lock" not in str(error):
                raise
        time.sleep(0.05)
    change()


class Libgit2Settings:
    """The configuration of a repository at ``place``; git is asked where libgit2 does not see all of it."""

    def __init__(self, raw: pygit2.Repository, place: Path) -> None:
        self._raw, self._place = raw, place

    @property
    def config(self) -> Config:
        """The configuration."""
        return Libgit2Config(self._raw.config) if self._sees_all else self._asked.config

    @property
    def lasting(self) -> Config:
        """The configuration of files: without what ``-c`` and the environment add."""
        return Libgit2Config(self._raw.config) if self._sees_all else self._asked.lasting

    @property
    def _sees_all(self) -> bool:
        return not (configures() or self._has_more)

    @cached_property
    def _has_more(self) -> bool:
        """Whether only git reads all: an entry is no UTF-8, or a file is included for the URL of a remote."""
        try:
            read = [(entry.name, entry.value) for entry in self._raw.config]
        except UnicodeDecodeError:
            return True
        return any(name.startswith(_BY_REMOTE) for name, _ in read)

    @cached_property
    def _asked(self) -> GitSettings:
        return git_settings.GitSettings(Git(self._place), Path(self._raw.path))


class Libgit2Config:
    """Git's current configuration from all its files."""

    def __init__(self, found: pygit2.Config) -> None:
        self._found = found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._found)

    def get(self, key: str) -> str | None:
        """Return the effective value; None when the key is not set or has no value."""
        return self._found[key] if key in self._found else None  # noqa: SIM401

    def all(self, key: str) -> list[str]:
        """Return all values of a key that may be set many times."""
        return [value for value in self._found.get_multivar(key) if value]

    def flag(self, key: str) -> bool:
        """Return whether the key is set to true."""
        with contextlib.suppress(pygit2.GitError, ValueError):  # a value that is neither true nor false
            return key in self._found and self._found.get_bool(key)
        return False


class Libgit2History:
    """Revisions, and how commits descend from each other."""

    def __init__(self, reader: ReadingRepository, objects: Libgit2Objects) -> None:
        self._reader, self._objects = reader, objects

    def named(self, revision: str) -> str | None:
        """Return the object that ``revision`` names; None when it names none in this repository."""
        if self._objects.format.is_id(revision):  # git takes it for no ref either
            return revision if self._objects.read(revision) is not None else None
        try:
            with self._reader.reading() as raw:
                return str(raw.revparse_single(revision).id)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def merge_base(self, one: str, other: str) -> str | None:
        """Return a merge base; None when there is none."""
        with self._walking() as raw:
            found = raw.merge_base(pygit2.Oid(hex=one), pygit2.Oid(hex=other))
        return str(found) if found else None

    def descends(self, commit: str, ancestor: str) -> bool:
        """Return whether ``commit`` is a descendant of ``ancestor``."""
        with self._walking() as raw:
            return raw.descendant_of(pygit2.Oid(hex=commit), pygit2.Oid(hex=ancestor))

    def since(self, head: str, hidden: Iterable[str] = (), *, parents_first: bool = False) -> Iterator[str]:
        """Yield the commits that ``head`` reaches and none of ``hidden`` does."""
        order = SortMode.TOPOLOGICAL | SortMode.REVERSE if parents_first else SortMode.NONE
        with self._walking() as raw:
            walker = raw.walk(pygit2.Oid(hex=head), order)
            for oid in hidden:
                walker.hide(pygit2.Oid(hex=oid))
        while True:
            with self._walking():
                commit = next(walker, None)
            if commit is None:
                return
            yield str(commit.id)

    @contextlib.contextmanager
    def _walking(self) -> Iterator[pygit2.Repository]:
        try:
            with self._reader.reading() as raw:
                yield raw
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise MissingObjectsError(f"a commit is not in this repository: {error}") from error


class Libgit2Indexes:
    """Index files."""

    def __init__(self, raw: pygit2.Repository) -> None:
        self._raw = raw

    def entries(self, path: Path) -> list[Entry]:
        """Return all entries of the index file at ``path``; empty without a file."""
        return index.read_entries(path)

    def outside(self, path: Path, directory: str) -> list[Entry]:
        """Return the entries that are not below ``directory``, where many may be."""
        return index.read_outside(path, directory)

    def listing(self, path: Path) -> bytes:
        """Return all entries as ``git ls-files -s -z`` prints them."""
        return index.listing(path)

    def has_conflicts(self, path: Path) -> bool:
        """Return whether entries are in conflict."""
        return index.has_conflicts(path)

    def fresh_paths(self, path: Path, seen: Mapping[str, os.stat_result]) -> set[str]:
        """Return those paths of ``seen`` whose index entry has these stat data and is trusted by git."""
        return index.fresh_paths(path, seen)

    def write_tree(self, path: Path) -> str | None:
        """Write the tree of the index; None when there are conflicts, or libgit2 cannot write it."""
        try:
            found = index.opened(path)
            return None if index.has_intended(found) else str(found.write_tree(self._raw))
        except (pygit2.GitError, UnsupportedRepositoryError, DiskError):
            return None

    def edit(self, path: Path, scratch: Path, *, patient: bool = True) -> index.IndexEdit:
        """Return an atomic change of the index file at ``path``."""
        return index.IndexEdit(path, scratch, patient=patient)
