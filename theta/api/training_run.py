"""A training run as a Python program has it: :class:`Run`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta import _fs
from theta.api import held_files, policies
from theta.api.background import Saving
from theta.api.closing import Closing
from theta.api.policies import Keep, When
from theta.api.runs.pushes import Pushes
from theta.api.runs.warned import warn
from theta.errors import NoSuchCheckpointError, NotFoundError, RefusedError, UsageError, did_you_mean
from theta.git import repository as git_repository
from theta.git.run import GitFailedError
from theta.porcelain.replicas import pushed_runs
from theta.porcelain.replicas.pushed_runs import PushedRun
from theta.porcelain.stage import run_steps, saving
from theta.porcelain.stage.run_steps import RunStep
from theta.porcelain.stage.saved_tree import StoredFile
from theta.porcelain.stage.saving import SaveRequest, SaveResult
from theta.porcelain.tensors import unpacking
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.api.checkpoint import Checkpoint
    from theta.api.destinations import Framework
    from theta.api.repo import Repository


_PATIENCE: Final = 8
"""The steps that are kept for each one that may stay besides while the run goes on."""


@dataclass(frozen=True)
class Resumed(Mapping[str, "Checkpoint"]):
    """The last whole step of a run, and its checkpoints by their paths.

    ``resumed["model.safetensors"]`` opens one, of which nothing is read yet.  A step is true, though it may
    have other files alone, which :meth:`read` returns.
    """

    repo: Repository
    commit: str
    step: int | None
    metrics: Mapping[str, float]

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(self.repo.checkpoints(self.commit))

    def __getitem__(self, path: str) -> Checkpoint:
        try:
            return self.repo[f"{self.commit}:{path}"]
        except NotFoundError as error:
            raise NoSuchCheckpointError(str(error), hint="list(resumed) names them") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, path: object) -> bool:
        return path in self._paths  # that of mappings would open it

    def __bool__(self) -> bool:
        return True

    def load(
        self,
        path: str,
        names: str | None = None,
        *,
        out: Mapping[str, Any] | None = None,
        framework: Framework = "numpy",
    ) -> Any:
        """Read a checkpoint of the step as it was saved, or into arrays: :meth:`theta.Repository.load`."""
        return self.repo.load(self.commit, path, names, out=out, framework=framework)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file; raises :class:`theta.errors.NotFoundError` if there is none."""
        with self.repo._session_of_call() as session:
            return unpacking.read(session, self.commit, path)

    @contextlib.contextmanager
    def files(self) -> Iterator[Path]:
        """Write all files to a folder that goes at the end of the block: :meth:`write`."""
        with self.repo._session_of_call() as session:
            place = session.scratch()
        with _fs.temporary_directory(_fs.own_temporary("files"), place) as folder:
            yield self.write(folder)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write all files of the step below ``folder``, byte for byte as they were saved; return its path.

        A file that is there already and equal stays, so to repeat it completes what was interrupted.

        Raises:
            theta.errors.WouldOverwriteError: another file is there; nothing was written.
            theta.errors.NoSpaceError: the disk is full.
        """
        place = Path(folder)
        with self.repo._session_of_call() as session:
            unpacking.write(session, self.commit, place)
        return place


class Run(Closing):
    """A training run: a commit a step under ``refs/theta/runs/NAME``, with its metrics.

    Used as a context manager, whose end waits for the last step.

    Args:
        repo: the repository.
        name: the name of the run; a run that is there goes on.
        every: when a step is saved: ``theta.steps(500) | theta.seconds(900) | theta.preempted()``; by
            default each one.
        keep: the steps that stay: ``theta.last(3) | theta.best("eval_loss", 2)``; by default all.  The
            newest always stays.
        push: a remote, to which the run is pushed after each step.

    Raises:
        theta.errors.UsageError: there can be no such run, or ``every`` or ``keep`` is no policy.
    """

    def __init__(
        self,
        repo: Repository,
        name: str,
        *,
        every: When | None = None,
        keep: Keep | None = None,
        push: str | None = None,
    ) -> None:
        if not hasattr(repo, "_save"):
            raise UsageError(f"a run cannot be in {repo!r}", hint='theta.Run(theta.open("."), NAME)')
        self._repo, self.name, self.ref = repo, name, run_steps.ref_of(name)
        if every is not None:
            policies.require(every, "is_due", "every", "theta.steps(500)")
        if keep is not None:
            policies.require(keep, "kept", "keep", "theta.last(3)")
        self.every = every
        """When a step is saved; None for each one."""
        self.keep = keep
        """The steps that stay; None for all."""
        self._pushes: Pushes | None = None
        if push is not None:
            remote = PushedRun(name, push)
            remote.check(self._opened())
            self._pushes = Pushes(remote, self._opened, self._not_pushed)
        self._last: tuple[str, str] | None = None
        self._is_begun = False
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"Run({self._repo!r}, {self.name!r})"

    @property
    def preempted(self) -> bool:
        """Whether the loop should end: a step is saved since the signal of a ``theta.preempted()`` came.

        It may still be on its way to the disk; the end of the block waits for it.
        """
        return any(policy.is_served for policy in policies.parts_of(self.every, policies.preempted))

    def step(
        self, number: int, files: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> Saving | None:
        """Save step ``number`` if it is due; return its future, or None when it is not due.

        Args:
            number: the number of the step, a whole one; scalars of numpy and torch are too.
            files: as in :meth:`theta.Repository.save`.
            metrics: name -> value.

        Raises:
            theta.errors.ThetaError: as :meth:`theta.Repository.save` does.
        """
        number = saving.step_number(number)
        self._check()
        if self.every is not None and not self.every.is_due(number):
            return None
        return self.save(number, files, metrics)

    def save(
        self,
        number: int,
        files: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        *,
        whole: bool = False,
        message: str = "",
    ) -> Saving:
        """Save step ``number``, due or not; return its future.

        If ``whole``, it has these files alone.  The message of the commit names the step by default.
        """
        number = saving.step_number(number)
        self._check()
        request = SaveRequest(self.ref, {}, message, number, saving.metrics_of(metrics), whole).checked()
        self._hint(request.metrics)
        for policy in policies.parts_of(self.every, policies.preempted):
            policy.serve()
        return self._repo._save(request, files, self._stored, self._check_last)

    def _check(self) -> None:
        """Raise what is wrong with the run, or with the last push."""
        self._repo._check(self.ref)
        if self._pushes is not None:
            self._pushes.check()

    def _hint(self, metrics: Mapping[str, float]) -> None:
        """Warn once of each metric of ``keep`` that no step tells, if one of them is called much like it."""
        for policy in policies.parts_of(self.keep, policies.best):
            likely = did_you_mean(policy.metric, metrics) if policy.metric not in metrics else ""
            if likely and policy.metric not in self._told:
                said = f"theta.best({policy.metric!r}) keeps all steps of run {self.name}: none tells that"
                warn(f"{said}; {likely}", UserWarning)
            if likely or policy.metric in metrics:
                self._told.add(policy.metric)

    def store(self, path: str, value: Any) -> StoredFile:
        """Store one checkpoint of a step that another process saves, in a pack of its own.

        ``run.save(number, {path: stored})`` there, with what this returned here, commits it.  All of them
        have the same repository.
        """
        return self._repo._store(self.ref, path, value)

    def save_folder(
        self, number: int, folder: str | os.PathLike[str], metrics: Mapping[str, float] | None = None
    ) -> Saving:
        """Save the files in ``folder`` as step ``number``: these alone, as they are; return its future.

        They are read behind the program and may be removed meanwhile, but not written to.  A link to a file
        stands for the file.

        Raises :class:`theta.errors.UsageError` for a link to a folder, and for what is no file (a socket).
        """
        return self.save(number, held_files.in_folder(Path(folder)), metrics, whole=True)

    def _check_last(self, repo: git_repository.Repository, tip: str | None) -> None:
        """Raise :class:`RefusedError` if the run does not end with the step that was saved here last.

        That is so where a job was started anew while the one before still runs: the new one goes on.  A step
        that retention made anew has the same tree and message.
        """
        if self._last is not None and tip is not None and _content(repo, tip) != self._last:
            raise RefusedError(
                f"another process saves steps of run {self.name}, so this one saves no more",
                hint="let one of them go on, or give one a run of another name",
            )

    def _stored(self, session: Session, result: SaveResult) -> SaveResult:
        """Let go of the steps that are not kept, and push the others."""
        self._last = _content(session.again().repo, result.commit)
        if result.parent is None:
            pushed_runs.begun(session, self.name)
            if self._pushes is not None:
                self._pushes.remote.forget()
        if self.keep is not None:
            renamed = prune(session, self.name, self.keep, patient=True)
            result = replace(result, commit=renamed.get(result.commit, result.commit))
        if self._pushes is not None:
            self._pushes.begin(result)
        return result

    def _opened(self) -> Session:
        """Return a view of the repository that is not that of calls, which a save may have."""
        return Session.here(self._repo._place)

    def _not_pushed(self, error: GitFailedError) -> None:
        said = f"the last step of run {self.name} is stored, but was not pushed; the next one will be"
        warn(f"{said}, with it: {pushed_runs.reason(error)}")

    @contextlib.contextmanager
    def drafts(self) -> Iterator[Path]:
        """Create a folder for files to save, on the disk of the repository; it goes at the end of the block.

        A file in it that was given to :meth:`save` or :meth:`save_folder` by then is stored nevertheless.
        """
        with self._repo._session_of_call() as session:
            place = session.scratch()
        with _fs.temporary_directory(_fs.own_temporary("drafts"), place) as folder:
            yield folder

    def steps(self) -> list[RunStep]:
        """Return the steps that are stored, the first one first; none for a run that has not begun."""
        try:
            with self._repo._session_of_call() as session:
                return run_steps.steps(session, self.name)
        except NotFoundError:
            return []

    def resume(self, step: int | None = None) -> Resumed | None:
        """Return the last whole step, to go on from; None when the run has not begun.

        Steps that the remote of ``push`` has besides are fetched before: those of a job that another machine
        began.  Where it cannot be reached, the run goes on with what is here.

        Raises:
            theta.errors.NotFoundError: there is no step of number ``step``.
            theta.errors.RefusedError: the remote and this repository have steps that the other one lacks.
            theta.git.run.GitFailedError: the remote cannot be reached, and there is no step here.
        """
        number = None if step is None else saving.step_number(step)
        if self._pushes is not None:
            self._bring(self._pushes)
        if number is None and not self.steps():
            return None
        return self.resumed(run_steps.chosen(self.steps(), self.name, number=number))

    def _bring(self, pushes: Pushes) -> None:
        pushes.wait()
        self._is_begun = True
        try:
            with self._repo._session_of_call() as session:
                pushes.remote.bring(session)
        except GitFailedError as error:
            if not self.steps():
                raise
            said = f"run {self.name} goes on with the steps that are here; the remote was not reached"
            warn(f"{said}: {pushed_runs.reason(error)}")

    def resumed(self, item: RunStep) -> Resumed:
        """Return ``item``, one of :meth:`steps`, to go on from."""
        return Resumed(self._repo, item.commit, item.step, item.metrics)

    def prune(self, keep: Keep | None = None) -> None:
        """Let go of the steps that ``keep`` does not keep, by default that of the run."""
        chosen = self.keep if keep is None else keep
        if chosen is not None:
            policies.require(chosen, "kept", "keep", "theta.last(3)")
        if chosen is not None and self.steps():
            with self._repo._session_of_call() as session:
                prune(session, self.name, chosen)

    def publish(
        self, ref: str, *, best: str | None = None, highest: bool = False, step: int | None = None
    ) -> SaveResult:
        """Put one step on branch ``ref``, as one commit: its files in place of those of these paths.

        Args:
            ref: a branch that no worktree has checked out, or the full name of another ref.
            best: the step with the lowest value of this metric.
            highest: with the highest value instead.
            step: the step of this number; by default the newest.

        Raises:
            theta.errors.NotFoundError: there is no such step.
        """
        chosen = run_steps.chosen(self.steps(), self.name, best=best, highest=highest, number=step)
        with self._repo._session_of_call() as session:
            return saving.publish(session, chosen.commit, ref, f"{self.name}: {chosen.subject}")

    def close(self) -> None:
        """Wait for the last step, and push what was not; raises the error of a save that failed."""
        try:
            self._repo.wait()
            if self._last is not None and self.keep is not None and not self._repo.is_closed:
                self.prune()
            if self._pushes is not None and self._last is not None:
                self._push_at_last(self._pushes)
            elif self._pushes is not None and self._is_begun:
                self._pushes.try_now()  # what the job before could not push; here it is no error either
        finally:
            for policy in policies.parts_of(self.every, policies.preempted):
                policy.release()

    def _push_at_last(self, pushes: Pushes) -> None:
        try:
            pushes.now()
        except GitFailedError as error:
            said = f"All steps of run {self.name} are stored here; the last ones were not pushed."
            error.add_note(f"{said} {pushed_runs.reason(error)}")
            raise


def prune(session: Session, name: str, keep: Keep, *, patient: bool = False) -> dict[str, str]:
    """Let go of the steps of run ``name`` that are not kept; return old id -> new id of the others.

    All commits behind one that goes are made anew.  A ``patient`` caller, who comes again, lets some stay, so
    that they are not with each step.
    """
    now = session.again()
    found = run_steps.steps(now, name)
    kept = keep.kept(found)
    if patient and len(found) - len(kept) <= len(kept) // _PATIENCE:
        return {}
    return run_steps.retain(now, name, kept)


def _content(repo: git_repository.Repository, commit: str) -> tuple[str, str]:
    """Return the tree and the message of a step, which stay when it is made anew."""
    found = repo.commit(commit)
    return found.tree, found.message
