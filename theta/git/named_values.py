"""What git keeps under names: refs, and the settings of its configuration."""

from __future__ import annotations

from collections.abc import Iterator

import pygit2


class Config:
    """Git's configuration, all files of it together, as it is at the time of asking.

    Names are in lower case but for what stands between two dots.
    """

    def __init__(self, found: pygit2.Config) -> None:
        self._found = found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._found)

    def get(self, key: str) -> str | None:
        """The value that counts; None when the key is not set, or has no value."""
        return self._found[key] if key in self._found else None  # noqa: SIM401

    def all(self, key: str) -> list[str]:
        """The values of a key that may be set many times."""
        return [value for value in self._found.get_multivar(key) if value]

    def flag(self, key: str) -> bool:
        """Whether the key is set, to true."""
        return key in self._found and self._found.get_bool(key)


class Refs:
    """The refs by their full names."""

    def __init__(self, raw: pygit2.Repository) -> None:
        self._raw = raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw.references)

    def __contains__(self, name: str) -> bool:
        return name in self._raw.references

    def target(self, name: str) -> str:
        """What ref ``name``, which is there, says: an id, or for a symbolic ref another name."""
        return str(self._raw.references[name].target)

    def resolved(self, name: str) -> str | None:
        """The id that ref ``name`` comes to; None when it is damaged, or names a branch that is not born."""
        try:
            return str(self._raw.references[name].resolve().target)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def put(self, name: str, oid: str) -> None:
        """Set ref ``name`` to object ``oid``, without a look at its old value."""
        self._raw.references.create(name, pygit2.Oid(hex=oid), force=True)

    def remove(self, name: str) -> None:
        """Remove ref ``name``."""
        self._raw.references.delete(name)

    def log(self, name: str) -> list[str]:
        """The ids that ref ``name`` had, the newest first."""
        return [str(line.oid_new) for line in self._raw.references[name].log()]

    def remotes(self) -> list[str]:
        """The names of the remotes."""
        return [name for name in self._raw.remotes.names() if name]


def is_branch_name(name: str) -> bool:
    """Whether a branch may have this name."""
    return bool(name) and pygit2.reference_is_valid_name(f"refs/heads/{name}")
