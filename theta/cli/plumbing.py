"""The commands that git runs, several times a commit: hooks and filter, without typer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from theta.cli import console, terminal
from theta.errors import ExitCode, ThetaError
from theta.git.quoting import split_lines

if TYPE_CHECKING:
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress


def run(name: str, args: Sequence[str]) -> int | None:
    """Run ``theta NAME ARGS``; return None if typer has to show help or report a wrong line."""
    if name == "filter-process" and not args:
        return serve_filter()
    if name == "hook" and args and args[0] != "--help" and list(args) != ["-h"]:
        return run_hook(*args)
    return None


def serve_filter() -> int:
    """Serve git's filter protocol on standard input and output."""
    from theta.git.pktline import PktLines, widened
    from theta.porcelain.plain_git.filtering import SMUDGE_LIMIT, Filter, serve

    filter_ = Filter(
        _session,
        lambda text: console.err(f"theta: {text}"),
        os.environ.get("THETA_SMUDGE") == "defer",
        int(os.environ.get("THETA_SMUDGE_LIMIT", SMUDGE_LIMIT)),
        Path(index).absolute() if (index := os.environ.get("GIT_INDEX_FILE")) else None,
        lambda: terminal.progress("theta"),
        may_look=not os.environ.get("GIT_OBJECT_DIRECTORY"),
    )
    try:
        serve(filter_, PktLines(widened(sys.stdin.fileno()), sys.stdout.buffer))
    except EOFError:  # git has ended in the middle
        return int(ExitCode.INTERRUPTED)
    return 0


def _session(*, at_top: bool = False) -> Session:
    """Open the repository that git runs in, for a user in the folder where git was begun, or ``at_top``."""
    from theta.porcelain.workspace.session import Session

    below = "" if at_top else os.environ.get("GIT_PREFIX", "")
    return Session.here(".", Path(below), in_git=True)


def run_hook(name: str, *args: str) -> int:
    """Do theta's part of the hook ``name``, which git runs with ``args``."""
    session = _session(at_top=name == "guard")
    index = Path(os.environ.get("GIT_INDEX_FILE") or session.repo.index_path)
    with terminal.progress("theta") as progress:
        lines = _lines(session, name, list(args), index.absolute(), progress)
    for line in lines:
        console.err(f"theta: {line}")
    return 0


def _lines(session: Session, name: str, args: list[str], index: Path, progress: Progress | None) -> list[str]:
    from theta.porcelain.plain_git import hooks as steps

    if name == "guard":
        return _guard(session)
    if name == "pre-commit":
        alone = os.environ.get("THETA_SMUDGE") != "defer"
        return steps.pre_commit(session, index, alone=alone, git="".join(args[:1]))
    if name == "prepare-commit-msg":
        return steps.prepare_commit_msg(session, index, args)
    if name == "pre-merge-commit":
        return steps.pre_merge_commit(session, index)
    if name == "post-rewrite":
        return steps.post_rewrite(session, [(row[0], row[1]) for row in _rows(2)], progress)
    if name == "pre-push":
        return steps.pre_push(session, [(row[1], row[3]) for row in _rows(4)], args[0] if args else "")
    if name in steps.SIMPLE:
        return steps.SIMPLE[name](session, progress)
    raise ThetaError(f"theta has no part in the hook {name}")


def _guard(session: Session) -> list[str]:
    """Tell the guard of plain git whether a file is in the way of the git whose words it passes on."""
    from theta.porcelain.drive import overwrites

    words = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\0")
    if overwrites.in_the_way(session, [word for word in words if word][1:]):
        console.out("in the way")
    return []


def _rows(width: int) -> list[list[str]]:
    rows = [line.split() for line in split_lines(sys.stdin.read())]
    return [row for row in rows if len(row) >= width]
