"""Git's configuration as git itself tells it, with what the environment has of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from theta.git import state_files
from theta.git.run import Git

_TRUE: Final = ("true", "yes", "on")


class GitSettings:
    """The configuration of the repository at ``gitdir``."""

    def __init__(self, git: Git, gitdir: Path) -> None:
        self._git, self._gitdir = git, gitdir
        self._read: tuple[object, GitConfig] | None = None

    @property
    def config(self) -> GitConfig:
        """The configuration; it is read again when a file of the repository's own changed."""
        shared = state_files.common_directory(self._gitdir)
        seen = [
            state_files.signature(place) for place in (shared / "config", self._gitdir / "config.worktree")
        ]
        if self._read is None or self._read[0] != seen:
            self._read = seen, GitConfig(self._git)
        return self._read[1]


class GitConfig:
    """Git's configuration from all its files, as it was when it was first read."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._found: dict[str, list[str | None]] | None = None

    @property
    def _values(self) -> dict[str, list[str | None]]:
        if self._found is None:
            self._found = {}
            for row in self._git.lines("config", "-z", "--list"):
                key, sign, value = row.partition("\n")
                self._found.setdefault(key, []).append(value if sign else None)
        return self._found

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, key: str) -> str | None:
        """Return the effective value; None when the key is not set or has no value."""
        return self._values.get(key, [None])[-1]

    def all(self, key: str) -> list[str]:
        """Return all values of a key that may be set many times."""
        return [value for value in self._values.get(key, ()) if value]

    def flag(self, key: str) -> bool:
        """Return whether the key is set to true."""
        value = (self.get(key) or "").lower() if self.get(key) is not None else "true"
        return key in self and (value in _TRUE or (value.isdecimal() and int(value) != 0))
