"""Marks of checkpoints that a process stored by themselves, and that no commit names yet.

A mark is a file ``<commondir>/theta/stored/<manifest>-<random>`` with the mark of the process that stored the
checkpoint.  It is ``writing-<random>`` while that is being stored, and goes with the commit, or once the
process has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.git import processes
from theta.git.repository import Repository

_WRITING: Final = "writing"


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


def drop(repo: Repository, manifests: Iterable[str]) -> None:
    """Remove the marks of ``manifests``, which a commit names."""
    for manifest in manifests:
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
