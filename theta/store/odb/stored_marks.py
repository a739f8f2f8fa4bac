"""Marks of checkpoints that a process stored by themselves, and that no commit names yet.

A mark is a file ``<commondir>/theta/stored/<manifest>-<random>`` with the mark of the process that stored the
checkpoint.  It is ``writing-<random>`` while that is being stored, and goes with the commit, or once the
process has ended.  A ref ``refs/theta/stored/<manifest>-<time>`` keeps the objects from ``git repack -ad``
and ``git gc --prune=now``, even when the process ends before another one commits; it goes with the commit,
or after two weeks, as git keeps what nothing names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.git import processes
from theta.git.repository import Repository

REFS: Final = "refs/theta/stored/"
_WRITING: Final = "writing"
LAPSE: Final = 14 * 86_400
"""Seconds after which nobody is expected to commit what was stored."""


def begin(repo: Repository) -> Path:
    """Mark that this process is about to store a checkpoint; return the place of the mark."""
    place = _directory(repo) / f"{_WRITING}-{os.urandom(8).hex()}"
    _notes.write(place, processes.this())
    return place


def end(place: Path, manifest: str | None) -> None:
    """Let the mark at ``place`` be that of ``manifest``, which is stored; or remove it if None."""
    if manifest is None:
        _notes.drop(place)
    else:
        _fs.rename(place, place.with_name(place.name.replace(_WRITING, manifest, 1)))


def hold(repo: Repository, manifest: str, tree: str) -> None:
    """Keep ``tree``, which names ``manifest`` and all that it names."""
    repo.refs.put({f"{REFS}{manifest}-{int(time.time())}": tree})


def forget(repo: Repository, manifests: Collection[str] = (), *, age: float = LAPSE) -> None:
    """Remove the refs of ``manifests``, and those of at least ``age`` seconds."""
    before = time.time() - age
    for name in [name for name in repo.refs if name.startswith(REFS)]:
        manifest, _, written = name.removeprefix(REFS).partition("-")
        if manifest in manifests or not written.isdecimal() or int(written) <= before:
            repo.refs.remove(name)


def drop(repo: Repository, manifests: Iterable[str]) -> None:
    """Remove the marks and refs of ``manifests``, which a commit names."""
    named = {*manifests}
    if named:
        forget(repo, named)
    for manifest in named:
        for place in _directory(repo).glob(f"{manifest}-*"):
            _notes.drop(place)


def are_left(repo: Repository) -> bool:
    """Return whether a running process waits for the commit of what it stored; marks of others go."""
    waiting = False
    for place in _directory(repo).glob("*-*"):
        if processes.is_alive(_notes.read(place) or "", _notes.written(place)):
            waiting = True
        else:
            _notes.drop(place)
    return waiting


def _directory(repo: Repository) -> Path:
    return repo.shared / "stored"
