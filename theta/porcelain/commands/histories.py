"""The history, by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from theta.git.options import Arguments
from theta.porcelain.look import diffing, history
from theta.porcelain.look.version_changes import Summary
from theta.porcelain.workspace.session import Session


@dataclass(frozen=True)
class LogRequest:
    """The commits that are wanted.

    Attributes:
        line: the arguments of git log as git reads them; options that format a commit select none.
        tensor: a glob: only commits that changed a tensor of such a name.
    """

    line: Arguments
    tensor: str | None = None


@dataclass(frozen=True)
class LogResult:
    """The commits, newest first unless the line asks for another order.

    Attributes:
        commits: one summary a commit, read as it is asked for.
        paths: the paths that the line is limited to.
    """

    commits: Iterator[Summary]
    paths: Sequence[str]


def log(session: Session, request: LogRequest) -> LogResult:
    """Find the commits of ``request``."""
    git = session.repo.git().in_directory(session.cwd)
    chosen = request.line.without({"--stat", *history.FORM})
    _, paths = diffing.split(git, request.line)
    return LogResult(history.changed(session, history.commits(git, chosen), request.tensor, paths), paths)
