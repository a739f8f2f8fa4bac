"""Which paths theta tracks: those with the attribute ``filter=theta``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from theta.git.index import Entry
from theta.git.repository import STORES, Repository

_FILES: Final = (0o100644, 0o100755)
_MAGIC: Final = ":(top,attr:filter=theta)"


def tracked_entries(repo: Repository, index: Path | None = None) -> list[Entry]:
    """The index entries (all stages) of the paths that theta tracks."""
    found = []
    for row in repo.git(index=index).lines("ls-files", "-s", "-z", "--full-name", "--", _MAGIC):
        head, _, path = row.partition("\t")
        mode, oid, stage = head.split(" ")
        if not path.startswith(STORES + "/") and int(mode, 8) in _FILES:
            found.append(Entry(path, oid, int(mode, 8), int(stage), False))
    return found


def filter_of(repo: Repository, paths: Iterable[str]) -> dict[str, str]:
    """Path -> value of its attribute ``filter``."""
    wanted = "".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape")
    if not wanted:
        return {}
    fields = repo.git().lines("check-attr", "-z", "--stdin", "filter", stdin=wanted)
    return dict(zip(fields[0::3], fields[2::3], strict=True))


def only_tracked(repo: Repository, paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` (from the root of the worktree) that theta tracks."""
    return [
        path
        for path, value in filter_of(repo, paths).items()
        if value == "theta" and not path.startswith(STORES + "/")
    ]
