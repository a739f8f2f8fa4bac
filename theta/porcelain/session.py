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

import pygit2

from theta import _fs, _notes
from theta.errors import BusyError, ManifestError, NewerFormatError, NotHereYetError, ThetaError, concerning
from theta.git import processes
from theta.git.attributes import tracked_entries
from theta.git.index import Entry, IndexEdit
from theta.git.repository import Repository
from theta.store import listings
from theta.store import manifest as manifests
from theta.store.changes import Version, of_manifest
from theta.store.manifest import Manifest
from theta.store.objects import Objects
from theta.store.statcache import StatCache


class Session:
    """A repository as one theta command works on it."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.objects = Objects(repo)
        self._parsed: dict[str, Manifest] = {}
        self._places: dict[str, str] = {}

    @classmethod
    def here(cls, start: str | Path = ".") -> Session:
        """The session of the repository around ``start``."""
        return cls(Repository.discover(start))

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
        blob = self.repo.find(oid)
        if not isinstance(blob, pygit2.Blob) or blob.size > manifests.MAX_BYTES:
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
        blob = self.repo.find(oid) if oid else None
        if oid is None or not isinstance(blob, pygit2.Blob) or not manifests.looks_like_manifest(blob.data):
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

    def entries(self, index: Path | None = None) -> list[Entry]:
        """Index entries of tracked paths, all stages."""
        found = tracked_entries(self.repo, index)
        self.repo.promised.expect(entry.oid for entry in found)
        self._places |= {entry.oid: entry.path for entry in found}
        return found

    def staged(self, index: Path | None = None) -> dict[str, Entry]:
        """Path -> its stage-0 entry, for tracked paths."""
        return {entry.path: entry for entry in self.entries(index) if entry.stage == 0}

    def expect_trees(self, revisions: Iterable[str]) -> None:
        """:meth:`in_tree` is going to be asked for ``revisions``."""
        from theta.porcelain.trees import expect

        expect(self.repo, revisions)

    def in_tree(self, revision: str) -> dict[str, str]:
        """Path -> blob id of each checkpoint in the tree of ``revision``."""
        from theta.porcelain.trees import checkpoints

        found = checkpoints(self.repo, self.repo.tree_of(revision))
        label = revision[:12] if _is_id(revision) else revision
        self._places = {oid: f"{label}:{path}" for path, oid in found.items()} | self._places
        return found

    def bases(self, path: str) -> list[Manifest]:
        """The manifests of the parents of the next commit: those at ``path`` first."""
        first: list[Manifest] = []
        others: list[Manifest] = []
        for parent in self.repo.parents_ahead():
            for at, oid in self.in_tree(parent).items():
                found = self.manifest_or_none(oid)
                if found is not None:
                    (first if at == path else others).append(found)
        return first + others

    # -- changing --------------------------------------------------------------------

    def index_edit(self, path: Path | None = None, *, patient: bool = True) -> IndexEdit:
        """A change of the index (or of the index file at ``path``)."""
        return IndexEdit(path or self.repo.index_path, self.scratch(), patient=patient)

    def scratch(self) -> Path:
        """A directory for temporaries, on the file system of the repository."""
        place = self.repo.private / "tmp"
        _notes.directory(place)
        return place

    def note(self, applying: dict[str, str | None] | None) -> None:
        """Note which tree is being brought into index and worktree, on which commit; or that it is done.

        A theta that finds the note of a dead one takes the tree out again (:func:`heal`).
        """
        journal = self.repo.shared / "journal"
        found = _notes.read_json(journal)
        _notes.write(journal, json.dumps({**found, "applying": applying}))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold theta's lock: one changing command at a time, and stale locks healed first."""
        if (self.repo.shared / "lock").is_dir():
            _notes.drop(self.repo.shared / "lock")
        lock = _fs.Lock(self.repo.shared / "lock")
        journal = self.repo.shared / "journal"
        try:
            heal(self.repo, journal)
            self.repo.token = uuid.uuid4().hex
            body = json.dumps({"token": self.repo.token, "started": time.time()})
            _notes.write(journal, body)
            yield
            _notes.drop(journal)
        except Exception:
            _notes.drop(journal)
            raise
        finally:
            self.repo.token = ""
            lock.release()


def _is_id(revision: str) -> bool:
    return len(revision) == 40 and all(letter in "0123456789abcdef" for letter in revision)


def heal(repo: Repository, journal: Path) -> None:
    """Clear what a killed theta left: git's lock files, index copies, temporaries.

    Runs under theta's lock, so the theta that wrote the journal is dead; a git that it had
    started may still run, and is waited for.
    """
    for place in (repo.private, repo.shared, repo.private / "tmp", repo.commondir / "objects" / "pack"):
        _remove_temporaries(place)
    for place in (repo.gitdir, repo.commondir / "hooks", repo.commondir / "info", repo.gitdir / "info"):
        _remove_temporaries(place)
    if repo.raw.workdir:
        _remove_temporaries(repo.worktree)
    try:
        note = _notes.read_json(journal)
        token, started = str(note["token"]), float(note["started"])
    except (ValueError, KeyError, TypeError):
        return
    _wait_for(token)
    for name in ("index.lock", "HEAD.lock", "ORIG_HEAD.lock"):
        _remove_stale(repo.gitdir / name, started)
    for stale in (repo.commondir / "refs").rglob("*.lock"):
        _remove_stale(stale, started)
    _take_out(repo, note.get("applying"))
    _notes.drop(journal)


def _take_out(repo: Repository, applying: object) -> None:
    """Undo a merge that is in the index while git does not know of it; a change made since stays."""
    if not isinstance(applying, dict) or (repo.gitdir / "MERGE_HEAD").exists():
        return
    head, tree = str(applying.get("head")), str(applying.get("tree"))
    git = repo.git()
    is_there = git.run("diff-index", "--cached", "--quiet", tree, "--", check=False).code == 0
    if is_there and repo.head() == head:
        repo.refresh_index()
        if git.run("read-tree", "-m", "-u", tree, head, check=False).code == 0:
            for name in ("MERGE_MSG", "MERGE_MODE", "SQUASH_MSG"):
                _fs.remove(repo.gitdir / name)


def _remove_temporaries(place: Path) -> None:
    """Remove the temporaries of dead processes: their names tell whose they were."""
    for path in place.glob(f"{_fs.TEMPORARY}*"):
        pid = path.name.removeprefix(_fs.TEMPORARY).partition("_")[0]
        if pid.isdigit() and not processes.exists(int(pid)) and path.is_file():
            _fs.remove(path)


def _wait_for(token: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while children := processes.children_of(token):
        if time.monotonic() > deadline:
            raise BusyError(f"git (process {children[0]}) of an earlier theta command is still running")
        time.sleep(0.05)


def _remove_stale(lock: Path, started: float) -> None:
    try:
        if os.stat(lock).st_mtime >= started - 2:
            _fs.remove(lock)
    except FileNotFoundError:
        return
