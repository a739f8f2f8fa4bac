"""Git's configuration, all files of it together, as it is at the time of asking."""

from __future__ import annotations

from collections.abc import Iterator

import pygit2


class Config:
    """The settings by their names, in lower case but for what stands between two dots."""

    def __init__(self, found: pygit2.Config) -> None:
        self._found = found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._found)

    def get(self, key: str) -> str | None:
        """The value that counts; None where the key is not set, or has no value."""
        return self._found[key] if key in self._found else None  # noqa: SIM401

    def all(self, key: str) -> list[str]:
        """The values of a key that may be set many times."""
        return [value for value in self._found.get_multivar(key) if value]

    def flag(self, key: str) -> bool:
        """Whether the key is set, to true."""
        return key in self._found and self._found.get_bool(key)
