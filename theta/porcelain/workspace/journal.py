"""The journal of a command, from which a killed one is undone, and the lock it holds."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from theta import _notes
from theta.errors import BusyError, DiskError, NoSpaceError
from theta.git import processes
from theta.git.repository import Repository
from theta.git.run import GitFailedError
from theta.porcelain.workspace import recovery, rollback


class Journal:
    """The journal of one command in one worktree.

    ``locked``: this command, or the one that runs it, holds theta's lock of the worktree.
    """

    def __init__(self, repo: Repository, *, locked: bool = False) -> None:
        self._repo = repo
        self._place = repo.private / recovery.JOURNAL
        self.locked = locked

    # -- notes ----------------------------------------------------------------------

    def moving(self, *toward: str) -> None:
        """Note the state before git changes the files of the worktree to those of commits ``toward``."""
        self._note(moving=rollback.mark(self._repo, toward))

    def applying(self, tree: str) -> None:
        """Note that ``tree`` is written to the index while git has no merge in progress."""
        self._note(applying={"head": self._repo.head(), "tree": tree})

    def applied(self) -> None:
        """Note that git has the merge in progress."""
        self._note(applying=None)

    def settled(self) -> None:
        """Note that git has the merge in progress and its files are written."""
        self._note(applying=None, moving=None)

    def dating_back(self, paths: Iterable[str]) -> None:
        """Note that files are about to be written with a time in the past, until the command ends."""
        known = _notes.read_json(self._place).get("dated_back", [])
        self._note(durable=False, dated_back=[*known, *paths])

    def _note(self, *, durable: bool = True, **facts: Any) -> None:
        found = _notes.read_json(self._place)
        durable = durable and any(facts.values())  # for the next command after a power failure
        _notes.write(self._place, json.dumps({**found, **facts}), durable=durable)

    def undo(self, *, killed: bool = False) -> list[str]:
        """Put back the files that a failed git changed; return the files that stay changed.

        If git was ``killed``, its lock files are removed first.  Raises :class:`NoSpaceError` on a full
        disk; then the next command puts the files back.
        """
        note = recovery.read(self._place)
        if note is None:
            return []
        if killed:
            recovery.unlock(self._repo, note["started"])
        return rollback.undo(self._repo, note, killed=killed)

    def unlock(self) -> None:
        """Remove the lock files of a git of this command that was killed."""
        if (note := recovery.read(self._place)) is not None:
            recovery.unlock(self._repo, note["started"])

    # -- locks ----------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold theta's lock of the worktree, and first undo dead commands; may be nested.

        Worktrees of one repository do not exclude each other: git locks the objects and refs they share.
        Lock files that a dead git left there are removed when no other theta runs.
        """
        if self.locked:
            yield
            return
        with contextlib.ExitStack() as stack:
            lock = _notes.lock(self._repo.private / "lock")
            stack.callback(lock.release)
            recovery.heal(self._repo)
            users = _notes.lock(self._repo.shared / recovery.USERS, shared=True)
            stack.callback(users.release)
            stack.callback(setattr, self, "locked", False)
            self.locked = True
            with self._journal_file(recovery.JOURNAL):
                yield

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Write a journal for a git of the user without taking the lock, because git may start theta.

        Dead commands are undone first, unless a theta is running.  Errors of writing are ignored: git
        reports them itself.
        """
        self.heal()
        with self._journal_file(f"{recovery.DRIVING}{os.urandom(16).hex()}", needed=False):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep a journal of a command that may lock the index, if only to refresh its stat data."""
        with contextlib.nullcontext() if processes.TOKEN in self._repo.marks else self.driving():
            yield

    def heal(self) -> None:
        """Undo dead commands, unless another theta holds the lock."""
        if not recovery.is_needed(self._repo):
            return
        with contextlib.suppress(BusyError, DiskError, NoSpaceError):
            lock = _notes.lock(self._repo.private / "lock", patience=0)
            try:
                recovery.heal(self._repo)
            finally:
                lock.release()

    @contextlib.contextmanager
    def _journal_file(self, name: str, *, needed: bool = True) -> Iterator[None]:
        """Keep the journal ``name`` during the block; a killed theta leaves it behind.

        It has the token in the environment of all child processes, by which they are found.
        """
        place, outer, marks = self._repo.private / name, self._place, dict(self._repo.marks)
        token = os.urandom(16).hex()
        self._place = place
        self._repo.marks[processes.TOKEN] = token
        body = {"token": token, "started": time.time(), "owner": processes.this()}
        try:
            with contextlib.nullcontext() if needed else contextlib.suppress(DiskError, NoSpaceError):
                _notes.write(place, json.dumps(body))
            yield
            if place.exists():
                _notes.drop(place)
        except Exception as error:
            killed = isinstance(error, GitFailedError) and error.code < 0
            recovery.give_up(self._repo, place, killed=killed)
            raise
        finally:
            self._place = outer
            self._repo.marks.clear()
            self._repo.marks.update(marks)
