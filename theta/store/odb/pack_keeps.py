"""Files ``pack-*.keep``, by which ``git repack`` leaves alone a pack that no ref or index names yet.

As in git's own receive-pack, the file is there before the pack and goes once the ref is written.  Its first
word tells whose it is: files of other programs, and of users, stay for ever.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import ThetaError
from theta.git import processes

SUFFIX: Final = ".keep"
_OURS: Final = "theta "
"""The first word of a file of theta."""


class Keeps:
    """The keep files of one writer of packs, until :meth:`release`, or the end of the process.

    Those of another ``owner`` (a mark of :func:`theta.git.processes.this`) are left to it, which takes them
    over by :meth:`adopt`.
    """

    def __init__(self, owner: str = "") -> None:
        self._places: list[Path] = []
        self._owner = owner
        if not owner:
            weakref.finalize(self, _release, self._places, os.getpid())

    def add(self, name: Path) -> None:
        """Keep the pack ``name`` (without a suffix), which is not there yet."""
        place = name.with_name(f"{name.name}{SUFFIX}")
        if not place.exists() or _is_stale(place):  # or a user keeps the same pack
            _fs.write_atomic(place, f"{_OURS}{self._owner or processes.this()}\n".encode(), durable=False)
            self._places.append(place)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, without a suffix, of the packs that have a file of these."""
        return tuple(place.name.removesuffix(SUFFIX) for place in self._places)

    def adopt(self, name: Path) -> None:
        """Keep, and then release, a pack (without a suffix) that another process wrote for this one."""
        self._places.append(name.with_name(f"{name.name}{SUFFIX}"))

    def release(self) -> None:
        """Let git repack the packs: what they hold is named."""
        _release(self._places, os.getpid())


def _release(places: list[Path], owner: int) -> None:
    """Remove the files, unless this is a fork of their ``owner``; what stays costs no more than space."""
    while places and os.getpid() == owner:
        with contextlib.suppress(ThetaError):
            _fs.remove(places.pop())


def stale(directory: Path) -> Iterator[Path]:
    """Yield the keep files in ``directory`` of processes of theta that were killed."""
    for place in directory.glob(f"pack-*{SUFFIX}"):
        if _is_stale(place):
            yield place


def _is_stale(place: Path) -> bool:
    """Return whether a process of theta wrote the file that has ended."""
    first, _, mark = (_notes.read(place) or "").partition(" ")
    return first == _OURS.strip() and not processes.is_alive(mark, _notes.written(place))


def remove_stale(directory: Path) -> None:
    """Remove the files of :func:`stale`."""
    for place in stale(directory):
        _fs.remove(place)
