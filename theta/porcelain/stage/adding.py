"""``theta add``, and what a commit stages: select the checkpoints among files, and stage them."""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import NotFoundError, ThetaError, UsageError
from theta.formats import opaque
from theta.git import lfs
from theta.git.attributes import filter_of
from theta.git.repository import STORES
from theta.git.run import Git
from theta.lazy import Module
from theta.porcelain.merge import recording
from theta.porcelain.setup import claims
from theta.porcelain.stage import staging
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace import closures, coverage, worktree
from theta.porcelain.workspace.checkpoints import is_manifest
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.files.file_source import FileSource, Identity
from theta.store.format.manifest import Manifest

if TYPE_CHECKING:
    from theta.porcelain.tensors import scanning
    from theta.store.files import ahead, file_scan, known_chunks
else:
    ahead = Module("theta.store.files.ahead")
    file_scan = Module("theta.store.files.file_scan")
    known_chunks = Module("theta.store.files.known_chunks")
    scanning = Module("theta.porcelain.tensors.scanning")


_WORTH: Final = 64 << 20
"""Bytes of a file from which on it takes longer to hash than to start a thread."""


@dataclass(frozen=True)
class Selection:
    """The checkpoints that pathspecs name.

    Attributes:
        present: paths of existing files.
        gone: paths of deleted files.
        newcomers: new files that a tracked pattern matches, named by no pathspec.
    """

    present: tuple[str, ...]
    gone: tuple[str, ...]
    newcomers: frozenset[str] = frozenset()

    def including(self, paths: Iterable[str]) -> Selection:
        """Return the selection with the new files at ``paths`` added."""
        new = frozenset(paths)
        return Selection(tuple(sorted({*self.present, *new})), self.gone, new)


def select(session: Session, git: Git, pathspecs: list[str], *, update: bool, force: bool) -> Selection:
    """Select the checkpoints that ``pathspecs`` (relative to ``git``'s directory) match, or all.

    ``update`` skips untracked files; ``force`` includes ignored ones.
    """
    listed = _listed(session, git, pathspecs, update=update, force=force)
    filters = filter_of(session.repo, (path for path in listed if not _is_inside(path)))
    _refuse_other_filters(session, filters)
    tracked = sorted(path for path, value in filters.items() if value == "theta")
    places = {path: session.repo.worktree / path for path in tracked}
    files = [path for path, place in places.items() if place.exists() and not place.is_symlink()]
    present = tuple(path for path in files if not _is_kept_pointer(session, path))
    return Selection(present, tuple(path for path, place in places.items() if not os.path.lexists(place)))


def _listed(session: Session, git: Git, pathspecs: list[str], *, update: bool, force: bool) -> list[str]:
    """Return the paths that ``pathspecs`` match."""
    if update and not pathspecs:
        return [entry.path for entry in session.repo.entries()]
    kinds = ["-c"] if update else ["-c", "-o"] if force else ["-c", "-o", "--exclude-standard"]
    return git.lines("ls-files", "-z", "--full-name", *kinds, "--", *(pathspecs or [":(top)"]))


def _is_kept_pointer(session: Session, path: str) -> bool:
    """Return whether the file is a Git LFS pointer that is already committed."""
    data = lfs.pointer_at(session.repo.worktree / path)
    return data is not None and session.index.oid(path) == session.repo.format.blob_id(data)


def _is_inside(path: str) -> bool:
    return path.startswith(STORES + "/")


def _refuse_other_filters(session: Session, filters: dict[str, str]) -> None:
    """Raise :class:`UsageError` if a later attributes line gives a checkpoint another filter, such as LFS."""
    others = {
        path for path, value in filters.items() if value not in ("theta", "unspecified", "unset", "set")
    }
    if not others:
        return
    for entry in session.repo.read_index():
        if entry.path in others and is_manifest(session.repo, entry.oid):
            claim = claims.held(session.repo, session.scratch(), [entry.path])[entry.path]
            mend = coverage.override(session, [entry.path])
            raise UsageError(
                f"{entry.path} is a checkpoint, and has {claim}",
                hint=f"to keep it one: {mend}; or remove that line, or run 'theta untrack' first",
            )


def add(
    session: Session, selection: Selection, progress: Progress | None = None, *, damaged: bool = False
) -> list[Added]:
    """Stage the selected checkpoints, and the deletion of those that are gone.

    ``damaged`` is that of :func:`theta.porcelain.stage.staging.add_files`.
    """
    if session.ahead:  # a thread hashes meanwhile
        importlib.import_module(scanning.__name__)
    staged = staging.add_files(session, selection.present, progress, damaged=damaged)
    added = [_warned(session, item) for item in staged]
    added = [replace(item, newcomer=item.path in selection.newcomers) for item in added]
    if selection.gone:
        with closures.following(session) as change:
            for path in selection.gone:
                change.index.remove(path)
                change.index.drop_conflict(path)
    return added


def _warned(session: Session, item: Added) -> Added:
    """Return ``item`` with a warning if loading the file would call dangerous code."""
    if not item.stored:
        return item
    dangers = "".join(scanning.warnings(session.repo.worktree, [item.path]))
    return replace(item, warning="; ".join(filter(None, (item.warning, dangers))))


def _refuse_special(place: Path, spec: str) -> None:
    mode = os.lstat(place).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{spec} is neither a file nor a folder; git keeps no pipes, sockets and devices")


def check_pathspecs(git: Git, pathspecs: list[str]) -> None:
    """Raise :class:`NotFoundError` for a pathspec that matches nothing, as git does."""
    for spec in pathspecs:
        if os.path.lexists(git.cwd / spec):
            _refuse_special(git.cwd / spec, spec)
            continue
        if not git.lines("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", spec):
            raise NotFoundError(f"pathspec '{spec}' did not match any files")


def prepare_commit(
    session: Session, paths: list[str], *, everything: bool, progress: Progress | None = None
) -> list[Added]:
    """Stage the checkpoints at ``paths`` or all changed ones, and update ``.theta/`` in the index.

    ``everything`` also stages new files that a tracked pattern matches: ``git commit -a`` would skip
    them, and the next training run would overwrite the only copy.
    """
    worktree.refresh(session, progress)
    added: list[Added] = []
    if everything or paths:
        git = session.repo.git().in_directory(session.cwd)
        with reading_ahead(session, paths):
            selection = select(session, git, paths, update=True, force=False)
            if everything:
                selection = selection.including(coverage.newcomers(session, git, [":(top)"]))
            added = add(session, selection, progress)
    raw = staging.new_raw(session, closures.sync(session, to_commit=True))
    staging.refuse_pointers(session, raw)
    recording.tell(session)
    worktree.outlast(session)
    return added


@contextlib.contextmanager
def reading_ahead(session: Session, pathspecs: Sequence[str]) -> Iterator[None]:
    """Begin to hash the first changed file that ``pathspecs`` name, or of all that are staged when empty.

    The bytes are read by :func:`staging.take` in the block, or not at all.
    """
    with contextlib.ExitStack() as open_until:
        session.known = known_chunks.KnownChunks(session.repo.private / "known-chunks.json")
        with contextlib.suppress(ThetaError):
            if (begun := _begun(session, pathspecs)) is not None:
                session.ahead[begun[0]] = open_until.enter_context(begun[1])
        try:
            yield
        finally:
            known, session.known = session.known, None
            session.ahead.clear()
        known.save()


def _begun(session: Session, pathspecs: Sequence[str]) -> tuple[str, ahead.Ahead] | None:
    if session.objects.repo.promised.is_partial:
        return None
    for path in _candidates(session, pathspecs):
        manifest = session.index.manifest(path)
        if manifest is not None and manifest.format != opaque.NAME and _is_changed(session, path):
            return path, _opened(session, path, manifest)
    return None


def _candidates(session: Session, pathspecs: Sequence[str]) -> Iterable[str]:
    named = [os.path.relpath(session.cwd / word, session.repo.worktree) for word in pathspecs]
    return [path for path in session.index if path in named or not pathspecs or "." in named]


def _is_changed(session: Session, path: str) -> bool:
    """Return whether the file is large, and not surely the one that is known."""
    try:
        info = os.lstat(session.repo.worktree / path)
    except OSError:
        return False
    return info.st_size >= _WORTH and session.cache.manifest_of(path, Identity.of(info)) is None


def _opened(session: Session, path: str, manifest: Manifest) -> ahead.Ahead:
    with contextlib.ExitStack() as until:
        source = until.enter_context(FileSource(session.repo.worktree / path, path))
        parts = file_scan.take_apart(source, manifest, worktree.skeleton_of(session, manifest))
        begun = ahead.Ahead(source, parts, manifest, staging.digested(session, manifest))
        until.pop_all()
    return begun
