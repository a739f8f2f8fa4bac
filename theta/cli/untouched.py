"""Whether the repository here has anything of theta's, found out by reading a few small files.

Opening a repository takes longer than most of git's commands.  Whoever has never tracked a checkpoint shall
not notice theta: see ``theta.cli.aside``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_SIGNS: Final = (b"filter=theta", b"merge=theta", b".theta/**")
"""Words of attributes in a repository that theta is set up in."""
_STORED: Final = b"theta/"
"""A part of each path below ``.theta/`` in an index."""
_NESTED: Final = b"/.gitattributes"
_COMPRESSED: Final = b"DIRC\0\0\0\x04"
"""The beginning of an index that has only the part of each name in which it differs from the one before."""
_FILTER: Final = b'[filter "theta"]'
_REFS: Final = b" refs/theta/"
_ELSEWHERE: Final = re.compile(rb'^\s*worktree\s*=\s*"?(.*?)"?\s*$', re.MULTILINE | re.IGNORECASE)
"""The setting that puts the worktree elsewhere, relative to the git directory."""


class Directories(NamedTuple):
    """The directories of a repository: its own, that of all its worktrees, and the root of the worktree."""

    gitdir: Path
    commondir: Path
    top: Path


def here() -> bool | None:
    """Return whether the repository here has nothing of theta's; None if only opening it can tell."""
    try:
        place = found()
        return None if place is None else _is_untouched(place)
    except (OSError, ValueError):
        return None


def has_filter() -> bool:
    """Return whether git knows theta's filter here, or there is no worktree."""
    try:
        place = found()
        return place is None or _FILTER in _text(place.commondir / "config")
    except (OSError, ValueError):
        return True


def found() -> Directories | None:
    """Return the repository that git would find; None for a bare one, or none."""
    cwd = Path.cwd()
    if named := os.environ.get("GIT_DIR"):
        return _placed(cwd / named, cwd)
    for top in (cwd, *cwd.parents):
        own = top / ".git"
        if own.is_dir() or own.is_file():
            return _placed(own, top)
        if (top / "HEAD").is_file() and (top / "objects").is_dir():
            return None
    return None


def _placed(own: Path, top: Path) -> Directories:
    """Return the place of the repository whose ``.git`` is ``own``.

    Its worktree is ``top`` unless a setting or a variable says otherwise.
    """
    if own.is_file():  # of a submodule, or of a linked worktree
        own = own.parent / os.fsdecode(own.read_bytes().removeprefix(b"gitdir: ").rstrip(b"\n"))
    elif found := _ELSEWHERE.search(_text(own / "config")):
        top = own / os.fsdecode(found[1])
    link = own / "commondir"
    common = own / os.fsdecode(link.read_bytes().rstrip(b"\n")) if link.is_file() else own
    return Directories(own, common, Path(os.environ.get("GIT_WORK_TREE") or top))


def _is_untouched(place: Directories) -> bool | None:
    if (place.gitdir / "theta").exists() or any(map(_is_set_up, _with_submodules(place.commondir))):
        return False
    attributes = _text(place.top / ".gitattributes")
    if any(sign in attributes for sign in _SIGNS):
        return False
    if not (index := place.gitdir / "index").is_file():
        return True if _is_empty(place) else None
    names = [index, *place.gitdir.glob("sharedindex.*")]
    return None if any(_may_have_checkpoints(_text(name)) for name in names) else True


def _may_have_checkpoints(index: bytes) -> bool:
    """Return whether an index may have files below ``.theta/``, or attributes of a folder."""
    return index.startswith(_COMPRESSED) or _STORED in index or _NESTED in index


def _with_submodules(commondir: Path) -> Iterator[Path]:
    """Yield the git directory of a repository, and those of its submodules."""
    yield commondir
    waiting = [commondir / "modules"]
    while waiting and waiting[-1].is_dir():
        for entry in os.scandir(waiting.pop()):
            place = Path(entry)
            if (place / "HEAD").is_file():
                yield from _with_submodules(place)
            elif entry.is_dir():
                waiting.append(place)


def _is_set_up(own: Path) -> bool:
    """Return whether the repository in ``own`` has settings of theta's."""
    attributes = _text(own / "info" / "attributes")
    signs = any(sign in attributes for sign in _SIGNS)
    places = (own / "theta", own / "refs" / "theta")
    is_there = signs or any(place.exists() for place in places) or _FILTER in _text(own / "config")
    return is_there or _REFS in _text(own / "packed-refs")


def _is_empty(place: Directories) -> bool:
    """Return whether there is no commit, as far as refs tell."""
    named = (place.commondir / "packed-refs").exists() or any((place.commondir / "refs" / "heads").iterdir())
    return not named and _text(place.gitdir / "HEAD").startswith(b"ref: ")


def _text(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
