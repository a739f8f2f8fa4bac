"""The paths that theta tracks: those with the attribute ``filter=theta``.

git is asked once for each path.  The result is cached with the state of the ``.gitattributes`` of all
parent directories, which git reads from the worktree, and from the index if they are not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from theta.git.backends.index_entries import Entry
from theta.git.repository import ATTRIBUTES, STORES, Repository

ASK: Final = ("-c", "core.fsmonitor=false", "check-attr", "-z", "--stdin")
"""A question for attributes; git reads the index for it, but the fsmonitor knows nothing of them."""

_FILES: Final = (0o100644, 0o100755)

_Sign = tuple[object, ...]


def tracked_entries(repo: Repository, index: Path | None = None) -> tuple[Entry, ...]:
    """Return the index entries (all stages) of the paths that theta tracks.

    The same tuple is returned until the index or an attributes file changes.
    """
    entries, signs = repo.entries(index), _Signs(repo, index)
    known = repo.tracked.get(index)
    if known is None or known[0] is not entries or any(signs.of(at) != sign for at, sign in known[1].items()):
        places = {entry.path.rpartition("/")[0] for entry in entries if entry.mode in _FILES}
        found = tracked_among(repo, entries, index)
        known = repo.tracked[index] = entries, {at: signs.of(at) for at in places}, found
    return known[2]


def tracked_among(repo: Repository, entries: Iterable[Entry], index: Path | None = None) -> tuple[Entry, ...]:
    """Return those of ``entries`` whose paths theta tracks."""
    files = [entry for entry in entries if entry.mode in _FILES]
    values = filter_of(repo, (entry.path for entry in files), index)
    return tuple(entry for entry in files if values[entry.path] == "theta")


def filter_of(repo: Repository, paths: Iterable[str], index: Path | None = None) -> dict[str, str]:
    """Return path -> value of the attribute ``filter``."""
    signs = _Signs(repo, index)
    wanted = {path: signs.of(path.rpartition("/")[0]) for path in paths}
    known = repo.attributes
    if any(_is_new(known, path, sign) for path, sign in wanted.items()):
        every = wanted | {path: signs.of(path.rpartition("/")[0]) for path in _files(repo, index)}
        new = [path for path, sign in every.items() if _is_new(known, path, sign)]
        for path, value in _asked(repo, new, index).items():
            known[path] = every[path], value
    return {path: known[path][1] for path in wanted}


def _is_new(known: Mapping[str, tuple[object, str]], path: str, sign: _Sign) -> bool:
    return path not in known or known[path][0] != sign


def _files(repo: Repository, index: Path | None) -> list[str]:
    """Return the files of the index: git is asked about all of them at once."""
    return [entry.path for entry in repo.entries(index) if entry.mode in _FILES]


def _asked(repo: Repository, paths: list[str], index: Path | None) -> dict[str, str]:
    if not paths:
        return {}
    ask = "".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape")
    fields = repo.git(index=index).lines(*ASK, "filter", stdin=ask)
    return dict(zip(fields[0::3], fields[2::3], strict=True))


class _Signs:
    """Signatures of the attributes files, which differ if their content may differ."""

    def __init__(self, repo: Repository, index: Path | None) -> None:
        self._root = None if repo.is_bare else repo.worktree
        self._staged = repo.attribute_files(index)
        self._above = (_stat(repo.commondir / "info" / "attributes"), self._sign(ATTRIBUTES))
        self._found: dict[str, _Sign] = {"": self._above}

    def of(self, directory: str) -> _Sign:
        """Return the signature of the files in ``directory`` and all directories above it."""
        if directory not in self._found:
            steps = directory.split("/")
            parents = ("/".join(steps[:count]) for count in range(1, len(steps) + 1))
            signs = [(parent, sign) for parent in parents if (sign := self._sign(f"{parent}/{ATTRIBUTES}"))]
            self._found[directory] = (*self._above, *signs) if signs else self._above
        return self._found[directory]

    def _sign(self, name: str) -> object:
        here = _stat(self._root / name) if self._root is not None else None
        return here or self._staged.get(name)


def _stat(place: Path) -> _Sign | None:
    try:
        info = os.lstat(place)
    except (OSError, ValueError):
        return None
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino


def only_tracked(repo: Repository, paths: Iterable[str]) -> list[str]:
    """Return those of ``paths`` (from the root of the worktree) that theta tracks."""
    return [
        path
        for path, value in filter_of(repo, paths).items()
        if value == "theta" and not path.startswith(STORES + "/")
    ]
