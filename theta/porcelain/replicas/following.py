"""``theta follow``: a folder is kept at the newest step of a run of a remote."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import BusyError, ChangedWhileReadError, DiskError, NotHereYetError, ThetaError, UsageError
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.git.run import DEFER, PATIENT, Git, GitFailedError, redirected
from theta.porcelain.replicas import applying, replica_state
from theta.porcelain.replicas.applying import ApplyRequest, ApplyResult
from theta.porcelain.stage import run_steps
from theta.porcelain.stage.run_steps import RunStep
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.odb.packs import Pack

_REPOSITORY: Final = "repository.git"
_REMOTE: Final = "origin"
_LOCK: Final = "theta-follow.lock"
_PEELED: Final = "^{}"
"""The end that git gives to the name of a tag, for the commit that it names."""
_FOLLOWS: Final = "theta.follows"
"""The configuration key that names the remote of a repository made here."""
_HOOKS: Final = "core.hookspath"
_FIXED: Final = {_HOOKS: "/dev/null", "extensions.partialclone": _REMOTE}
_SETTINGS: Final = frozenset(
    (
        *(f"core.{name}" for name in ("repositoryformatversion", "filemode", "bare", "ignorecase")),
        *(
            f"core.{name}"
            for name in ("precomposeunicode", "symlinks", "logallrefupdates", "sharedrepository")
        ),
        "receive.denynonfastforwards",
        *(f"extensions.{name}" for name in ("objectformat", "refstorage")),
        *(f"remote.{_REMOTE}.{name}" for name in ("url", "promisor", "partialclonefilter")),
        *_FIXED,
        _FOLLOWS,
    )
)
"""The keys that git and theta set in a repository made here.  Others may name programs that git runs."""
_FETCH: Final = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--filter=blob:none")
_LONGEST: Final = 120.0
"""Seconds between two tries after many failures, unless the interval is longer."""
_MANY_PACKS: Final = 24
"""Packs from which on those that are not needed any more go."""
_PATIENCE: Final = 60.0
"""Seconds to wait for another follower that fetches, and the age of a lock whose git was killed."""
PASSING: Final = (GitFailedError, NotHereYetError, BusyError, ChangedWhileReadError)
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
        step = run_steps.step_of(session, session.repo.commit_of(ref) or tip)
        key = session.repo.commit(step.commit).tree, step.step
        if key == self._last:
            return None
        result = applying.apply(session, self._request.of(step.commit), progress)
        if self._request.repository is None:
            with _alone(git):
                _drop_packs(git, session.repo)
        self._last = key
        return Followed(step, result)

    def _bring(self, git: Git, ref: str, tip: str) -> None:
        """Fetch ``tip`` unless it is here; other followers wait for it."""
        with _alone(git):
            if git.run("rev-parse", "--verify", "--quiet", f"{ref}^{{}}", check=False).text.strip() != tip:
                _drop_stale_locks(git.cwd)
                git.run(*PATIENT, *_FETCH, _REMOTE, f"+{ref}:{ref}")

    def _tip(self, git: Git) -> tuple[str, str]:
        """Return the ref of the remote, and the commit that it names, by a tag too; "" when there is none."""
        run = self._request.run
        refs = [run] if run.startswith("refs/") else [run_steps.PREFIX + run, f"refs/heads/{run}"]
        asked = [*refs, *(ref + _PEELED for ref in refs)]
        rows = split_lines(git.run(*PATIENT, "ls-remote", _REMOTE, *asked).text)
        found = {name: oid for oid, _, name in (row.partition("\t") for row in rows)}
        ref = next((ref for ref in refs if ref in found), refs[0])
        return ref, found.get(ref + _PEELED) or found.get(ref, "")

    def _repository(self) -> Git:
        """Return a runner of git in the repository that is fetched into, which is made if needed."""
        request = self._request
        if request.repository is not None:
            place = Path(os.path.realpath(request.repository))
        else:
            _fs.make_dirs(request.folder)
            place = replica_state.private(request.folder) / _REPOSITORY
        with _fs.translated(place):
            if not os.path.lexists(place) or (place.is_dir() and not any(place.iterdir())):
                _make(place, request.remote)
            follows = _followed_by(place)
        if follows != request.remote:
            raise UsageError(f"{place} is for {follows}", hint="choose another --repository, or remove it")
        return Git(place, extra={**DEFER, "GIT_DIR": str(place.absolute())})


def _make(place: Path, remote: str) -> None:
    """Make a repository to fetch into; it is at ``place`` when it is whole."""
    if os.path.ismount(place):
        raise UsageError(f"{place} is a mount", hint="name a folder in it as the --repository")
    _fs.make_dirs(place.parent)
    with _fs.temporary_directory(_fs.own_temporary("follow"), place.parent) as scratch:
        made, git = scratch / "made", Git(scratch, extra=DEFER)
        git.run("init", "--quiet", "--bare", "--template=", made.name)
        for key, value in ((f"remote.{_REMOTE}.url", remote), (_FOLLOWS, remote), (_HOOKS, _FIXED[_HOOKS])):
            git.run("config", "--file", str(made / "config"), key, value)
        try:
            _fs.rename(made, place)
        except DiskError:
            if not (place / "HEAD").exists():  # another follower was faster
                raise


def _followed_by(place: Path) -> str:
    """Return the remote of the repository at ``place``; refuses one that is not as theta makes it.

    Nothing of it is run or trusted before: anybody may have put it there.
    """
    other = UsageError(
        f"{place} is not empty, and no repository that theta made to follow a remote",
        hint="choose another --repository",
    )
    if not (place / "HEAD").is_file() or (place / "commondir").exists():
        raise other
    if os.path.realpath(Repository.discover(place).gitdir) != os.path.realpath(place):  # checks the owner
        raise other
    listed = Git(place.parent, extra=DEFER).run(
        "config", "--file", str(place / "config"), "--no-includes", "--list", "-z", check=False
    )
    rows = [row.partition("\n")[::2] for row in listed.text.split("\0")[:-1]]
    remotes = {value for key, value in rows if key in (_FOLLOWS, f"remote.{_REMOTE}.url")}
    if not any(key == _FOLLOWS for key, _ in rows):
        raise other
    strange = [key for key, value in rows if key not in _SETTINGS or _FIXED.get(key, value) != value]
    if strange or len(remotes) != 1 or _HOOKS not in dict(rows):
        raise UsageError(
            f"the configuration of {place} was changed{f' ({strange[0]})' if strange else ''}",
            hint="remove the repository; what it is to have may be in your own configuration",
        )
    return remotes.pop()


@contextlib.contextmanager
def _alone(git: Git) -> Iterator[None]:
    """Keep other followers from fetching into the repository during the block."""
    lock = _fs.Lock(git.cwd / _LOCK, patience=_PATIENCE)
    try:
        yield
    finally:
        lock.release()


def _drop_packs(git: Git, repo: Repository) -> None:
    """Remove the packs of which no step that a ref names needs anything, once there are many.

    Git would never do so: it keeps all that a remote has promised.
    """
    fetched = list((repo.commondir / "objects" / "pack").glob("*.promisor"))
    if len(fetched) < _MANY_PACKS:
        return
    listed = git.run("rev-list", "--objects", "--all", "--missing=allow-any", "--no-object-names").text
    needed = set(listed.split())
    for place in fetched:
        if needed.isdisjoint(Pack(place.with_suffix(".idx"), repo.format).ids()):
            for suffix in (".pack", ".rev", ".idx", ".promisor"):
                _fs.remove(place.with_suffix(suffix))


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
