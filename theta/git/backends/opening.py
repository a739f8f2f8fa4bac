"""Opening a repository: by libgit2 when it can, by git itself when it cannot."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pygit2
from pygit2.enums import ConfigLevel, RepositoryOpenFlag

from theta.errors import NotARepositoryError, UnsupportedRepositoryError, UntrustedOwnerError
from theta.git.backends.by_libgit2 import Libgit2
from theta.git.object_format import FORMATS
from theta.git.run import DEFER, Git, redirected, skips_system
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git.backends import by_git
    from theta.git.backends.protocols import Backend, Config
else:  # few repositories need it
    by_git = Module("theta.git.backends.by_git")

_BY_GIT: Final = ("object format", "refstorage", "objectformat")
"""Words in the errors of libgit2 for repositories that git can open."""
_SYSTEM: Final = pygit2.settings.search_path[ConfigLevel.SYSTEM]
"""The folder of the system's configuration."""
_NOWHERE: Final = "not a git repository (or any of the parent directories)"


def discovered(start: str | Path) -> Backend:
    """Open the repository that contains ``start``; raises a theta error for each kind of failure."""
    _follow_environment()
    try:
        return _redirected(Path(start)) if redirected() else _around(start)
    except pygit2.GitError as error:
        message = str(error)
    except ValueError as error:  # how pygit2 raises what libgit2 calls invalid
        message = str(error)
    if any(sign in message.lower() for sign in _BY_GIT):
        return _by_git(Path(start), message)
    raise _opening_error(message, start)


def _follow_environment() -> None:
    """Let libgit2, which knows nothing of ``GIT_CONFIG_NOSYSTEM``, read the files that git reads."""
    wanted = "" if skips_system() else _SYSTEM
    if pygit2.settings.search_path[ConfigLevel.SYSTEM] != wanted:
        pygit2.settings.search_path[ConfigLevel.SYSTEM] = wanted


def reopened(backend: Backend, start: Path) -> Backend:
    """Return ``backend``, or open it anew at ``start`` if it keeps what git may have changed since."""
    return discovered(start) if isinstance(backend, Libgit2) else backend


def _around(start: str | Path) -> Backend:
    if pygit2.discover_repository(str(start)) is None:
        if (_found(start) / ".git").is_file():  # libgit2 does not see a HEAD that is a symbolic link
            return _by_git(Path(start), _NOWHERE)
        raise NotARepositoryError(_NOWHERE, hint="run 'theta init' or 'git init' first")
    return Libgit2(pygit2.Repository(str(start)))  # by the worktree: a git directory may be elsewhere


def _redirected(start: Path) -> Libgit2:
    """Open the repository of ``GIT_DIR`` and ``GIT_WORK_TREE``; libgit2 respects only one of them."""
    git = Git(start)
    found = git.run("rev-parse", "--absolute-git-dir", check=False)
    if found.code:
        raise NotARepositoryError(
            found.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: "),
            hint="GIT_DIR or GIT_WORK_TREE is set",
        )
    place = found.text.rstrip("\n")
    top = git.run("rev-parse", "--show-toplevel", check=False).text.rstrip("\n")
    try:
        raw = pygit2.Repository(place)
    except pygit2.GitError:  # the worktree of its own settings is not there
        raw = pygit2.Repository(place, RepositoryOpenFlag.BARE)
    if top and (not raw.workdir or os.path.realpath(raw.workdir) != os.path.realpath(top)):
        raw.workdir = top
    return Libgit2(raw)


def _by_git(start: Path, message: str) -> by_git.ByGit:
    """Open by git a repository that libgit2 cannot open, as ``message`` says."""
    git = Git(start, extra=DEFER)
    asked = ("rev-parse", "--show-object-format", "--absolute-git-dir", "--show-toplevel")
    found = git.run(*asked, check=False)
    name, _, places = found.text.removesuffix("\n").partition("\n")
    gitdir, _, top = places.partition("\n/")
    if name not in FORMATS or not gitdir:  # a bare repository has no third row, and git fails
        said = found.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
        raise _opening_error(" ".join(said.split()) or message, start)
    worktree = Path(f"/{top}") if top else None
    git = git.in_directory(worktree or Path(gitdir))
    return by_git.ByGit(git, Path(gitdir), worktree, FORMATS[name])


def _found(start: str | Path) -> Path:
    """Return the root of the worktree, or the bare repository, that contains ``start``."""
    place = Path(start).resolve()
    signs = (".git", "HEAD")
    return next((at for at in (place, *place.parents) if any((at / sign).exists() for sign in signs)), place)


def shared_permission(config: Config) -> int:
    """Return the file mode bits of ``core.sharedRepository``, as git's ``git_config_perm``.

    They are added to those of the umask if positive and replace them if negative; 0 if not shared.
    """
    word = str(config.get("core.sharedrepository") or "").lower()
    if word in ("all", "world", "everybody", "2"):
        return 0o664
    if word in ("group", "true", "yes", "on", "1"):
        return 0o660
    exact = int(word, 8) & 0o666 if word and set(word) <= set("01234567") else 0
    return -exact


def _opening_error(message: str, start: str | Path) -> Exception:
    lowered = message.lower()
    if "not owned by" in lowered or "dubious ownership" in lowered:
        place = _found(start)
        return UntrustedOwnerError(
            f"detected dubious ownership in repository at '{place}'",
            hint=f"to trust its owner: git config --global --add safe.directory {shlex.quote(str(place))}",
        )
    if "refstorage" in lowered:
        return UnsupportedRepositoryError(
            "this repository keeps its refs as a reftable, which the installed git cannot read",
            hint="install git 2.45 or newer, or there: git refs migrate --ref-format=files",
        )
    if "extension" in lowered:
        return UnsupportedRepositoryError(f"this repository needs a Git feature that theta lacks: {message}")
    return NotARepositoryError(f"cannot open the repository at {start}: {message}")
