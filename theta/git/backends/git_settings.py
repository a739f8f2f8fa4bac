"""Git's configuration as git itself tells it, with what the environment has of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from theta.git import state_files
from theta.git.run import Git

_COMMAND: Final = "command"
"""The scope of what the command line and the environment add (git-config(1), SCOPES)."""
_TRUE: Final = ("true", "yes", "on")


class GitSettings:
    """The configuration of the repository at ``gitdir``; it is read again when a file of its own changed."""

    def __init__(self, git: Git, gitdir: Path) -> None:
        self._git, self._gitdir = git, gitdir
        self._read: tuple[object, _Listing] | None = None

    @property
    def config(self) -> GitConfig:
        """The configuration."""
        return self._listing.config

    @property
    def lasting(self) -> GitConfig:
        """The configuration of files: without what ``-c`` and the environment add, which theta does too."""
        return self._listing.lasting

    @property
    def _listing(self) -> _Listing:
        shared = state_files.common_directory(self._gitdir)
        seen = [
            state_files.signature(place) for place in (shared / "config", self._gitdir / "config.worktree")
        ]
        if self._read is None or self._read[0] != seen:
            self._read = seen, _Listing(self._git)
        return self._read[1]


class _Listing:
    """The list of settings that git prints, as it was when it was first asked for."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self.config, self.lasting = GitConfig(self), GitConfig(self, lasting=True)

    @cached_property
    def rows(self) -> list[tuple[str, str, str | None]]:
        """The scope of each setting, its key, and its value (None of a key alone), in the order of git."""
        fields = self._git.lines("config", "-z", "--list", "--show-scope")
        found = []
        for scope, text in zip(fields[::2], fields[1::2], strict=True):
            key, sign, value = text.partition("\n")
            found.append((scope, key, value if sign else None))
        return found


class GitConfig:
    """Git's configuration as it is listed; ``lasting``: without what holds for one command only."""

    def __init__(self, listing: _Listing, *, lasting: bool = False) -> None:
        self._listing, self._lasting = listing, lasting

    @cached_property
    def _values(self) -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        for scope, key, value in self._listing.rows:
            if not (self._lasting and scope == _COMMAND):
                found.setdefault(key, []).append(value)
        return found

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


def remotes(config: Iterable[str]) -> list[str]:
    """Return the names of the remotes that have settings among ``config``."""
    keys = (key.split(".") for key in config if key.startswith("remote."))
    return sorted({".".join(words[1:-1]) for words in keys if len(words) > 2})
