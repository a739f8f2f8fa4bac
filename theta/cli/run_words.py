"""Training runs on a command line: words that name a step, as ``RUN@STEP``, and checkpoints of steps.

Git reads no such name.  What it reads itself, and what a file is called, stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import ThetaError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.setup import installing
    from theta.porcelain.stage import run_steps
    from theta.porcelain.workspace import session as sessions
    from theta.porcelain.workspace.session import Session
else:
    installing = Module("theta.porcelain.setup.installing")
    run_steps = Module("theta.porcelain.stage.run_steps")
    sessions = Module("theta.porcelain.workspace.session")

COMMANDS: Final = frozenset(
    {"average", "blame", "cat", "check", "checkout", "cherry-pick", "diff", "export", "lineage"}
    | {"log", "merge", "restore", "show", "sign", "switch", "verify"}
)
"""The commands whose operands are revisions."""
_STEP: Final = re.compile(r"@-?[0-9]")
_NAME: Final = re.compile(r".+@-?[0-9]{1,18}", re.DOTALL)
_PARTS: Final = re.compile(r"(?P<option>--[a-z-]+=)?(?P<not>\^?)(?P<words>[^:]*)(?P<path>:.*)?", re.DOTALL)
_RANGE: Final = re.compile(r"(\.\.\.?)")
_OF_TEXT: Final = frozenset(
    {"-S", "-G", "-m", "-F", "-o", "--author", "--committer", "--grep", "--html", "--junit", "--md"}
    | {"--message", "--output", "--sarif"}
    | {"-b", "-B", "-c", "-C", "--create", "--force-create", "--orphan"}
)
"""The options whose value, the next word or behind ``=``, is no revision: text, a file, a new branch."""


def shows_checkpoints(session: Session) -> bool:
    """Return whether versions here may have checkpoints: those of training runs too, which nothing tracks."""
    return installing.is_used(session.repo) or run_steps.are_in(session.repo)


def named(args: Sequence[str]) -> list[str]:
    """Return the arguments of a command with the commits of steps in place of their names."""
    end = args.index("--") if "--" in args else len(args)
    if not any(map(_STEP.search, args[:end])):
        return list(args)
    try:
        session = sessions.Session.here(Path.cwd())
    except ThetaError:  # the command tells what is wrong, or needs no repository
        return list(args)
    found = [
        word if before in _OF_TEXT or os.path.lexists(word) else _named(session, word)
        for before, word in zip(["", *args], args[:end], strict=False)
    ]
    return [*found, *args[end:]]


def _named(session: Session, word: str) -> str:
    parts = _PARTS.fullmatch(word)
    option = parts["option"] or "" if parts is not None else ""
    if parts is None or _STEP.search(parts["words"]) is None or option.removesuffix("=") in _OF_TEXT:
        return word
    words = [_commit(session, part) for part in _RANGE.split(parts["words"])]
    return "".join([option, parts["not"], *words, parts["path"] or ""])


def _commit(session: Session, name: str) -> str:
    """Return the commit of the step that ``name`` names; ``name`` if git reads it, or there is no run."""
    if _NAME.fullmatch(name) is None or session.repo.commit_of(name) is not None:
        return name
    return run_steps.revision(session, name)
