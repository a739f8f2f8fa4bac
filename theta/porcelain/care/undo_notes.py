"""The notes of ``theta undo``: the state before the last command of theta, and after it.

Before a command that changes something, refs are noted and the index gets a second name; git and theta
write a new index beside the old one, so that this costs no copy.  When the command has ended, what differs
is noted.  A file of the worktree was written by the command if that is of a kind that writes files, and the
file's change time, as soon as the command has ended, is not before its start.

The second index has one of two names, and the note tells which: replacing the note is one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from theta import _fs, _notes
from theta.git import in_progress, state_files
from theta.git.backends import opening
from theta.git.backends.index_entries import Entry
from theta.git.repository import STORES, Repository
from theta.git.run import redirected
from theta.porcelain.workspace.session import Session

_NOTE: Final = "undo.json"
_INDEXES: Final = ("undo-index", "undo-index-2")
_KEPT: Final = ("refs/heads/", "refs/tags/")
_NAMING: Final = {"branch": "refs/heads/", "cascade": "refs/heads/", "tag": "refs/tags/"}
"""Commands that change the refs that they name."""
_ON_BRANCHES: Final = ("branch", "tag", "rebase", "pull")
"""Commands that may move a ref that is neither at HEAD nor named."""
_CONCLUDED: Final = (state_files.MERGE_HEAD, state_files.CHERRY_PICK_HEAD, state_files.REVERT_HEAD)
"""State files that the next commit removes."""

HeadState = tuple[str, str]
"""The ref at HEAD ("" if detached), and the commit of a detached HEAD."""


@dataclass(frozen=True)
class Before:
    """The state before a command: HEAD, refs, the second name of the index, and what is in progress."""

    session: Session
    index: Path
    started: float
    head: HeadState
    refs: Mapping[str, str]
    operation: str


@dataclass(frozen=True)
class Command:
    """The command that ran.

    Attributes:
        line: what the user typed.
        words: its words; the first is the command.
        can_be_undone: what it changes is known from refs and index.
        losing: it may throw away what was not committed.
        may_be_of_files: if it changed neither refs nor index, it changed files.
        writes: it may write or remove files of the worktree.
    """

    line: str
    words: Sequence[str]
    can_be_undone: bool = True
    losing: bool = False
    may_be_of_files: bool = False
    writes: bool = False


def begin(start: Path) -> Before | None:
    """Note the state before a command at ``start``; None in a repository that nothing can be undone in."""
    if redirected():
        return None
    backend = opening.discovered(start)
    session = Session(Repository(backend))
    repo = session.repo
    if repo.is_read_only or repo.is_bare:
        return None
    session.journal.heal()
    _notes.directory(repo.private)
    index = repo.private / _fs.own_temporary("index")
    started = time.time()
    if repo.index_path.exists():
        _fs.link(repo.index_path, index)
        started = os.stat(index).st_ctime  # by the clock of the file system, whose ticks are coarser
    return Before(session, index, started, head(repo), refs(repo), _operation(repo))


def end(before: Before, command: Command) -> None:
    """Note what the command changed since; a command that changed nothing leaves no note.

    One that cannot be undone, or changed files only, is noted by its line.
    """
    repo = before.session.again().repo
    try:
        body = _changes(before, repo, command.words)
        line, losing = command.line, command.losing
        if reason := _reason(before, repo, command.words, body):
            _notes.write(repo.private / _NOTE, json.dumps({"line": line, "reason": reason}))
        elif body is not None and command.can_be_undone:
            files = _written(before, repo) if command.writes else []
            place = other_index(repo)
            _fs.remove(place)
            if before.index.exists():
                _fs.rename(before.index, place)
            write(repo, {"line": line, "losing": losing, "files": files, "kept": place.name, **body})
        elif losing or command.may_be_of_files or not command.can_be_undone:
            _notes.write(repo.private / _NOTE, json.dumps({"line": line}))
    finally:
        if before.index.exists():
            _fs.remove(before.index)


def read(repo: Repository) -> dict[str, Any]:
    """Return the note of the last command; empty without one."""
    return _notes.read_json(repo.private / _NOTE)


def write(repo: Repository, note: Mapping[str, Any]) -> None:
    """Replace the note, and remove the index that it does not name."""
    _notes.write(repo.private / _NOTE, json.dumps(note))
    if "begun" not in note:
        _fs.remove(other_index(repo))


def index_of(repo: Repository, name: object) -> Path:
    """Return the place of the second index with the ``name`` that a note has."""
    return repo.private / (_INDEXES[1] if name == _INDEXES[1] else _INDEXES[0])


def other_index(repo: Repository) -> Path:
    """Return the place for a second index that the note does not name as kept."""
    kept = index_of(repo, read(repo).get("kept"))
    return repo.private / next(name for name in _INDEXES if name != kept.name)


def head(repo: Repository) -> HeadState:
    """Return what HEAD is."""
    ref, commit = repo.refs.head()
    return ref, "" if ref else commit or ""


def refs(repo: Repository) -> dict[str, str]:
    """Return name -> id of the user's refs; a symbolic one moves with its target, and is left out."""
    return repo.refs.direct(*_KEPT)


def digest(repo: Repository, index: Path) -> str:
    """Return a digest of the entries of an index, without stat data; "" without one."""
    return hashlib.sha256(repo.backend.indexes.listing(index)).hexdigest() if index.exists() else ""


def key(entry: Entry | None) -> tuple[str, int, bool] | None:
    """Return what makes two entries of a path the same."""
    return (entry.oid, entry.mode, entry.intended) if entry is not None else None


def stat(root: Path, path: str) -> os.stat_result | None:
    """Return the stat data of a file; None when there is none, or a parent is no directory."""
    with contextlib.suppress(OSError):
        return os.lstat(root / path) if is_reached(root, path) else None
    return None


def is_reached(root: Path, path: str) -> bool:
    """Return whether no parent of ``path`` is a symbolic link or a file."""
    parents = (root / parent for parent in Path(path).parents[:-1])
    return all(not parent.is_symlink() and (parent.is_dir() or not parent.exists()) for parent in parents)


def _operation(repo: Repository) -> str:
    """Return the name of the operation in progress; "" without one."""
    is_any = state_files.sequencing(repo.gitdir) or state_files.exists(repo.gitdir, *_CONCLUDED)
    return in_progress.current(repo).name if is_any else ""


def _reason(before: Before, repo: Repository, words: Sequence[str], body: Mapping[str, Any] | None) -> str:
    """Return why what a command changed cannot be undone; "" if it can.

    The state files of an operation are not kept; and that a branch was moved by ``rebase --update-refs``, or
    is one that ``branch`` got by another name than its own, is not told from what others did meanwhile.
    """
    if before.operation:
        is_changed = body is not None or _operation(repo) != before.operation
        return f"a {before.operation} was in progress before it" if is_changed else ""
    if words[0] not in _ON_BRANCHES:
        return ""
    moved = _moved(before.refs, refs(repo))
    unknown = moved.keys() & before.refs.keys() - (body or {"refs": {}})["refs"].keys() - elsewhere(repo)
    return f"it is not known whether {min(unknown)} was moved by it" if unknown else ""


def elsewhere(repo: Repository) -> set[str]:
    """Return the branches that other worktrees use."""
    return repo.refs.used_elsewhere()


def _moved(old: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return name -> (old id, new id) of the refs that moved."""
    return {
        name: (old.get(name, ""), now.get(name, ""))
        for name in sorted(old.keys() | now.keys())
        if old.get(name) != now.get(name)
    }


def _own(heads: set[str], words: Sequence[str]) -> set[str]:
    """Return the refs that a command moves: the branches at HEAD, and those that it names.

    Others move meanwhile, too: a user may be long in the editor for the message of a commit.
    """
    prefix = _NAMING.get(words[0])
    return heads | ({f"{prefix}{word}" for word in words[1:]} if prefix else set())


def _followed(repo: Repository, name: str) -> set[str]:
    """Return the ref ``name``, and those that it names if it is symbolic."""
    found: set[str] = set()
    while name.startswith("refs/") and name not in found:
        found.add(name)
        with contextlib.suppress(KeyError):
            name = repo.refs.target(name)
    return found


def _changes(before: Before, repo: Repository, words: Sequence[str]) -> dict[str, Any] | None:
    """Return what a command changed; None when that is nothing.

    Among the refs are the branches at HEAD that did not move: an undo depends on it that they stay.
    """
    there, now = head(repo), refs(repo)
    heads = _followed(repo, before.head[0]) | _followed(repo, there[0])
    own = _own(heads, words)
    moved = {name: ids for name, ids in _moved(before.refs, now).items() if name in own}
    still = {name: (now.get(name, ""),) * 2 for name in heads - moved.keys()}
    indexes = [digest(repo, before.index), digest(repo, repo.index_path)]
    if not moved and there == before.head and indexes[0] == indexes[1]:
        return None
    return {"head": [before.head, there], "refs": moved | still, "indexes": indexes}


def _written(before: Before, repo: Repository) -> list[str]:
    """Return the files that the command, which has just ended, wrote or removed."""
    old, now = _staged(repo, before.index), _staged(repo, repo.index_path)
    differing = [path for path in sorted(old.keys() | now.keys()) if key(old.get(path)) != key(now.get(path))]
    return [path for path in differing if _is_written(repo.worktree, path, before.started, path in now)]


def _is_written(root: Path, path: str, started: float, is_staged: bool) -> bool:
    """Return whether a file is new since; a missing one is if its folder changed, or is gone too."""
    info = stat(root, path)
    if info is None and not is_staged:
        folder = (root / path).parent
        return not folder.exists() or os.stat(folder).st_ctime >= started
    return info is not None and is_staged and info.st_ctime >= started


def _staged(repo: Repository, index: Path) -> dict[str, Entry]:
    found = repo.read_index(index) if index.exists() else []
    return {
        entry.path: entry for entry in found if not entry.stage and not entry.path.startswith(f"{STORES}/")
    }
