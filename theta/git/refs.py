"""Git's refs: branches, tags, remote-tracking branches, the stash, and those of theta."""

from __future__ import annotations

from collections.abc import Iterator

import pygit2


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
        """The id that ref ``name`` comes to; None where it is damaged, or names a branch that is not born."""
        try:
            return str(self._raw.references[name].resolve().target)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def put(self, name: str, oid: str) -> None:
        """Let ref ``name`` be object ``oid``, whatever it was."""
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
