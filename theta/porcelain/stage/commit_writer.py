"""Commits of trees that no index has, without a process for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from theta.errors import UsageError
from theta.porcelain.workspace.session import Change, Session

_PEOPLE: Final = ("AUTHOR", "COMMITTER")


class CommitWriter:
    """The author and the committer of a program's commits; git is asked for them once."""

    def __init__(self) -> None:
        self._people: tuple[str, ...] = ()

    def ask(self, session: Session) -> None:
        """Ask git who commits; raises :class:`IdentityError` if it has no name for the user."""
        if not self._people:
            self._people = tuple(map(session.repo.identity, _PEOPLE))

    def write(
        self,
        session: Session,
        change: Change,
        tree: str,
        parent: str | None,
        text: str,
        merged: Sequence[str] = (),
    ) -> str:
        """Write a commit and make it durable, with all objects of ``change``; return its id.

        ``merged`` are further parents.

        Git itself makes it where the environment sets its date.  Raises :class:`IdentityError` where
        git has no name for the user, and :class:`UsageError` for a message that no commit can have.
        """
        git, parents = session.repo.git(), [*([parent] if parent else []), *merged]
        if "\0" in text:
            raise UsageError("a message cannot have a NUL byte")
        if any(f"GIT_{who}_DATE" in git.environment() for who in _PEOPLE):
            change.store()
            parts = [word for one in parents for word in ("-p", one)]
            words = ("commit-tree", tree, *parts, "-F", "-")
            return git.run(*words, stdin=text.encode()).text.strip()
        self.ask(session)
        commit = change.pack.commit(_commit(tree, parents, self._people, text))
        change.store()
        return commit


def _commit(tree: str, parents: Sequence[str], people: tuple[str, ...], text: str) -> bytes:
    """Return the bytes of a commit of this moment."""
    now = time.time()
    date = f"{int(now)} {time.strftime('%z', time.localtime(now))}"
    rows = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    rows += [f"{who.lower()} {name} {date}" for who, name in zip(_PEOPLE, people, strict=True)]
    return "\n".join([*rows, "", text]).encode("utf-8", "surrogateescape")
