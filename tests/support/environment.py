"""Isolating a test session from the user's machine, in both directions.

The home directory, git's configuration, identity and clock, the terminal and the language are fixed, so that
commit ids and output are constant.  ``check_isolation`` verifies it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import disk_usage
from typing import Final

import pygit2
from pygit2.enums import ConfigLevel

ROOT: Final = Path(__file__).resolve().parents[2]
"""The top of the source tree."""

EPOCH: Final = 1112911993
"""The start of the fixed clock: the time of the first commit of Git itself."""

_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 8 << 30

IDENTITY: Final = "Ada Tester <ada@example.com>"

GIT_CONFIG: Final = """\
[user]
    name = Ada Tester
    email = ada@example.com
[init]
    defaultBranch = main
[gc]
    # Commits of the fixed clock look decades old; those of a user are new, and their reflog keeps
    # what they name alive.
    reflogExpire = never
    reflogExpireUnreachable = never
[maintenance]
    auto = false
"""

_DROPPED: Final = re.compile(
    "CLICOLOR|CLICOLOR_FORCE|COLORTERM|EDITOR|EMAIL|FORCE_COLOR|LANGUAGE|LESS|NO_COLOR|PAGER"
    "|GNUPGHOME|PYTHONDONTWRITEBYTECODE|PYTHONUNBUFFERED|PYTHONWARNINGS|TMUX|VISUAL|(GIT|GPG|LC|SSH|THETA|XDG)_.*"
)

_FORMS: Final = ("GIT_DEFAULT_HASH", "GIT_DEFAULT_REF_FORMAT")
"""Variables that stay: the format of the repositories in which a session runs its tests."""


def hermetic_environment(home: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a test session: ``base`` without the user's settings."""
    kept = {name: value for name, value in base.items() if name in _FORMS or not _DROPPED.fullmatch(name)}
    search = [str(Path(sys.executable).parent), base.get("PATH", os.defpath)]
    modules = [str(ROOT), *filter(None, [base.get("PYTHONPATH")])]
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_AUTO_GC": "0",
        "GIT_CEILING_DIRECTORIES": os.pathsep.join([str(ROOT), tempfile.gettempdir()]),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_EDITOR": "true",
        **dated(0),
        "COLUMNS": "100",
        "LINES": "40",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PATH": os.pathsep.join(search),
        "PYTHONPATH": os.pathsep.join(modules),
        "NUMBA_CACHE_DIR": str(numba_cache(base)),
        "THETA_KERNEL_WORKERS": "0",
    }


def dated(ticks: int) -> dict[str, str]:
    """Return the variables that set git's clock to ``ticks`` minutes after :data:`EPOCH`."""
    moment = f"{EPOCH + 60 * ticks} +0000"
    return {"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}


def numba_cache(base: Mapping[str, str]) -> Path:
    """Return the directory of compiled kernels, which all workers and sessions share.

    Its name is a digest of all kernel sources, because numba recompiles a cached kernel only if its own file
    changes, not for a kernel that it calls; and of ``NUMBA_BOUNDSCHECK``, which is not in numba's key.
    """
    if chosen := base.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    digest = hashlib.sha256(base.get("NUMBA_BOUNDSCHECK", "").encode())
    for source in sorted((ROOT / "theta_native").rglob("*.py")):
        digest.update(source.read_bytes())
    cache = Path(base.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "theta-tests" / "numba" / digest.hexdigest()[:16]


def use_memory() -> None:
    """Use a large enough file system in memory for temporary files, if there is one.

    theta and git sync all files they write, and each sync takes milliseconds on a disk.  No test depends on
    the disk.
    """
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and disk_usage(_MEMORY).free > _ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def enter(home: Path) -> None:
    """Use ``home`` as the home directory of this process and its children."""
    environment = hermetic_environment(home, os.environ)
    Path(environment["NUMBA_CACHE_DIR"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / ".gitconfig").write_text(GIT_CONFIG)
    os.environ.clear()
    os.environ.update(environment)
    # libgit2 read the old HOME when it was loaded.
    for level, directory in search_paths(home).items():
        pygit2.settings.search_path[level] = directory


def search_paths(home: Path) -> dict[ConfigLevel, str]:
    """Return the directory of libgit2's configuration for each level; none for the system's, as for git."""
    return {
        ConfigLevel.PROGRAMDATA: str(home / "none"),
        ConfigLevel.SYSTEM: "",
        ConfigLevel.XDG: str(home / ".config" / "git"),
        ConfigLevel.GLOBAL: str(home),
    }


def check_isolation(home: Path) -> None:
    """Raise ``AssertionError`` if git or libgit2 would read anything outside ``home``."""
    listing = ["git", "config", "--list", "--show-origin", "--name-only", "-z"]
    fields = subprocess.run(listing, cwd=home, check=True, capture_output=True, text=True).stdout
    origins = set(fields.split("\0")[:-1:2])
    assert origins == {f"file:{home / '.gitconfig'}"}, f"git reads configuration from {origins}"
    author = ["git", "var", "GIT_AUTHOR_IDENT"]
    identity = subprocess.run(author, cwd=home, check=True, capture_output=True, text=True).stdout.strip()
    assert identity == f"{IDENTITY} {EPOCH} +0000", f"git commits as {identity}"
    for level, directory in search_paths(home).items():
        found = pygit2.settings.search_path[level]
        assert found == directory, f"libgit2 looks for {level.name} configuration in {found}"
    assert Path.home() == home, f"the home directory is {Path.home()}"
