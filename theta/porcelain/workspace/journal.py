"""The journal of a command, the lock it holds, and the undoing of a command that was killed.

The journal has the time the command started and the token of its child processes.  A process that holds
the lock and finds a journal knows that its writer is dead; a git started by it may still run.  What such
a command leaves are git's lock files, index copies, temporary files, and half a merge.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from theta import _fs, _notes
from theta.errors import MALFORMED, BusyError, DiskError, NoSpaceError, ThetaError
from theta.git import processes
from theta.git.repository import Repository
from theta.git.run import GitFailedError
from theta.porcelain.workspace import rollback, stale_locks
from theta.store.odb import joined_packs, pack_keeps

_JOURNAL: Final = "journal"
_DRIVING: Final = "driving-"
_UNFILLED: Final = "unfilled"
_LONG: Final = 86_400.0
"""Seconds after which a temporary file of another machine is one of the dead, and that no command takes."""


class Journal:
    """The journal of one command in one worktree.

    ``locked``: this command, or the one that runs it, holds theta's lock of the worktree.
    """

    patience = 1.0
    """Seconds to wait for the lock."""

    def __init__(self, repo: Repository, *, locked: bool = False) -> None:
        self._repo = repo
        self._place = repo.private / _JOURNAL
        self.locked = locked
        self.unchanged: Collection[str] = ()
        """Checkpoints whose files were found to be as in the index, whatever stat data it has of them."""

    # -- notes ----------------------------------------------------------------------

    def moving(self, *toward: str, refs_last: bool = False, renames: Iterable[tuple[str, str]] = ()) -> None:
        """Note the state before git changes the files of the worktree to those of commits ``toward``.

        ``refs_last``: index and files become those of one new commit, before any ref names it.
        ``renames`` are the paths that git gives other ones before it writes the index.
        """
        _notes.write(self._repo.private / _UNFILLED, "")  # first: a failure forgets the journal, not this
        note = rollback.mark(self._repo, toward, renames, self.unchanged)
        self._note(moving=note | {"refs_last": refs_last})

    def applying(self, tree: str) -> None:
        """Note that ``tree`` is written to the index while git has no merge in progress."""
        self._note(applying={"head": self._repo.head(), "tree": tree})

    def applied(self) -> None:
        """Note that git has the merge in progress."""
        self._note(applying=None)

    def putting_aside(self, names: Mapping[str, str]) -> None:
        """Note untracked files that are renamed (path -> new path), until others are written there."""
        self._note(aside=dict(names))

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
        disk, :class:`BusyError` if the index is locked; then the next command puts the files back.
        """
        note = _read(self._place)
        if note is None:
            return []
        if killed:
            _unlock(self._repo, note)
        return rollback.undo(self._repo, note, killed=killed)

    def _give_up(self, *, killed: bool) -> None:
        """Undo this command, which failed, of a full disk during a merge for example, or of a killed git."""
        with contextlib.suppress(ThetaError):
            if (note := _read(self._place)) is not None:
                if killed:
                    _unlock(self._repo, note)
                rollback.undo(self._repo, note)
            if self._place.exists():
                _notes.drop(self._place)

    def unlock(self) -> None:
        """Remove the lock files of a git of this command that was killed."""
        if (note := _read(self._place)) is not None:
            _unlock(self._repo, note)

    # -- locks ----------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self, *, alone: bool = False) -> Iterator[None]:
        """Hold theta's lock of the worktree, and first undo dead commands; may be nested.

        Worktrees of one repository do not exclude each other: git locks the objects and refs they share.
        If ``alone``, no other worktree is changed meanwhile, and nothing is stored.
        Lock files that a dead git left there are removed when no other theta runs.
        """
        if self.locked:
            yield
            return
        with contextlib.ExitStack() as stack:
            lock = _notes.lock(self._repo.private / "lock", patience=self.patience)
            stack.callback(lock.release)
            _heal(self._repo)
            stack.enter_context(self.beside_others(shared=not alone))
            stack.callback(setattr, self, "locked", False)
            self.locked = True
            with self._journal_file(_JOURNAL):
                yield

    @contextlib.contextmanager
    def beside_others(self, *, shared: bool = True) -> Iterator[None]:
        """Hold the lock of all that store objects, in any worktree; nobody else does unless ``shared``."""
        users = _notes.lock(self._repo.shared / stale_locks.USERS, shared=shared, patience=self.patience)
        try:
            yield
        finally:
            users.release()

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Write a journal for a git of the user without taking the lock, because git may start theta.

        Dead commands are undone first, unless a theta is running.  Errors of writing are ignored: git
        reports them itself.
        """
        self.heal()
        with self._journal_file(f"{_DRIVING}{os.urandom(16).hex()}", needed=False):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep a journal of a command that may lock the index, if only to refresh its stat data."""
        with contextlib.nullcontext() if processes.TOKEN in self._repo.marks else self.driving():
            yield

    @property
    def is_begun(self) -> bool:
        """Whether a command has noted what it is about to change."""
        return any(_read(place) for place in _journals(self._repo))

    @property
    def is_left(self) -> bool:
        """Whether a dead command may have left something that :meth:`heal` undoes."""
        return _is_needed(self._repo) and not any(_is_of_the_living(place) for place in _journals(self._repo))

    @property
    def owes_files(self) -> bool:
        """Whether a command that died or failed may have left manifests in place of files."""
        if not (self._repo.private / _UNFILLED).exists():
            return False
        return not any(map(_is_of_the_living, _journals(self._repo)))  # that one is about to fill them in

    def filled(self) -> None:
        """Note that all files are filled in."""
        _notes.drop(self._repo.private / _UNFILLED)

    def heal(self) -> None:
        """Undo dead commands, unless another theta holds the lock."""
        if not _is_needed(self._repo):
            return
        with contextlib.suppress(BusyError, DiskError, NoSpaceError):
            lock = _notes.lock(self._repo.private / "lock", patience=0)
            try:
                _heal(self._repo)
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
        started = time.time()
        body = {"token": token, "started": started, "owner": processes.this()}
        try:
            with contextlib.nullcontext() if needed else contextlib.suppress(DiskError, NoSpaceError):
                _notes.write(place, json.dumps(body))
            yield
            if place.exists():
                _notes.drop(place)
        except Exception as error:
            killed = isinstance(error, GitFailedError) and error.code < 0
            self._give_up(killed=killed)
            raise
        finally:
            self._place = outer
            self._repo.marks.clear()
            self._repo.marks.update(marks)


def _heal(repo: Repository) -> None:
    """Undo dead commands; the caller holds the lock of this worktree.

    Raises :class:`NoSpaceError` on a full disk, :class:`BusyError` while a git is at work whose lock of the
    index this may be.  A journal stays until its command is undone.
    """
    dead = list(_dead(repo))
    for _, note in dead:
        _wait_for(note["token"])
    for temporary in [path for place in _places(repo) for path in _temporaries(place)]:
        _fs.remove(temporary)
    for folder in _folders(repo):
        _fs.remove_tree(folder)
    if dead:
        pack_keeps.remove_stale(repo.commondir / "objects" / "pack")  # first: half a pack has such a file
        since, earliest = (min(note[key] for _, note in dead) for key in ("started", "earliest"))
        joined_packs.remove_orphans(repo, since, earliest)
    for journal, note in dead:
        is_ours = processes.is_of_this_machine(str(note.get("owner", "")))  # the gits of others are not seen
        held = is_ours and stale_locks.remove(repo, note["earliest"], note["until"])
        rollback.undo(repo, note)
        if held:
            _remember_locks(repo, note)
        _notes.write(repo.private / _UNFILLED, "")
        _notes.drop(journal)


def _is_needed(repo: Repository) -> bool:
    """Return whether a dead command may have left something.

    A command that was killed as it wrote its journal has left only the temporary file of it.
    """
    left = any(True for place in _own_places(repo) for _ in _temporaries(place))
    return bool(_journals(repo)) or left or bool(_folders(repo))


def _journals(repo: Repository) -> list[Path]:
    """Return the journals of running and dead commands."""
    journal = repo.private / _JOURNAL
    return [*([journal] if journal.exists() else []), *repo.private.glob(f"{_DRIVING}*")]


def _is_of_the_living(journal: Path) -> bool:
    note = _read(journal)
    return note is not None and _is_alive(note)


def _is_alive(note: dict[str, Any]) -> bool:
    return processes.is_alive(str(note.get("owner", "")), note["started"])


def _dead(repo: Repository) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the journals of dead commands and their content."""
    for journal in _journals(repo):
        note = _read(journal)
        if note is None:
            with contextlib.suppress(FileNotFoundError):  # its command has ended meanwhile
                yield journal, _torn(journal)
        elif journal.name == _JOURNAL or not _is_alive(note):
            yield journal, note


def _torn(journal: Path) -> dict[str, Any]:
    """Return what is known of a command whose journal cannot be read: with the power its gits went, too.

    When it began is not known: the journal is written anew with each note, and what it left may be older.
    """
    written = os.lstat(journal).st_mtime
    known = {"token": os.urandom(16).hex(), "owner": processes.this()}
    return known | {"started": written, "earliest": written - _LONG, "until": math.inf}


def _places(repo: Repository) -> list[Path]:
    """Return the directories that may contain temporary files."""
    found = [*_own_places(repo), repo.private / "bin", repo.commondir / "objects" / "pack", repo.gitdir]
    found += [repo.commondir / "hooks", repo.commondir / "info", repo.gitdir / "info"]
    return [*found, repo.worktree] if not repo.is_bare else found


def _own_places(repo: Repository) -> list[Path]:
    """Return those of them in which theta keeps its notes and drafts."""
    return [repo.private, repo.shared, repo.private / "tmp", repo.shared / "staged"]


def _read(journal: Path) -> dict[str, Any] | None:
    """Return the content of ``journal``; None when it cannot be read."""
    try:
        note = _notes.read_json(journal)
        until = float(note.get("until", math.inf))
        started, token = float(note["started"]), str(note["token"])
        return {**note, "token": token, "started": started, "earliest": started, "until": until}
    except MALFORMED:
        return None


def _unlock(repo: Repository, note: dict[str, Any]) -> None:
    """Remove the lock files of a dead git; a later command removes those that something living may hold."""
    if stale_locks.remove(repo, note["earliest"], note["until"]):
        _remember_locks(repo, note)


def _remember_locks(repo: Repository, note: dict[str, Any]) -> None:
    """Leave a journal by which a later command removes the lock files of a dead git that stay."""
    kept = {"token": note["token"], "owner": note.get("owner", ""), "started": note["earliest"]}
    kept["until"] = min(note["until"], time.time())
    _notes.write(repo.private / f"{_DRIVING}{os.urandom(16).hex()}", json.dumps(kept))


def _temporaries(place: Path) -> Iterator[Path]:
    """Yield the temporary files of dead processes."""
    return (path for path in _of_the_dead(place) if path.is_file())


def _folders(repo: Repository) -> list[Path]:
    """Return the temporary folders of dead processes."""
    return [path for path in _of_the_dead(repo.private / "tmp") if path.is_dir() and not path.is_symlink()]


def _of_the_dead(place: Path) -> Iterator[Path]:
    """Yield what is named as temporaries are, which bear the ids of their processes, if these ended.

    Of a process of another machine nobody knows whether it ended: what it wrote is left alone for a day.
    """
    for path in place.glob(f"{_fs.TEMPORARY}*"):
        pid, _, rest = path.name.removeprefix(_fs.TEMPORARY).partition("_")
        is_known = rest.startswith(f"{_fs.machine()}_") or _is_old(path)
        if is_known and pid.isdecimal() and not processes.exists(int(pid)):
            yield path


def _is_old(path: Path) -> bool:
    try:
        return os.lstat(path).st_mtime < time.time() - _LONG
    except FileNotFoundError:
        return False


def _wait_for(token: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while children := processes.children_of(token):
        if time.monotonic() > deadline:
            raise BusyError(f"git (process {children[0]}) of an earlier theta command is still running")
        time.sleep(0.05)
