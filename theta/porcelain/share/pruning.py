"""Dropping stored tensors that a remote has: the clone becomes lazy, and fetches them when they are read.

The refs of the remote are asked for now.  Each object that goes is proven to be there, in a store that does
not rest on the one here (:mod:`theta.porcelain.share.proving`), and sent by its id.  What stays of the packs
here is written to new ones, and durable, before the old ones go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import CorruptError, NotFoundError
from theta.git import remotes
from theta.git.object_format import BLOB
from theta.git.repository import STORES
from theta.porcelain.share import outgoing
from theta.porcelain.share.proving import Proof
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.odb.held_notes import staged_packs
from theta.store.odb.packs import Pack

_LEAST: Final = 1 << 10
"""Bytes up to which an object stays."""
_BRANCHES: Final = ("refs/heads/", "refs/tags/")
_LOOSE: Final = re.compile(r"[0-9a-f]{2}")
_SMALL: Final = re.compile(rf"{STORES}/.*(/@tensor|/@skeleton/[^/]*)$")
"""The small files of a checkpoint: the records of its tensors, and its skeleton."""


@dataclass(frozen=True)
class PruneRequest:
    """The objects to drop: those that ``remote`` has; None for the usual remote.

    ``sample``: of a remote that is not on this disk, some objects are fetched, which stand for all.
    """

    remote: str | None = None
    dry_run: bool = False
    sample: bool = False


@dataclass(frozen=True)
class Pruned:
    """The objects that went, or would go, and their bytes; ``proven``: the remote was seen to have them."""

    remote: str
    count: int
    size: int
    proven: bool = True


def prune(session: Session, request: PruneRequest, progress: Progress | None = None) -> Pruned:
    """Drop the tensors that the remote has; raises :class:`MissingObjectsError` unless that is proven."""
    remote = request.remote or remotes.default(session.repo)
    if remote is None or remote not in session.repo.refs.remotes():
        raise NotFoundError(f"there is no remote {remote or 'origin'}", hint="theta remote -v lists them")
    with session.change():
        work = _Pruning(session, remote)
        proof = Proof(session, remote, work.gone, request.sample)
        if work.gone:
            proof.look()
        if work.gone and not request.dry_run:
            proof.fetch(progress)
            work.promise()
            proof.refuse_bound()  # it may have promised the same of this repository meanwhile
            work.drop()
    proven = not request.dry_run or proof.place is not None
    return Pruned(remote, len(work.gone), sum(work.gone.values()), proven)


@dataclass
class _Pruning:
    """The objects here that a remote has."""

    session: Session
    remote: str

    @cached_property
    def _reached(self) -> dict[str, str]:
        """Object -> path, of all that the branches and tags of the remote reach and that is here."""
        there = outgoing.remote_commits(self.session, self.remote)
        tips = {oid for ref, oid in there.items() if ref.startswith(_BRANCHES) and self.session.repo.has(oid)}
        words = ("rev-list", "--objects", "--missing=allow-any", "--stdin")
        rows = "".join(f"{oid}\n" for oid in tips).encode()
        text = self.session.repo.git().run(*words, stdin=rows).text if tips else ""
        return {oid: path for oid, _, path in (row.partition(" ") for row in text.split("\n"))}

    @cached_property
    def gone(self) -> dict[str, int]:
        """Object -> bytes, of the tensors that go."""
        stored = [
            oid
            for oid, path in self._reached.items()
            if path.startswith(f"{STORES}/") and not _SMALL.match(path)
        ]
        here = self._packed.keys() | self._loose.keys()
        sizes = outgoing.sizes(self.session, [oid for oid in stored if oid in here])
        return {oid: size for oid, kind, size in sizes if kind == BLOB and size > _LEAST}

    @cached_property
    def _packs(self) -> dict[Path, list[str]]:
        """Index -> objects of the packs that may be replaced."""
        directory, held = self.session.objects.directory, set(staged_packs(self.session.repo))
        found = (place for place in directory.glob("pack-*.idx") if place.with_suffix(".pack") not in held)
        form = self.session.repo.format
        return {place: Pack(place, form).ids() for place in found if not place.with_suffix(".keep").exists()}

    @cached_property
    def _packed(self) -> dict[str, Path]:
        return {oid: place for place, oids in self._packs.items() for oid in oids}

    @cached_property
    def _loose(self) -> dict[str, Path]:
        folders = (
            folder
            for folder in self.session.objects.directory.parent.iterdir()
            if _LOOSE.fullmatch(folder.name)
        )
        return {folder.name + file.name: file for folder in folders for file in folder.iterdir()}

    def promise(self) -> None:
        """Note in the configuration that the remote has what is missing here, as a partial clone does."""
        git, key = self.session.repo.git(), f"remote.{self.remote}"
        git.run("config", "core.repositoryFormatVersion", "1")
        git.run("config", f"{key}.promisor", "true")
        git.run("config", f"{key}.partialCloneFilter", "blob:none")

    def drop(self) -> None:
        """Write what stays to new packs, then remove the old ones."""
        theirs = [oid for oid in self._reached if oid in self._packed or oid in self._loose]
        theirs = [oid for oid in theirs if oid not in self.gone]
        rest = [oid for oid in self._packed if oid not in self._reached]
        made = {*self._pack(theirs, promised=True), *self._pack(rest, promised=False)}
        form = self.session.repo.format
        kept = {oid for place in made for oid in Pack(place, form).ids()}
        if lost := (self._packed.keys() - self.gone.keys()) - kept:
            raise CorruptError(f"the new packs lack {len(lost)} objects; the old ones were left")
        loose = [self._loose[oid] for oid in self.gone if oid in self._loose]
        _remove(self.session.objects.directory, self._packs.keys() - made, loose)
        self.session.objects.refresh()

    def _pack(self, oids: list[str], *, promised: bool) -> list[Path]:
        """Write a pack of ``oids``; return its index."""
        if not oids:
            return []
        directory = self.session.objects.directory
        with _fs.temporary_directory(_fs.own_temporary("prune"), self.session.scratch()) as place:
            words = ("pack-objects", "--quiet", "--window=0", "--delta-base-offset", str(place / "pack"))
            asked = "".join(f"{oid}\n" for oid in oids).encode()
            name = self.session.repo.git().run(*words, stdin=asked).text.strip()
            if promised:
                _fs.write_atomic(directory / f"pack-{name}.promisor", b"")
            for suffix in ("pack", "rev", "idx"):  # git looks for the index
                if (made := place / f"pack-{name}.{suffix}").exists():
                    _fs.rename(made, directory / made.name)
        return [directory / f"pack-{name}.idx"]


def _remove(directory: Path, old: Iterable[Path], loose: Iterable[Path]) -> None:
    """Remove packs, their indexes first, and loose objects."""
    for place in directory.glob("multi-pack-index*"):
        _fs.remove(place)
    for index in old:
        for suffix in (".idx", ".rev", ".bitmap", ".promisor", ".pack"):
            _fs.remove(index.with_suffix(suffix))
    for file in loose:
        _fs.remove(file)
