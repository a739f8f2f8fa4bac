"""What theta last found in each checkpoint file of the worktree, by its stat data.

A hit must never be wrong.  A file that was written to after it was read has another ctime,
unless both happened within one tick of the kernel's clock; an entry that young is not
trusted (git's Documentation/technical/racy-git.txt tells the story for the index).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from theta import _fs
from theta.git.repository import Repository
from theta.store.source import Identity

_FINE_NS: Final = 50_000_000
_COARSE_NS: Final = 2_100_000_000


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
        """The manifest id of the file at ``path`` if it is surely still what it was."""
        known = self._known.get(path)
        if known is None or known.identity != identity or _racy(identity, known.seen_ns):
            return None
        return known.manifest

    def remember(self, path: str, identity: Identity, manifest: str, seen_ns: int | None = None) -> None:
        """Note that ``path`` held ``manifest``; ``seen_ns`` is when its stat was last checked."""
        self._known[path] = _Known(identity, seen_ns or time.time_ns(), manifest)
        self._dirty = True

    def save(self) -> None:
        """Write the cache; losing it costs time only, so it is not fsynced."""
        if self._dirty:
            rows = {path: asdict(known) for path, known in self._known.items()}
            _fs.make_dirs(self._path.parent)
            _fs.write_atomic(self._path, json.dumps({"theta.stat/v1": rows}).encode(), durable=False)
            self._dirty = False


def _racy(identity: Identity, seen_ns: int) -> bool:
    latest = max(identity.mtime_ns, identity.ctime_ns)
    # A whole second says that the file system keeps no finer time.
    margin = _FINE_NS if identity.ctime_ns % 1_000_000_000 else _COARSE_NS
    return latest + margin > seen_ns


def _load(path: Any) -> dict[str, _Known]:
    try:
        rows = json.loads(path.read_bytes())["theta.stat/v1"]
        return {
            name: _Known(Identity(**row["identity"]), row["seen_ns"], row["manifest"])
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
