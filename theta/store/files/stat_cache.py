"""The manifest of each checkpoint file of the worktree when theta last read it, by its stat data.

A hit must never be wrong.  A file that was written to after it was read has another ctime,
unless both happened within one tick of the kernel's clock; an entry that young is not
trusted (git's Documentation/technical/racy-git.txt tells the story for the index).
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from theta import _notes
from theta.errors import DiskError, NoSpaceError
from theta.git.object_format import is_id
from theta.git.repository import Repository
from theta.store.files.file_source import Identity


@dataclass(frozen=True)
class _Known:
    identity: Identity
    seen_ns: int
    manifest: str


class StatCache:
    """Path -> (stat data, manifest id), kept in the worktree's private directory."""

    def __init__(self, repo: Repository) -> None:
        self._path = repo.private / "stat-cache.json"
        self._known = _load(self._path)
        self._dirty = False

    def manifest_of(self, path: str, identity: Identity) -> str | None:
        """Return the manifest id of the file at ``path`` if it surely has not changed."""
        known = self._known.get(path)
        if known is None or known.identity != identity or identity.is_racy(known.seen_ns):
            return None
        return known.manifest

    def has(self, path: str) -> bool:
        """Return whether the file at ``path`` ever held a checkpoint that theta read or wrote."""
        return path in self._known

    def remember(self, path: str, identity: Identity, manifest: str, seen_ns: int | None = None) -> None:
        """Note that ``path`` held ``manifest``; ``seen_ns`` is when its stat was last checked."""
        self._known[path] = _Known(identity, seen_ns or time.time_ns(), manifest)
        self._dirty = True

    def save(self) -> None:
        """Write the cache; losing it costs time only, so it is not fsynced, and may fail."""
        if self._dirty:
            rows = {path: asdict(known) for path, known in self._known.items()}
            with contextlib.suppress(DiskError, NoSpaceError):
                _notes.write(self._path, json.dumps({"theta.stat/v1": rows}))
            self._dirty = False


def _load(path: Path) -> dict[str, _Known]:
    rows = _notes.read_json(path).get("theta.stat/v1")
    found = ((name, _known(row)) for name, row in (rows.items() if isinstance(rows, dict) else ()))
    return {name: known for name, known in found if known is not None}


def _known(row: Any) -> _Known | None:
    try:
        known = _Known(Identity(**row["identity"]), row["seen_ns"], row["manifest"])
    except (KeyError, TypeError):
        return None
    numbers = (*asdict(known.identity).values(), known.seen_ns)
    return known if is_id(str(known.manifest)) and all(type(number) is int for number in numbers) else None
