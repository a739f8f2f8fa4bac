"""Git's configuration and refs."""

from __future__ import annotations

from collections.abc import Iterator

import pygit2


class Config:
    """Git's current configuration from all its files.

    Section and key are in lower case, a subsection is as written.
    """

    def __init__(self, found: pygit2.Config) -> None:
        self._found = found

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._found)

    def get(self, key: str) -> str | None:
        """Return the effective value; None when the key is not set or has no value."""
        return self._found[key] if key in self._found else None  # noqa: SIM401

    def all(self, key: str) -> list[str]:
        """Return all values of a key that may be set many times."""
        return [value for value in self._found.get_multivar(key) if value]

    def flag(self, key: str) -> bool:
        """Return whether the key is set to true."""
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
        """Return the target of the existing ref ``name``: an id, or a name for a symbolic ref."""
        return str(self._raw.references[name].target)

    def resolved(self, name: str) -> str | None:
        """Return the id that ref ``name`` resolves to; None for a damaged ref or an unborn branch."""
        try:
            return str(self._raw.references[name].resolve().target)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def put(self, name: str, oid: str) -> None:
        """Set ref ``name`` to object ``oid``, whatever its old value."""
        self._raw.references.create(name, pygit2.Oid(hex=oid), force=True)

    def remove(self, name: str) -> None:
        """Remove ref ``name``."""
        self._raw.references.delete(name)

    def log(self, name: str) -> list[str]:
        """Return the ids in the reflog of ``name``, newest first."""
        return [str(line.oid_new) for line in self._raw.references[name].log()]

    def remotes(self) -> list[str]:
        """Return the names of the remotes."""
        return [name for name in self._raw.remotes.names() if name]


def is_branch_name(name: str) -> bool:
    """Return whether a branch may have this name."""
    return bool(name) and pygit2.reference_is_valid_name(f"refs/heads/{name}")
