"""Variables of git's environment that theta cannot follow: obeyed by git, or refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import ThetaError, UsageError

if TYPE_CHECKING:
    from theta.porcelain.workspace.session import Session

_PLACES: Final = (
    *("GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR"),
)
_PATHSPECS: Final = tuple(f"GIT_{kind}_PATHSPECS" for kind in ("LITERAL", "GLOB", "NOGLOB", "ICASE"))
_GIT_ALONE: Final = ("branch", "tag", "fetch", "push", "clone", "init")
"""Commands that git does by itself."""
_ADD_PATHSPECS: Final = ("add", "commit", "restore", "status", "diff", "log", "show", "ls-files")
"""Commands with which theta gives git pathspecs beside the user's."""
_WRITING: Final = (
    *("resolve", "average", "build-moe", "cascade", "extract-lora", "undo", "track", "untrack", "migrate"),
)
"""Commands of theta alone that write the index."""


def by_git(name: str, args: list[str], *, is_of_git: bool = True) -> int | None:
    """Run ``git NAME ARGS`` if the environment needs what only git can do; otherwise return None.

    ``is_of_git``: git has a command of this name.
    Raises :class:`UsageError` in a repository with checkpoints.
    """
    if name in _GIT_ALONE or not (is_of_git or name in _WRITING) or not (found := _found(name)):
        return None
    from theta.cli.common import uses_theta
    from theta.git.run import plain
    from theta.porcelain.workspace.session import Session

    try:
        session = Session.here(".")
        found = [variable for variable in found if not _is_usual(session, variable)]
        uses = bool(found) and uses_theta(session)
    except ThetaError:
        return None
    if uses:
        raise UsageError(
            f"{found[0]} is set, which theta does not follow in a repository with checkpoints",
            hint=f"unset {found[0]}" + (f", or run 'git {name}'" if is_of_git else ""),
        )
    return plain(Path.cwd()).show(name, *args) if found and is_of_git else None


def _found(name: str) -> list[str]:
    wanted = _PLACES + (_PATHSPECS if name in _ADD_PATHSPECS else ())
    return [variable for variable in wanted if os.environ.get(variable)]


def _is_usual(session: Session, variable: str) -> bool:
    """Return whether a variable has its usual value, as git sets some of them for hooks."""
    usual = {"GIT_INDEX_FILE": session.repo.index_path, "GIT_COMMON_DIR": session.repo.commondir}
    if variable not in usual:
        return os.environ[variable] in ("0", "false", "no", "off")
    return os.path.realpath(os.environ[variable]) == os.path.realpath(usual[variable])
