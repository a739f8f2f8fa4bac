"""Following a run of a remote, as a Python program does it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from theta.errors import ThetaError, UsageError
from theta.porcelain.replicas import following
from theta.porcelain.replicas.following import Followed, FollowRequest


class FollowOptions(TypedDict, total=False):
    """How a folder follows a run; see :func:`follow`."""

    paths: Sequence[str]
    in_place: bool
    force: bool
    repository: str | os.PathLike[str] | None


def follow(
    remote: str | os.PathLike[str],
    run: str,
    into: str | os.PathLike[str],
    *,
    interval: float = 5.0,
    stop: threading.Event | None = None,
    failed: Callable[[ThetaError, float], object] | None = None,
    **how: Unpack[FollowOptions],
) -> Iterator[Followed]:
    """Keep the folder ``into`` at the newest step of a run; yield each step that it was brought to.

    The first step that is found is yielded even if the folder is at it already.  Steps that come while the
    folder is brought to one are folded into the next.  Failures of the network are tried again, after longer
    and longer times.

    Args:
        remote: a URL, or the path of a repository.
        run: the name of a run or a branch, or the full name of a ref; it may not be there yet.
        into: a folder outside of any worktree; made if missing.
        interval: seconds between two looks at the remote.
        stop: set it to end the iteration.
        failed: is called with each failure, and the seconds until the next try.
        how: ``paths`` (globs, files and folders: only these files), ``in_place`` (write to the files that are
            there), ``force`` (replace files with content that is in no version), ``repository`` (where to
            fetch to; by default a repository of its own in the folder).

    Raises:
        theta.errors.WouldOverwriteError: a file has content that is in no version.
        theta.errors.NoSpaceError: the disk is full.
        theta.errors.UsageError: the repository is for another remote, or the interval is no time.
    """
    if not interval > 0:
        raise UsageError(f"an interval is a time in seconds, not {interval!r}")
    text, ended = os.fspath(remote), stop or threading.Event()
    repository = how.get("repository")
    request = FollowRequest(
        str(Path(text).absolute()) if os.path.isdir(text) else text,
        run,
        Path(into).absolute(),
        Path(repository).absolute() if repository is not None else None,
        interval,
        tuple(how.get("paths", ())),
        how.get("in_place", False),
        how.get("force", False),
    )
    return following.follow(request, ended.wait, failed or _unheard)


def _unheard(_error: ThetaError, _delay: float) -> None:
    """Tell nobody: the next try may succeed."""
