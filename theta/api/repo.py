"""A repository as a Python program has it: what the command line does, as functions that return data."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, Final, Literal

from theta.api import array_views, changing, host_copies, places
from theta.api.background import Background, Saving
from theta.api.checkpoint import Checkpoint, require_glob
from theta.api.closing import Closing
from theta.api.destinations import Framework
from theta.api.host_copies import PlannedCopy, Shrinking
from theta.api.lazy_tensor import Access
from theta.errors import NotFoundError, UsageError, concerning
from theta.formats.torch import torch_zip
from theta.git import object_values
from theta.git import repository as git_repository
from theta.git.run import GitFailedError
from theta.pages import cells
from theta.porcelain.commands import additions, commits, merging, restoration
from theta.porcelain.commands.additions import AddRequest, AddResult
from theta.porcelain.commands.commits import CommitRequest, CommitResult
from theta.porcelain.commands.merge_request import MergeRequest, MergeResult, TensorOptions
from theta.porcelain.commands.restoration import RestoreRequest, RestoreResult
from theta.porcelain.look import diffing, history, overview
from theta.porcelain.look.diffing import Compared, Numbers, Sides
from theta.porcelain.look.overview import Report
from theta.porcelain.look.version_changes import Summary
from theta.porcelain.replicas import applying, memory_copies
from theta.porcelain.replicas.applying import ApplyRequest, ApplyResult
from theta.porcelain.search import space
from theta.porcelain.search.trials import SearchRequest, SearchResult
from theta.porcelain.stage import run_steps, saving
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.stage.saving import SaveRequest, SaveResult
from theta.porcelain.tensors import sources
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.session import Session
from theta.store.changes import Change
from theta.store.format import listings
from theta.store.odb.objects import Objects
from theta.units import human, shape_text

INDEX: Final = ""
_PATIENCE: Final = 600.0
"""Seconds that a save waits for another theta; nobody waits for the save."""


def open_repository(path_or_url: str | os.PathLike[str]) -> Repository:
    """Open the repository around a path, or a temporary clone of a URL (:func:`theta.open`)."""
    with contextlib.ExitStack() as stack:
        if isinstance(path_or_url, str) and places.is_url(path_or_url):
            place = places.clone(path_or_url, stack)
        else:
            place = Session.here(Path(path_or_url).absolute()).repo.top
        kept = stack.pop_all()
    return Repository(place, kept)


class Repository(Closing):  # the name that programs import; git.repository.Repository is below it
    """One Git repository, with its checkpoints; made by :func:`theta.open`.

    ``repo[name]`` opens a checkpoint (:meth:`__getitem__`).  All paths are counted from the root of the
    worktree, wherever the process stands, and files that other programs change are seen: nothing but
    open checkpoints is kept between two calls.

    Threads may share a repository, its checkpoints and their tensors: calls take turns, and one call
    decodes on all cores.  Errors are those of :mod:`theta.errors`; nothing is ever printed.
    """

    def __init__(self, place: Path, stack: contextlib.ExitStack) -> None:
        self._place = place
        self._lock = RLock()
        self._saves = Background()
        self._movable: set[str] = set()
        """The refs that were looked at before the first save to each."""
        self._commits = CommitWriter()
        self._objects: Objects | None = None
        self._opened: weakref.WeakSet[Access] = weakref.WeakSet()
        self._finish = weakref.finalize(self, stack.close)
        _ALL.add(self)

    def _repr_html_(self) -> str:
        with self._session_of_call() as session:
            found, branch = session.head.manifests, session.repo.branch
        rows = ((path, one.format, len(one.lines), human(one.nbytes)) for path, one in found.items())
        return cells.table(
            f"{self._place.name} ({branch})", ("checkpoint", "format", "tensors", "bytes"), rows
        )

    @property
    def path(self) -> Path:
        """The root of the worktree, or the Git directory of a bare repository."""
        return self._place

    def __getitem__(self, name: str) -> Checkpoint:
        """Open the checkpoint that ``name`` names; its tensors are not read yet.

        ``"main~2:model.safetensors"`` is the file of a revision, by any name that Git has for one, or the
        name of a run (its last step), or ``RUN@STEP``;
        ``":model.safetensors"`` is that of the index; ``"model.safetensors"`` is the file in the worktree,
        or what it stands for where it is still a manifest.  A path may be the index of a sharded model
        (``model.safetensors.index.json``), or the name that the model would have in one file.

        Raises:
            theta.errors.NotFoundError: there is no such revision, file or checkpoint.
            theta.errors.FormatError: no reader finds tensors in the file, or it was stored as plain bytes.
            theta.errors.NoWorktreeError: a file of the worktree in a bare repository.
        """
        return self._checkpoint(name, lambda session, stack: self._model(session, name, stack))

    def _checkpoint(
        self, label: str, model_of: Callable[[Session, contextlib.ExitStack], Model]
    ) -> Checkpoint:
        with self._lock, contextlib.ExitStack() as stack:
            model = model_of(self._session(), stack)
            access = Access(label, self, self._lock, model.verify, stack.pop_all())
            self._opened.add(access)
        return Checkpoint(label, model, access)

    def _model(self, session: Session, name: str, stack: contextlib.ExitStack) -> Model:
        place = object_values.tree_path(name)
        if place is not None and place.path and not self._is_file(session, name):
            with concerning(name):
                revision = run_steps.revision(session, place.revision)
                return sources.of_revision(session, revision, os.path.normpath(place.path), "")
        file = session.repo.worktree / name
        with concerning(name):
            text = worktree.peek(file)
            if text is None:
                return sources.of_file(file, stack)
            return sources.of_manifest(session, listings.read(session.objects, text), file.name)

    def _is_file(self, session: Session, name: str) -> bool:
        return not session.repo.is_bare and os.path.lexists(session.repo.worktree / name)

    def load(
        self,
        revision: str,
        path: str,
        names: str | None = None,
        *,
        out: Mapping[str, Any] | None = None,
        framework: Framework = "numpy",
    ) -> Any:
        """Read a checkpoint of a revision as it was saved.

        The object in a torch file, nested as it is (:meth:`theta.Checkpoint.object`); of any other file, or
        where ``names`` or ``out`` is given, name -> array (:meth:`theta.Checkpoint.load`).

        Args:
            revision: a revision, a run or ``RUN@STEP``; ``""`` is the index.
            path: the path of the checkpoint.
            names: a glob; only tensors whose names match are decoded and, in a partial clone, fetched.
            out: arrays to read into, which is returned.
            framework: the kind of new arrays: ``"numpy"`` or ``"torch"``.

        Raises:
            theta.errors.NotFoundError: there is no such revision or checkpoint.
            theta.errors.NoSuchTensorError: an array of ``out`` is not there, or no tensor matches.
            theta.errors.FormatError: a dtype or a shape of ``out`` differs, or the object is not plain data.
        """
        label = f"{revision}:{path}"
        if names is not None:
            require_glob(names)
        wanted = names if names is not None else "*" if out is None else ""

        def model_of(session: Session, _stack: contextlib.ExitStack) -> Model:
            with concerning(label):
                return sources.of_revision(session, run_steps.revision(session, revision), path, wanted)

        with self._checkpoint(label, model_of) as checkpoint:
            if names is None and out is None and checkpoint.formats == {torch_zip.NAME}:
                return checkpoint.object(framework=framework)
            return checkpoint.load("*" if names is None else names, out=out, framework=framework)

    def checkpoints(self, revision: str = "HEAD") -> list[str]:
        """Return the paths of the checkpoints in ``revision`` or a run, sorted; ``""`` is the index.

        Raises:
            theta.errors.NotFoundError: there is no such revision.
        """
        with self._session_of_call() as session:
            return sorted(diffing.on_side(session, run_steps.revision(session, revision)))

    def status(self, *paths: str) -> Report:
        """Return what ``theta status`` shows: Git's rows, and tensors staged, unstaged and in conflict.

        Args:
            paths: Git's pathspecs; everything if empty.

        Raises:
            theta.errors.NoWorktreeError: the repository is bare.
        """
        with self._session_of_call() as session:
            _ = session.repo.worktree
            session.journal.heal()
            return overview.report(session, list(paths))

    def diff(
        self,
        old: str | None = None,
        new: str | None = None,
        *,
        cached: bool = False,
        paths: Iterable[str] = (),
    ) -> list[Compared]:
        """Return each checkpoint that differs between two versions, by path, with its tensors.

        Without revisions the index is compared with the worktree, as in Git; with ``old`` that revision
        with the worktree, with both those two.

        Args:
            old: a revision.
            new: a revision.
            cached: compare ``old`` (HEAD) with the index instead.
            paths: files and folders to look at; everything if empty.

        Raises:
            theta.errors.NotFoundError: there is no such revision.
            theta.errors.NoWorktreeError: the worktree of a bare repository is asked for.
        """
        if new is not None and (old is None or cached):
            raise UsageError("a new version needs an old one, and does not go with cached")
        with self._session_of_call() as session:
            before = INDEX if old is None and not cached else session.repo.resolve(old or "HEAD")
            after = INDEX if cached else None if new is None else session.repo.resolve(new)
            found = _at(diffing.compare(session, Sides(before, after), None), paths)
        return cells.ShownList(found, _as_cell)

    def numbers(self, item: Compared, change: Change) -> Numbers | None:
        """Read both values of ``change``, one of ``item.changes.tensors``; return how far they are apart.

        None unless both sides have a value of the same dtype, with elements.
        """
        with self._session_of_call() as session:
            return diffing.numbers(session, item, change)

    def log(
        self,
        revision: str = "HEAD",
        *,
        paths: Iterable[str] = (),
        tensor: str | None = None,
        limit: int | None = None,
    ) -> list[Summary]:
        """Return the commits that ``revision`` reaches, newest first, with what each changed by tensor.

        Args:
            revision: a revision, or a range such as ``main..rte``.
            paths: only commits that changed these files or folders.
            tensor: only commits that changed a tensor whose name matches this glob.
            limit: of the commits that ``paths`` leaves, look at this many.

        Raises:
            theta.errors.NotFoundError: there is no such revision.
        """
        with self._session_of_call() as session:
            if session.repo.head() is None and revision == "HEAD":
                return []
            paths = list(paths)
            try:
                commits = history.reached(session.repo.git(), revision, paths, limit)
            except GitFailedError as error:
                raise NotFoundError(str(error)) from error
            return list(history.changed(session, commits, tensor, paths))

    # -- changing ------------------------------------------------------------------

    def add(self, *paths: str, executor: Executor | None = None) -> AddResult:
        """Stage files as ``theta add`` does: checkpoints by tensor, other files by git.

        Args:
            paths: Git's pathspecs; everything in the worktree if empty.
            executor: stores the tensors of large files, in workers that see this repository by the same path.

        Raises:
            theta.errors.NotFoundError: a path matches no file.
            theta.errors.ChangedWhileReadError: a file was written to meanwhile; nothing was staged.
        """
        with self._session_of_change() as session:
            request = replace(AddRequest.of(paths, everything=not paths), executor=executor)
            result = additions.add(session, request)
            changing.check(result.code, result.said)
            return result

    def commit(
        self,
        message: str,
        paths: Iterable[str] = (),
        *,
        everything: bool = False,
        amend: bool = False,
        allow_empty: bool = False,
    ) -> CommitResult:
        """Commit what is staged, as ``theta commit`` does; ``result.summary`` is the new commit.

        Args:
            message: the message.
            paths: commit these files as they are in the worktree instead.
            everything: stage all that changed first, and new files of tracked patterns.
            amend: replace the last commit.
            allow_empty: make a commit that changes nothing.

        Raises:
            theta.errors.RefusedError: git made no commit: there is nothing to commit, or a hook said no.
            theta.errors.IdentityError: git does not know who commits.
            theta.errors.NoSpaceError: the disk is full.
        """
        flags = {"everything": everything, "amend": amend, "allow_empty": allow_empty}
        with self._session_of_change() as session:
            result = commits.commit(session, CommitRequest.saying(message, tuple(paths), **flags))
            changing.check(result.code, result.said, full=result.full)
            return result

    def restore(
        self,
        *paths: str,
        source: str | None = None,
        staged: bool = False,
        worktree: bool = True,
        side: Literal["", "ours", "theirs"] = "",
    ) -> RestoreResult:
        """Bring files back as ``theta restore`` does; changes in them that were not committed are lost.

        Args:
            paths: Git's pathspecs: ``"."`` for all.
            source: the revision to take them from; by default the index, or HEAD for ``staged``.
            staged: restore the index.
            worktree: restore the files.
            side: of a conflict, the version to take.

        Raises:
            theta.errors.NotFoundError: there is no such revision.
            theta.errors.RefusedError: a path matches nothing.
        """
        request = RestoreRequest.of(paths, source, staged=staged, worktree=worktree, side=side)
        with self._session_of_change() as session:
            result = restoration.restore(session, request)
            changing.check(result.code, result.said)
            return result

    def merge(
        self,
        *revisions: str,
        strategy: str | None = None,
        tensors: TensorOptions | None = None,
        message: str | None = None,
        squash: bool = False,
        no_commit: bool = False,
        dry_run: bool = False,
    ) -> MergeResult:
        """Merge revisions into HEAD, tensor by tensor, as ``theta merge`` does.

        ``result.ending`` tells how it ended.  A conflict is no error: the merge stays open, with the
        conflicts in ``result.settlement``, until :meth:`continue_merge` or :meth:`abort_merge`.

        Args:
            revisions: what to merge; the upstream branch where nothing is named.
            strategy: settles the tensors that several sides changed: ``"average"``, ``"ties:density=0.2"``.
            tensors: rules, a recipe, scope, seed and statistics beside it.
            message: the message of the commit.
            squash: leave one change in index and worktree, for a commit with one parent.
            no_commit: stop before the commit.
            dry_run: change nothing; ``result.rows`` tells what would become of each tensor.

        Raises:
            theta.errors.UsageError: there is no such strategy, or it cannot be carried out.
            theta.errors.NotFoundError: there is no such revision.
            theta.errors.RefusedError: it was not begun: git would overwrite changes, or another is open.
        """
        request = MergeRequest(
            revisions,
            _settling(tensors, strategy),
            message=message,
            squash=squash,
            no_commit=no_commit,
            dry_run=dry_run,
        )
        with self._session_of_change() as session:
            result = merging.merge(session, request)
            changing.check_merge(result)
            return result

    def search(
        self,
        *revisions: str,
        strategy: str,
        over: Sequence[str],
        score: Callable[[Path], float],
        tensors: TensorOptions | None = None,
        **how: Any,
    ) -> SearchResult:
        """Try parameters of a merge, and return their scores; nothing is merged or changed.

        ``found.best.strategy`` is the text for :meth:`merge`.

        Args:
            revisions: what to merge.
            strategy: the strategy whose parameters are searched: ``"ties"``.
            over: the values, such as ``"density=0.1:0.9:0.2"``, ``"weight[1]=0:1"``.
            score: is called with the file of each candidate, or a folder if the merge concerns several.
            tensors: rules, scope, seed and statistics beside the strategy.
            how: further fields of :class:`theta.porcelain.search.trials.SearchRequest`: ``minimize``, ``way``
                (``"grid"``, ``"random"``, ``"cma"``), ``trials``, ``seed``, and ``objective``, the name of
                the score: an interrupted search of the same objective goes on where it stopped.

        Raises:
            theta.errors.UsageError: a parameter cannot have such a value, or conflicts are left.
            theta.errors.ThetaError: no candidate could be computed.
        """
        asked = SearchRequest(
            tuple(map(space.axis, over)), **{"objective": getattr(score, "__qualname__", ""), **how}
        )
        with self._session_of_call() as session:
            request = MergeRequest(revisions, _settling(tensors, strategy))
        return merging.search(session, request, asked, score)[1]

    def continue_merge(
        self, strategy: str | None = None, tensors: TensorOptions | None = None
    ) -> MergeResult:
        """Settle the conflicts of the unfinished merge, and commit it; raises as :meth:`merge`."""
        with self._session_of_change() as session:
            result = merging.go_on(session, _settling(tensors, strategy))
            changing.check_merge(result)
            return result

    def abort_merge(self) -> MergeResult:
        """Give up the unfinished merge, and bring back the state before it; raises as :meth:`merge`."""
        with self._session_of_change() as session:
            result = merging.abort(session)
            changing.check_merge(result)
            return result

    def save(
        self,
        files: Mapping[str, Any],
        *,
        ref: str,
        message: str = "",
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
    ) -> Saving:
        """Commit arrays that are in memory on ``ref``, behind the program; no worktree file is written.

        All arrays are copied before this returns, so training goes on and may change them.  Where saves
        come faster than they are stored, one that still waits gives way to the next one for the same ref,
        and its future is cancelled; the last one is never skipped.

        Args:
            files: path -> mapping of arrays (numpy, torch, jax; nested mappings are joined by dots),
                written as the suffix says (``.safetensors``, ``.npz``, ``.gguf``); for ``.pt`` any object
                of dicts, lists, tuples, numbers, text and arrays; or path -> bytes or text; or path ->
                :class:`pathlib.Path` of a file, which is stored as it is and not written to until then (it
                may be removed).  The other files of the commit stay as they are.
            ref: a branch that no worktree has checked out, or the full name of another ref; made if missing.
            message: the message of the commit.
            step: the number of the training step, told in the trailer ``Theta-Step``.
            metrics: name -> value, told in trailers ``Theta-Metric``.
            wait: return when the commit is made, or raise what prevents it.

        Returns:
            The future of the commit.

        Raises:
            theta.errors.UsageError: a value is no array, or there can be no such file, ref or metric.
            theta.errors.RefusedError: a worktree has the branch checked out, at the first save to it.
            theta.errors.FormatError: the format cannot hold an array.
            theta.errors.ThetaError: an array could not be read, as that of a device that failed: this save is
                not made, and one that waited is not either.  Or an error of an earlier save whose future
                nobody waited for: this save is made nevertheless.
        """
        request = SaveRequest(ref, {}, message, step, saving.metrics_of(metrics))
        future = self._save(request, files, lambda _, result: result)
        if wait:
            self.wait()
        return future

    def apply(
        self,
        revision: str,
        into: str | os.PathLike[str] | Mapping[str, Any],
        *,
        paths: Iterable[str] = (),
        in_place: bool = False,
        force: bool = False,
        since: str | None = None,
    ) -> ApplyResult:
        """Bring files of a folder, or checkpoints in memory, to a version; only what differs is decoded.

        Several steps are one: what is there is compared with the version by digests.  Each chunk is proven by
        its digest before it is written.

        Args:
            revision: any name of a commit, or the name of a run, or ``RUN@STEP``.
            into: a folder outside of the worktree; or path -> mapping of arrays (numpy, torch on the CPU), or
                path -> a buffer for the bytes of the whole file, such as that of a shared-memory map.
            paths: globs, files and folders: only these files of the folder.
            in_place: write to files that are there, instead of replacing them.
            force: replace files with content that is in no version.
            since: the revision that the memory holds; what it has in common with the new one is not hashed.

        Raises:
            theta.errors.NotFoundError: there is no such revision, run, step, file or checkpoint.
            theta.errors.WouldOverwriteError: a file has content that is in no version.
            theta.errors.UsageError: the folder is in the worktree, or an array does not fit its tensor.
            theta.errors.NoSpaceError: there is no room; nothing was written.
        """
        if isinstance(into, Mapping):
            targets = {path: array_views.target(value) for path, value in into.items()}
            with self._session_of_call() as session:
                return memory_copies.apply(session, revision, targets, since)
        if since is not None:
            raise UsageError("since is for memory; a folder has a note of what it holds")
        request = ApplyRequest(revision, Path(into).absolute(), tuple(paths), in_place, force)
        with self._session_of_call() as session:
            return applying.apply(session, request)

    def _save(
        self,
        request: SaveRequest,
        files: Mapping[str, Any],
        then: Callable[[Session, SaveResult], SaveResult],
        follows: Callable[[git_repository.Repository, str | None], None] = lambda *_: None,
    ) -> Saving:
        """Save ``files`` as ``request`` says; ``then`` follows, and may change the result.

        ``follows`` may refuse the commit that the ref names before: that of :func:`saving.save`.
        """
        request = request.checked()
        self._check(request.ref)
        plans = host_copies.planned(files)
        shrinking = Shrinking(sum(plan.nbytes for plan in plans.values()))
        copied, stopped = self._copied(request.ref, plans, shrinking)

        def work() -> SaveResult:
            with self._session_of_call() as session:
                session.journal.patience = _PATIENCE
                whole = replace(request, files=copied)
                return then(session, saving.save(session, whole, self._commits, follows))

        future = self._saves.put(request.ref, work, lambda: shrinking.is_due(copied.values()))
        if stopped is not None:
            raise stopped
        return future

    def _check(self, ref: str) -> None:
        """Refuse a ref that cannot be, or that is checked out, at the first save to it, and nobody's commits.

        An error of the background comes with the next save, or as the program ends: too late for such a one.
        The view is one of its own, because the save before has that of calls for as long as it is stored.
        """
        if ref not in self._movable:
            session = Session.here(self._place)
            saving.require_possible(session, saving.movable_ref(session, ref))
            self._commits.ask(session)
            self._movable.add(ref)

    def _copied(
        self, ref: str, plans: Mapping[str, PlannedCopy], shrinking: Shrinking
    ) -> tuple[dict[str, File], BaseException | None]:
        """Copy all arrays in place of those of the save to ``ref`` that waits: there are never three copies.

        That save goes once there is memory, and then the copying goes on to its end: what would have ended
        it (Ctrl-C, a signal that is to end the program) is returned, else both saves were lost.  Where
        a save has just begun to be stored it pauses once: what that takes is to be within two copies.
        """
        try:
            rooms = host_copies.allocated(plans)
            self._saves.drop(ref)
        except MemoryError:
            self._saves.drop(ref)
            rooms = host_copies.allocated(plans)
        copied: dict[str, File] = {}
        stopped: BaseException | None = None
        done, has_paused = 0, False

        def before(end: int) -> None:
            nonlocal has_paused
            if not has_paused and shrinking.is_last(done + end):
                has_paused = True
                self._saves.pause()

        for path, plan in plans.items():
            while path not in copied:
                try:
                    with concerning(path):
                        copied[path] = plan.filled(rooms[path], before)
                        done += plan.nbytes
                except (KeyboardInterrupt, SystemExit) as error:
                    stopped = error
        return copied, stopped

    def _store(self, ref: str, path: str, value: Any) -> StoredFile:
        """Store one checkpoint for a commit on ``ref`` that another process makes."""
        plans = host_copies.planned({path: value})
        with concerning(path):
            file = plans[path].filled(host_copies.allocated(plans)[path])
        if isinstance(file, (bytes, StoredFile)):
            raise UsageError(f"{path} is no checkpoint to store by itself")
        with self._session_of_call() as session:
            session.journal.patience = _PATIENCE
            return saving.store(session, ref, path, file)

    def wait(self) -> None:
        """Wait until everything is saved; raises the error of a save that failed."""
        self._saves.wait()

    def runs(self) -> list[str]:
        """Return the names of all training runs, sorted."""
        with self._session_of_call() as session:
            return run_steps.names(session)

    def close(self) -> None:
        """Wait for saves, close all checkpoints, and remove the clone where a URL was opened.

        To repeat it is no error.  Raises the error of a save that failed.
        """
        try:
            self._saves.close()
        finally:
            self._close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return not self._finish.alive

    def _close(self) -> None:
        with self._lock:
            for access in list(self._opened):
                access.close()
            self._finish()

    def _session(self) -> Session:
        if not self._finish.alive:
            raise UsageError("the repository was closed", hint="theta.open opens it anew")
        session = Session.here(self._place)
        self._objects = session.objects if self._objects is None else session.objects.knowing(self._objects)
        return session

    @contextlib.contextmanager
    def _session_of_call(self) -> Iterator[Session]:
        """Yield a new view of the repository: others may have changed it since the last call."""
        with self._lock:
            yield self._session()

    @contextlib.contextmanager
    def _session_of_change(self) -> Iterator[Session]:
        """Yield a new view for a call that changes something, which a bare repository refuses."""
        with self._session_of_call() as session:
            yield changing.ready(session)

    def __repr__(self) -> str:
        return f"Repository({str(self._place)!r})"


_ALL: Final[weakref.WeakSet[Repository]] = weakref.WeakSet()


def _unlock() -> None:
    """Give the repositories of a forked process new locks; threads that hold the old are not in it."""
    for repo in list(_ALL):
        repo._lock = RLock()
        for access in list(repo._opened):
            access._lock = repo._lock


os.register_at_fork(after_in_child=_unlock)


def _settling(tensors: TensorOptions | None, strategy: str | None) -> TensorOptions:
    """Return ``tensors`` with ``strategy`` in front."""
    found = tensors or TensorOptions()
    return found if strategy is None else replace(found, strategies=(strategy, *found.strategies))


def _as_cell(found: Sequence[Compared]) -> str:
    """Return the changes as a table for a notebook."""
    rows = (
        (item.path, change.status, change.name, side.dtype, shape_text(side.shape))
        for item in found
        for change in item.changes.tensors
        if (side := change.new or change.old) is not None
    )
    title = "; ".join(f"{item.path}: {item.changes.summary()}" for item in found) or "no differences"
    return cells.table(title, ("checkpoint", "", "tensor", "dtype", "shape"), rows)


def _at(found: list[Compared], paths: Iterable[str]) -> list[Compared]:
    """Return those of ``found`` that have a file at or below one of ``paths``; all if ``paths`` is empty."""
    roots = [path.rstrip("/") for path in paths]
    return [
        item
        for item in found
        if not roots or any(f"{name}/".startswith(f"{root}/") for name in item.paths for root in roots)
    ]
