"""``theta follow``: a folder is kept at the newest step of a run of a remote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import BusyError, NotHereYetError, ThetaError, UsageError
from theta.git.run import DEFER, Git, GitFailedError, redirected
from theta.porcelain.replicas import applying, replica_state
from theta.porcelain.replicas.applying import ApplyRequest, ApplyResult
from theta.porcelain.stage import run_steps
from theta.porcelain.stage.run_steps import RunStep
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_REPOSITORY: Final = "repository.git"
_REMOTE: Final = "origin"
_LOCK: Final = "theta-follow.lock"
_FOLLOWS: Final = "theta.follows"
"""The configuration key that names the remote of a repository made here."""
_PATIENT: Final = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")
"""A connection that brings nothing for a minute counts as broken."""
_FETCH: Final = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--filter=blob:none")
_LONGEST: Final = 120.0
"""Seconds between two tries after many failures, unless the interval is longer."""
_PATIENCE: Final = 60.0
"""Seconds to wait for another follower that fetches, and the age of a lock whose git was killed."""
PASSING: Final = (GitFailedError, NotHereYetError, BusyError)
"""Errors after which another try may succeed."""


@dataclass(frozen=True)
class FollowRequest:
    """A run to follow.

    Attributes:
        remote: what git takes for a remote: a URL, or an absolute path.
        run: the name of a run or a branch, or the full name of a ref.
        folder: where its files are to be.
        repository: the repository that is fetched into; by default one of its own in the folder.
        interval: seconds between two looks at the remote.
        paths: as in :class:`ApplyRequest`, as are ``in_place`` and ``force``.
    """

    remote: str
    run: str
    folder: Path
    repository: Path | None = None
    interval: float = 5.0
    paths: Sequence[str] = field(default=())
    in_place: bool = False
    force: bool = False

    def of(self, commit: str) -> ApplyRequest:
        """Return the request to apply ``commit``."""
        return ApplyRequest(commit, self.folder, self.paths, self.in_place, self.force)


@dataclass(frozen=True)
class Followed:
    """A step that the folder is at now."""

    step: RunStep
    result: ApplyResult


class Follower:
    """Looks at the remote, fetches what differs, and applies it."""

    def __init__(self, request: FollowRequest) -> None:
        if any(text.startswith("-") or not text for text in (request.remote, request.run)):
            raise UsageError("a remote and a run are wanted", hint="theta follow URL RUN --into FOLDER")
        if redirected():
            raise UsageError("GIT_DIR or GIT_WORK_TREE is set", hint="unset them to follow a remote")
        self._request = request
        self._last: tuple[str, int | None] | None = None

    def look(self, progress: Progress | None = None) -> Followed | None:
        """Bring the folder to the newest step; return None when it is there, or no step is.

        The first step that is found is returned even if the folder is at it.
        """
        git = self._repository()
        ref, tip = self._tip(git)
        if not tip:
            return None
        self._bring(git, ref, tip)
        session = Session.here(git.cwd)
        step = run_steps.step_of(session, session.repo.refs.resolved(ref) or tip)
        key = session.repo.commit(step.commit).tree, step.step
        if key == self._last:
            return None
        result = applying.apply(session, self._request.of(step.commit), progress)
        self._last = key
        return Followed(step, result)

    def _bring(self, git: Git, ref: str, tip: str) -> None:
        """Fetch ``tip`` unless it is here; other followers wait for it."""
        lock = _fs.Lock(git.cwd / _LOCK, patience=_PATIENCE)
        try:
            if git.run("rev-parse", "--verify", "--quiet", ref, check=False).text.strip() != tip:
                _drop_stale_locks(git.cwd)
                git.run(*_PATIENT, *_FETCH, _REMOTE, f"+{ref}:{ref}")
        finally:
            lock.release()

    def _tip(self, git: Git) -> tuple[str, str]:
        """Return the ref of the remote, and the commit that it names; "" when there is none."""
        run = self._request.run
        refs = [run] if run.startswith("refs/") else [run_steps.PREFIX + run, f"refs/heads/{run}"]
        rows = git.run(*_PATIENT, "ls-remote", _REMOTE, *refs).text.splitlines()
        found = {name: oid for oid, _, name in (row.partition("\t") for row in rows)}
        return next(((ref, found[ref]) for ref in refs if ref in found), (refs[0], ""))

    def _repository(self) -> Git:
        """Return a runner of git in the repository that is fetched into, which is made if needed."""
        request, place = self._request, self._request.repository
        if place is None:
            _fs.make_dirs(request.folder)
            place = replica_state.private(request.folder) / _REPOSITORY
        _fs.make_dirs(place)
        git = Git(place, extra={**DEFER, "GIT_DIR": str(place.absolute())})
        follows = git.run("config", "--local", "--get", _FOLLOWS, check=False).text.strip()
        if not follows:
            self._begin(git)
        elif follows != request.remote:
            raise UsageError(f"{place} is for {follows}", hint="choose another --repository, or remove it")
        return git

    def _begin(self, git: Git) -> None:
        if any(git.cwd.iterdir()) and not (git.cwd / "HEAD").exists():
            raise UsageError(f"{git.cwd} is not empty", hint="choose another --repository")
        git.run("init", "--quiet", "--bare", ".")
        git.run("config", "--local", f"remote.{_REMOTE}.url", self._request.remote)
        git.run("config", "--local", _FOLLOWS, self._request.remote)


def _drop_stale_locks(place: Path) -> None:
    """Remove the locks of a git that was killed: it would have removed them, and no other one runs."""
    for lock in (*place.glob("*.lock"), *place.glob("refs/**/*.lock")):
        if lock.name != _LOCK and time.time() - lock.stat().st_mtime > _PATIENCE:
            _fs.remove(lock)


def follow(
    request: FollowRequest,
    wait: Callable[[float], bool],
    failed: Callable[[ThetaError, float], object],
    progress: Progress | None = None,
) -> Iterator[Followed]:
    """Yield each step that the folder was brought to, and go on after failures of the network.

    Args:
        request: the run.
        wait: waits for some seconds; returns True when it is time to stop.
        failed: is called with each failure, and the seconds until the next try.
        progress: shows the work.
    """
    follower, failures = Follower(request), 0
    while True:
        delay = request.interval
        try:
            found = follower.look(progress)
            failures = 0
        except PASSING as error:
            failures += 1
            delay = min(request.interval * 2.0 ** min(failures, 16), max(request.interval, _LONGEST))
            if wait(0):
                return
            failed(error, delay)
            found = None
        if found is not None:
            yield found
        if wait(delay):
            return
