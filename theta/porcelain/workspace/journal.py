"""The journal of a command: what must be known if it is killed, and the lock that it works under."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from theta import _notes
from theta.errors import BusyError, DiskError, NoSpaceError
from theta.git import processes
from theta.git.repository import Repository
from theta.porcelain.workspace import recovery, rollback


class Journal:
    """The journal of one command in one worktree.

    ``locked``: theta's lock of the worktree is held, by this command or by the one that it runs for.
    """

    def __init__(self, repo: Repository, *, locked: bool = False) -> None:
        self._repo = repo
        self._place = repo.private / recovery.JOURNAL
        self.locked = locked

    # -- what is under way -----------------------------------------------------------

    def moving(self, *toward: str) -> None:
        """Note the state before git changes files of the worktree toward those of commits ``toward``."""
        self._note(moving=rollback.mark(self._repo, toward))

    def applying(self, tree: str) -> None:
        """Note that ``tree`` comes into the index, while git does not know of a merge."""
        self._note(applying={"head": self._repo.head(), "tree": tree})

    def applied(self) -> None:
        """Note that git knows of the merge."""
        self._note(applying=None)

    def settled(self) -> None:
        """Note that git knows of the merge and has its files."""
        self._note(applying=None, moving=None)

    def _note(self, **facts: Any) -> None:
        found = _notes.read_json(self._place)
        durable = any(facts.values())  # for the next command after a power failure
        _notes.write(self._place, json.dumps({**found, **facts}), durable=durable)

    def undo(self, *, killed: bool = False) -> list[str]:
        """Put back what a git that failed changed in the worktree; return the files that stay changed.

        ``killed``: it left its locks.  Raises :class:`NoSpaceError` where the disk is full; the next
        command puts them back then.
        """
        note = recovery.read(self._place)
        if note is None:
            return []
        if killed:
            recovery.unlock(self._repo, note["started"])
        return rollback.undo(self._repo, note)

    # -- whose turn it is ------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold theta's lock: one changing command a worktree, and what dead ones left healed first.

        Worktrees of one repository do not exclude each other: what they share (objects, refs) git
        locks, and the lock files that a dead git left there are removed when no theta runs anywhere.
        A block within such a block holds it already.
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
            with self._written(recovery.JOURNAL):
                yield

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Note that a git of the user's runs, without the lock: it may start theta itself.

        What dead commands left is healed first, unless a theta is at work.  Where nothing can be
        written, git tells that itself.
        """
        self.heal()
        with self._written(f"{recovery.DRIVING}{uuid.uuid4().hex}", needed=False):
            yield

    def heal(self) -> None:
        """Heal what a dead command left, if there is anything and nobody is at work."""
        if not recovery.notes(self._repo):
            return
        with contextlib.suppress(BusyError, DiskError, NoSpaceError):
            lock = _notes.lock(self._repo.private / "lock", patience=0)
            try:
                recovery.heal(self._repo)
            finally:
                lock.release()

    @contextlib.contextmanager
    def _written(self, name: str, *, needed: bool = True) -> Iterator[None]:
        """Write down whose children git's are for the time of the block; a killed theta leaves it."""
        place, outer, marks = self._repo.private / name, self._place, dict(self._repo.marks)
        token = uuid.uuid4().hex
        self._place = place
        self._repo.marks[processes.TOKEN] = token
        body = {"token": token, "started": time.time(), "owner": processes.this()}
        try:
            with contextlib.nullcontext() if needed else contextlib.suppress(DiskError, NoSpaceError):
                _notes.write(place, json.dumps(body))
            yield
            if place.exists():
                _notes.drop(place)
        except Exception:
            recovery.give_up(self._repo, place)
            raise
        finally:
            self._place = outer
            self._repo.marks.clear()
            self._repo.marks.update(marks)
