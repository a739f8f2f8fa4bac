"""``theta apply``: a folder outside of any worktree is brought to a version, decoding only what differs.

Everything is examined, fetched and planned before the first byte is written.  A file that is replaced is
whole at any time.  One that is written in place is not, until the end: the state of the folder tells so
from before the first write, and the next apply hashes what is there and writes what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs, _room
from theta.errors import (
    ChangedWhileReadError,
    NewerFormatError,
    NotFoundError,
    UsageError,
    WouldOverwriteError,
    concerning,
)
from theta.git.object_values import MODE_BLOB
from theta.lazy import Module
from theta.porcelain.replicas import replica_state
from theta.porcelain.replicas.replica_state import Known, ReplicaState, Writing
from theta.porcelain.replicas.standing_files import Folder, Standing, Stood, Wanted
from theta.porcelain.stage import run_steps
from theta.porcelain.workspace import name_twins
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.store.files.file_source import FileSource, Identity

if TYPE_CHECKING:
    from theta.store.format import skeleton as skeletons
    from theta.store.format.manifest import Manifest
    from theta.store.read import coming_file, revising
    from theta.store.read.revising import Reviser, Revision
else:
    coming_file = Module("theta.store.read.coming_file")
    revising = Module("theta.store.read.revising")
    skeletons = Module("theta.store.format.skeleton")

_MOST_OPEN: Final = 128
"""Coming files that are held open at once."""
_MOMENT: Final = 0.06
"""Seconds to wait for a trustworthy note of files."""


class Action(Enum):
    """The change of a file."""

    KEPT = "kept"
    """It was what it should be."""
    WRITTEN = "written"
    PATCHED = "patched"
    """It was written to in place."""
    REMOVED = "removed"
    LEFT = "left"
    """It is not in the version any more, and stays: somebody changed it."""


@dataclass(frozen=True)
class ApplyRequest:
    """A version that is to be in a folder.

    Attributes:
        revision: any name of a commit, or ``RUN`` or ``RUN@STEP``.
        folder: where its files are to be.
        paths: globs, files and folders: only these files; all when it is empty.
        in_place: write to the files that are there, instead of replacing them.
        force: replace files with content that is in no version.
    """

    revision: str
    folder: Path
    paths: Sequence[str] = ()
    in_place: bool = False
    force: bool = False


@dataclass(frozen=True)
class AppliedFile:
    """A file of the folder, what was done, and the tensors and bytes that were decoded for it."""

    path: str
    action: Action
    tensors: tuple[str, ...] = ()
    decoded: int = 0


@dataclass(frozen=True)
class ApplyResult:
    """A version that was applied.

    Attributes:
        commit: its id.
        files: what was done, by path.
        notes: what the user should know.
    """

    commit: str
    files: Mapping[str, AppliedFile]
    notes: tuple[str, ...] = ()

    @property
    def decoded(self) -> int:
        """The bytes that were decoded."""
        return sum(one.decoded for one in self.files.values())

    @property
    def changed(self) -> bool:
        """Whether a file was changed."""
        return any(one.action not in (Action.KEPT, Action.LEFT) for one in self.files.values())


def apply(session: Session, request: ApplyRequest, progress: Progress | None = None) -> ApplyResult:
    """Bring the folder of ``request`` to its version.

    Raises:
        NotFoundError: there is no such revision, run or step, or none of the paths is in it.
        UsageError: the folder is in the worktree.
        WouldOverwriteError: a file has content that is in no version; nothing was written.
        NoSpaceError: there is no room; nothing was written.
        BusyError: another apply works on the folder.
    """
    commit = run_steps.named(session, request.revision)
    folder = _outside(session, request.folder)
    wanted = files_of(session, commit, request.paths)
    with replica_state.locked(folder):
        state = replica_state.read(folder)
        return _Applying(session, request, folder, state, commit).run(wanted, progress)


def _outside(session: Session, folder: Path) -> Path:
    """Return the real path of the folder; refuses one that git's files or a worktree are in."""
    place = Path(os.path.realpath(session.cwd / folder))
    repo = session.repo
    ours = [repo.gitdir, repo.commondir, *([] if repo.is_bare else [repo.worktree])]
    if replica_state.PRIVATE not in repo.commondir.parts and any(
        place.is_relative_to(os.path.realpath(one)) for one in ours
    ):
        raise UsageError(
            f"{folder} is in the repository", hint="theta restore --source REV brings files back there"
        )
    if place.exists() and not place.is_dir():
        raise UsageError(f"{folder} is not a folder")
    return place


def files_of(session: Session, commit: str, paths: Iterable[str]) -> list[Wanted]:
    """Return the files of ``commit`` that ``paths`` name, without those of git itself and links."""
    repo, chosen = session.repo, [path.rstrip("/") for path in paths]
    entries = [
        (path, entry)
        for path, entry in repo.walk_blobs(repo.tree_of(commit))
        if not path.rpartition("/")[2].startswith(".git") and (not chosen or _matches(path, chosen))
    ]
    missing = [one for one in chosen if not any(_matches(path, [one]) for path, _ in entries)]
    if missing:
        raise NotFoundError(f"{commit[:12]} has no file {missing[0]}")
    repo.promised.expect(entry.id for _, entry in entries)
    return [Wanted(path, entry.id, entry.mode, _manifest(session, path, entry.id)) for path, entry in entries]


def _matches(path: str, chosen: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one + "/") or fnmatchcase(path, one) for one in chosen)


def _manifest(session: Session, path: str, oid: str) -> Manifest | None:
    try:
        found = session.manifest_or_none(oid)
    except NewerFormatError as error:
        error.concern(path)
        raise
    malformed = session.malformed(oid) if found is None else None
    if malformed is not None:
        malformed.concern(path)
        raise malformed
    return found


@dataclass
class _Job:
    """A file that is to be changed."""

    wanted: Wanted
    place: Path
    stood: Stood
    in_place: bool = False
    applied: AppliedFile | None = None
    left: Identity | None = None

    @property
    def mode(self) -> int:
        return 0o777 if self.wanted.mode & 0o100 else 0o666


@dataclass(frozen=True)
class _Leaving:
    """A file that theta wrote and that is to go, and its stat data when it was looked at."""

    place: Path
    identity: Identity | None


@dataclass
class _Applying:
    """One apply, under the lock of the folder."""

    session: Session
    request: ApplyRequest
    folder: Path
    state: ReplicaState
    commit: str
    notes: list[str] = field(default_factory=list)
    replaced: set[tuple[int, int]] = field(default_factory=set)
    """The inode and device of each file that lost a name; another name of it gets another ctime."""

    def run(self, wanted: Sequence[Wanted], progress: Progress | None) -> ApplyResult:
        paths = (one.path for one in wanted)
        name_twins.require_none(paths, self.folder, replica_state.private(self.folder))
        gone = self._gone({one.path for one in wanted})
        going = {leaving.place for leaving in gone.values() if leaving is not None}
        jobs = [self._job(one, going) for one in wanted]
        self._refuse(jobs)
        due = [job for job in jobs if job.stood.standing is not Standing.SAME]
        for job in due:
            job.in_place = self._may_be_patched(job)
        self._obtain(due)
        if due or any(gone.values()) or not self.state.is_whole:
            self._write(due, gone, progress)
        self._finish(jobs)
        kept = {job.wanted.path: AppliedFile(job.wanted.path, Action.KEPT) for job in jobs}
        done = {job.wanted.path: job.applied for job in due if job.applied is not None}
        ends = {
            path: AppliedFile(path, Action.REMOVED if leaving else Action.LEFT)
            for path, leaving in gone.items()
        }
        return ApplyResult(self.commit, dict(sorted({**kept, **done, **ends}.items())), tuple(self.notes))

    # -- before anything is written ------------------------------------------------------------

    def _job(self, wanted: Wanted, going: set[Path]) -> _Job:
        place = replica_state.inside(self.folder, wanted.path)
        if place is None:
            raise WouldOverwriteError(
                f"{wanted.path} would be written outside of {self.folder}, or to a place of git or theta"
            )
        for parent in _between(place.parent, self.folder):
            if os.path.lexists(parent) and not os.path.isdir(parent) and parent not in going:
                raise WouldOverwriteError(
                    f"{wanted.path} needs a folder where {parent} is a file", hint="move it away"
                )
        if _only_holds(place, going):
            return _Job(wanted, place, Stood(Standing.ABSENT))
        folder = Folder(self.session, self.state, self.commit)
        with concerning(wanted.path):
            return _Job(wanted, place, folder.look(wanted, place))

    def _refuse(self, jobs: Iterable[_Job]) -> None:
        foreign = [job.wanted.path for job in jobs if job.stood.standing is Standing.FOREIGN]
        if foreign and not self.request.force:
            more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
            raise WouldOverwriteError(
                f"{foreign[0]}{more} in {self.folder} is in no version known here; nothing was changed",
                hint="--force replaces it",
            )
        self.notes += [f"{path} had content of its own, which is replaced" for path in foreign]
        cut = [job.wanted.path for job in jobs if job.stood.cut_short]
        self.notes += [f"{path}: an apply was cut short here; it is completed" for path in cut]

    def _gone(self, wanted: set[str]) -> dict[str, _Leaving | None]:
        """Return by path the files that were applied and are not wanted any more.

        One that stays, since somebody changed it, is None.
        """
        found: dict[str, _Leaving | None] = {}
        for path in {*self.state.files, *self.state.writing} - wanted:
            place = replica_state.inside(self.folder, path)
            now = _identity(place) if self._chosen(path) and place is not None else None
            if place is not None and now is not None and not _is_folder(place):
                found[path] = _Leaving(place, now) if self._is_ours(path, place) else None
        stay = "is not in this version and was changed since; it stays"
        self.notes += [f"{path} {stay}" for path in sorted(found) if found[path] is None]
        return found

    def _chosen(self, path: str) -> bool:
        return not self.request.paths or _matches(path, self.request.paths)

    def _is_ours(self, path: str, place: Path) -> bool:
        """Return whether the file at ``place`` is as theta left it, or half written by theta."""
        info = os.lstat(place)
        known, writing = self.state.files.get(path), self.state.writing.get(path)
        if known and known.is_of(info):
            return True
        if writing and writing.is_of(info):
            return self._looked(path, place, writing.blob, self.state) is not Standing.FOREIGN
        blobs = [one.blob for one in (known, writing) if one is not None]
        return any(self._looked(path, place, blob, ReplicaState()) is Standing.SAME for blob in blobs)

    def _looked(self, path: str, place: Path, blob: str, state: ReplicaState) -> Standing:
        """Compare the file at ``place``, which is not wanted any more, with that of ``blob``."""
        session = self.session
        if not session.objects.has(blob) or not place.is_file():
            return Standing.FOREIGN
        old = Wanted(path, blob, MODE_BLOB, session.manifest_or_none(blob))
        return Folder(session, state, self.commit).look(old, place).standing

    def _may_be_patched(self, job: _Job) -> bool:
        """Return whether the file that is there has the bytes of all tensors at their new places."""
        manifest, stood = job.wanted.manifest, job.stood
        if not self.request.in_place or manifest is None or not stood.had:
            return False
        plan, info = skeletons.read(self.session.objects, manifest.skeleton), os.lstat(job.place)
        if info.st_nlink > 1:  # the file has another name, whose content is to stay
            return False
        places = {offset for _, offset, length in plan.extents() if length}
        return info.st_size == plan.size and places == {one.offset for one in stood.had}

    def _obtain(self, due: Iterable[_Job]) -> None:
        """Fetch what a partial clone lacks of all that will be decoded, before anything is written."""
        trees: dict[str, int] = {}
        for job in due:
            if job.wanted.manifest is not None:
                trees |= {job.wanted.manifest.skeleton: 0}
                trees |= self._reviser(job, None).trees()
        self.session.objects.obtain(trees)

    def _reviser(self, job: _Job, source: FileSource | _fs.PatchedFile | None) -> Reviser:
        manifest = job.wanted.manifest
        assert manifest is not None
        return revising.Reviser(self.session.objects, manifest, job.stood.had, source, in_place=job.in_place)

    # -- writing ---------------------------------------------------------------------------------

    def _write(
        self, due: Sequence[_Job], gone: Mapping[str, _Leaving | None], progress: Progress | None
    ) -> None:
        places = {job.place for job in due}
        above = {parent for place in places for parent in place.parents}
        leaving = [one for one in gone.values() if one is not None]
        in_the_way = [one for one in leaving if one.place in above or places.intersection(one.place.parents)]
        files = [job for job in due if job.wanted.manifest is not None]
        coming = [job for job in files if not job.in_place]
        _room.require(self.folder, sum(self._reviser(job, None).plan.size for job in coming))
        groups = [coming[start : start + _MOST_OPEN] for start in range(0, len(coming), _MOST_OPEN)]
        for group in groups[:1] or [[]]:
            with ExitStack() as renamed:
                self._build(group, renamed, progress)
                self._mark(due)
                for one in in_the_way:
                    self._remove(one)
                for job in files:
                    if job.in_place:
                        self._patch(job, progress)
        for group in groups[1:]:
            with ExitStack() as renamed:
                self._build(group, renamed, progress)
        for job in due:
            if job.wanted.manifest is None:
                with self._coming(job) as file:
                    file.write(self.session.repo.read_blob(job.wanted.blob))
                job.applied = AppliedFile(job.wanted.path, Action.WRITTEN)
        for one in leaving:
            if one not in in_the_way:
                self._remove(one)

    def _remove(self, leaving: _Leaving) -> None:
        self._require(leaving.place, leaving.identity)
        _fs.remove(leaving.place)
        _remove_empty(leaving.place.parent, self.folder)

    def _require(self, place: Path, identity: Identity | None) -> None:
        """Raise :class:`ChangedWhileReadError` unless what loses its name now is as it was."""
        now = _identity(place)
        if now is not None and identity is not None:
            if (now.inode, now.device) in self.replaced:
                now = replace(now, ctime_ns=identity.ctime_ns)
            self.replaced.add((now.inode, now.device))
        if now != identity:
            raise ChangedWhileReadError(f"{place} changed meanwhile", hint="repeat when nothing writes to it")

    def _clear(self, job: _Job) -> None:
        self._require(job.place, job.stood.identity)
        _fs.safe_target(self.folder, job.wanted.path)

    @contextmanager
    def _coming(self, job: _Job) -> Iterator[_fs.AtomicFile]:
        """Yield the new file, which is in theta's directory until it is whole."""
        scratch = replica_state.private(self.folder)
        with _fs.AtomicFile(job.place, temp_dir=scratch, mode=job.mode) as file:
            file.ready = lambda: self._clear(job)
            yield file
        assert file.left is not None
        job.left = Identity.of(file.left)

    def _mark(self, due: Iterable[_Job]) -> None:
        """Note, durably, what is going to be written."""
        marks = {}
        for job in due:
            path, blob = job.wanted.path, job.wanted.blob
            before = self.state.writing.get(path, Writing(blob))
            marks[path] = before.next(blob, os.lstat(job.place)) if job.in_place else Writing(blob)
        replica_state.write(self.folder, ReplicaState("", self.state.files, {**self.state.writing, **marks}))

    def _build(self, jobs: Iterable[_Job], renamed: ExitStack, progress: Progress | None) -> None:
        """Write new files as temporaries, which get their names when ``renamed`` is closed."""
        for job in jobs:
            with concerning(job.wanted.path):
                file = renamed.enter_context(self._coming(job))
                self._fill(job, file, progress)
                file.begin_sync()

    def _fill(self, job: _Job, file: _fs.AtomicFile, progress: Progress | None) -> None:
        manifest = job.wanted.manifest
        assert manifest is not None
        with ExitStack() as stack:
            source = stack.enter_context(FileSource(job.place)) if job.stood.had else None
            _check(job, source.identity if source is not None else None)
            reviser = self._reviser(job, source)
            coming = coming_file.ComingFile(file, manifest.skeleton, reviser.plan)
            revision = reviser.revision()
            begin(progress, "applying", revision.nbytes, job.wanted.path)
            for span in revision.spans:
                assert source is not None
                source.copy_to(file, span.start, span.offset, span.length)
            revising.write(coming, revision, progress)
            revising.write_fields(coming, reviser.plan)
            if source is not None and source.was_written():
                raise ChangedWhileReadError(
                    "it changed while it was read", hint="repeat when nothing writes to it"
                )
        job.applied = _applied(job, Action.WRITTEN, revision)

    def _patch(self, job: _Job, progress: Progress | None) -> None:
        """Write to the file in place."""
        with concerning(job.wanted.path), _fs.PatchedFile(job.place) as file:
            _check(job, Identity.of(file.stat))
            reviser = self._reviser(job, file)
            revision, plan = reviser.revision(), reviser.plan
            begin(progress, "applying", revision.nbytes, job.wanted.path)
            same = reviser.manifest.skeleton == job.stood.skeleton
            for offset, data in () if same else plan.literals():
                file.patch(offset, data)
            revising.write(file, revision, progress)
            written = [(piece.offset, piece.nbytes) for piece in revision.pieces]
            revising.write_fields(file, plan, written if same else None)
            job.left = Identity.of(file.sync())
        job.applied = _applied(job, Action.PATCHED, revision)

    def _finish(self, jobs: Sequence[_Job]) -> None:
        """Note what the folder holds now."""
        _wait(job.left for job in jobs if job.left is not None)
        wanted = {job.wanted.path for job in jobs}
        files = {
            path: known
            for path, known in self.state.files.items()
            if path in wanted or not self._chosen(path)
        }
        for job in jobs:
            # A file that is another one by now is not what was looked at or written.
            known, left = files.get(job.wanted.path), job.left or job.stood.identity
            assert left is not None
            if known is None or known.blob != job.wanted.blob or known.identity != left:
                files[job.wanted.path] = Known(job.wanted.blob, left, time.time_ns())
        marks = {path: mark for path, mark in self.state.writing.items() if not self._chosen(path)}
        state = ReplicaState("" if marks else self.commit, files, marks)
        if state != self.state:
            replica_state.write(self.folder, state)


def _check(job: _Job, identity: Identity | None) -> None:
    """Raise :class:`ChangedWhileReadError` unless a file that was opened is the one that was looked at."""
    if identity is not None and identity != job.stood.identity:
        raise ChangedWhileReadError("it changed meanwhile", hint="repeat when nothing writes to it")


def _applied(job: _Job, action: Action, revision: Revision) -> AppliedFile:
    return AppliedFile(job.wanted.path, action, revision.names, revision.nbytes)


def _wait(written: Iterable[Identity]) -> None:
    """Wait until the stat data of files tell of every write that comes after them."""
    certain = max((identity.certain_from for identity in written), default=0)
    time.sleep(min(max(certain - time.time_ns(), 0) / 1e9, _MOMENT))


def _identity(place: Path) -> Identity | None:
    """Return the stat data of what is at ``place``, which may be a link; None when nothing is."""
    try:
        return Identity.of(os.lstat(place))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _fs.as_theta_error(error, place) from error


def _is_folder(place: Path) -> bool:
    return os.path.isdir(place) and not os.path.islink(place)


def _only_holds(place: Path, going: set[Path]) -> bool:
    """Return whether ``place`` is a folder that is empty once the files ``going`` are removed."""
    if not _is_folder(place):
        return False
    with _fs.translated(place):
        held = [*place.iterdir()]
    return bool(held) and all(one in going or _only_holds(one, going) for one in held)


def _remove_empty(place: Path, root: Path) -> None:
    """Remove the folders from ``place`` up to ``root`` that hold nothing any more."""
    for one in _between(place, root):
        _fs.remove_empty_dir(one)


def _between(place: Path, root: Path) -> Iterator[Path]:
    while place != root and root in place.parents:
        yield place
        place = place.parent
