"""States in which a disk may be after the power failed, by the record of what was done to files.

The model is that of a file system with a journal, as ext4 and xfs have: names change in the order in which
they were changed, and whatever was changed before any sync that returned is kept.  Data is kept from before
the sync of its own file, and from before the file took the name of another one, which ext4 and btrfs see to;
every later write is kept, lost, or torn at a multiple of 512 bytes, one without the other.  A lost write
leaves zeros if a later one is behind it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.faults import Recorded

SECTOR: Final = 512
_DATA: Final = "wt"
_NAMES: Final = "crludmy"

Content = bytes | None | str
"""The content of a file; None for a directory; the target of a symbolic link."""


@dataclass(frozen=True)
class Tree:
    """Files and directories by their path below the top."""

    entries: Mapping[str, Content]

    @classmethod
    def of(cls, top: Path) -> Tree:
        """Read what is below ``top``."""
        found: dict[str, Content] = {}
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(folder, name)
                key = str(path.relative_to(top))
                if path.is_symlink():
                    found[key] = os.readlink(path)
                else:
                    found[key] = None if path.is_dir() else path.read_bytes()
        return cls(found)

    def digest(self, names: Sequence[str]) -> bytes:
        """Return a digest of what stands at ``names``."""
        found = hashlib.sha256()
        for name in names:
            content = self.entries.get(name, b"\0gone")
            found.update(f"{name}\0{type(content).__name__}\0".encode())
            found.update(content if isinstance(content, bytes) else str(content).encode())
        return found.digest()


class Disk:
    """A repository before a command, and the record of the command."""

    def __init__(
        self, top: Path, before: Path, record: Sequence[Recorded], inodes: Mapping[str, int]
    ) -> None:
        """Take the record of what was done below ``top``, which was as ``before``, with these ``inodes``."""
        self.before = Tree.of(before)
        self.record = [one for one in record if not one.path or _is_below(one.path, top)]
        self._top = str(top)
        self.inodes = inodes
        found = ((inode, self.before.entries.get(name)) for name, inode in inodes.items())
        self.contents = {inode: content for inode, content in found if isinstance(content, bytes)}
        self.modes = {name: (before / name).lstat().st_mode for name in self.before.entries}
        self.syncs = [at for at, one in enumerate(self.record) if one.what == "s"]

    def changed(self) -> list[str]:
        """Return all names that the record changes, or whose files it writes to."""
        found: set[str] = set()
        written = {one.inode for one in self.record if one.what in _DATA}
        found |= {name for name, inode in self.inodes.items() if inode in written}
        for one in self.record:
            if one.path:
                found.add(self._name(one.path))
            if one.what == "r":
                found.add(self._name(os.fsdecode(one.data)))
        return sorted(found - {""})

    def after(self, crash: int, dice: random.Random) -> Tree:
        """Return a state after the power failed before step ``crash`` of the record."""
        synced = max((at for at in self.syncs if at < crash), default=-1)
        names, flushed = self._names(dice.randint(synced + 1, crash))
        data = self._data(crash, flushed, dice)
        entries: dict[str, Content] = {}
        for name, what in names.items():
            entries[name] = data.get(what, b"") if isinstance(what, int) else what
        return Tree(entries)

    def _name(self, path: str) -> str:
        return os.path.relpath(os.path.normpath(path), self._top)

    def _names(self, until: int) -> tuple[dict[str, int | str | None], dict[int, int]]:
        """Return what each name stands for: a number of an inode, a directory or a link.

        The second result has the last step at which a file took the name of another one.
        """
        flushed: dict[int, int] = {}
        found: dict[str, int | str | None] = {
            name: self.inodes[name] if name in self.inodes else _kept(content)
            for name, content in self.before.entries.items()
        }
        for at, one in enumerate(self.record[:until]):
            if one.what not in _NAMES:
                continue
            name = self._name(one.path)
            if one.what in "ud":
                found.pop(name, None)
            elif one.what == "m":
                found[name] = None
            elif one.what == "y":
                found[name] = os.fsdecode(one.data)
            elif one.what == "r":
                if name in found:
                    flushed[one.inode] = at
                _move(found, self._name(os.fsdecode(one.data)), name, one.inode)
            else:
                found[name] = one.inode
        return found, flushed

    def _data(self, crash: int, flushed: Mapping[int, int], dice: random.Random) -> dict[int, bytes]:
        """Return the content of each inode."""
        synced = dict(flushed)
        for at, one in enumerate(self.record[:crash]):
            if one.what == "s":
                synced[one.inode] = max(at, synced.get(one.inode, -1))
        found = defaultdict(bytearray, {inode: bytearray(data) for inode, data in self.contents.items()})
        keep, drop = dice.random(), dice.random()
        for at, one in enumerate(self.record[:crash]):
            if one.what not in _DATA:
                continue
            if at < synced.get(one.inode, -1) or dice.random() < keep:
                _apply(found[one.inode], one, len(one.data))
            elif one.what == "w" and dice.random() < drop:
                _apply(found[one.inode], one, SECTOR * dice.randint(0, len(one.data) // SECTOR))
        return {inode: bytes(data) for inode, data in found.items()}


def _kept(content: Content) -> str | None:
    assert not isinstance(content, bytes)
    return content


def _is_below(path: str, top: Path) -> bool:
    return path.startswith(f"{top}/")


def _move(names: dict[str, int | str | None], old: str, new: str, inode: int) -> None:
    """Give what is called ``old``, and all below it, the name ``new``."""
    names[new] = names.pop(old, inode)
    for name in [name for name in names if name.startswith(f"{old}/")]:
        names[new + name[len(old) :]] = names.pop(name)


def _apply(data: bytearray, one: Recorded, length: int) -> None:
    """Write the first bytes of a write, or cut."""
    if one.what == "t":
        data[:] = data[: one.offset].ljust(one.offset, b"\0")
    elif length:
        data[:] = data.ljust(one.offset, b"\0")
        data[one.offset : one.offset + length] = one.data[:length]


class Stage:
    """A folder that becomes one state after the other."""

    def __init__(self, top: Path, disk: Disk) -> None:
        """Begin with a copy of what was before, which is at ``top``."""
        self.top, self.disk = top, disk
        self._now = dict(disk.before.entries)

    def become(self, tree: Tree) -> None:
        """Change what differs from the state before; what checks left behind is removed."""
        for name in sorted(_listed(self.top) - tree.entries.keys(), reverse=True):
            _remove(self.top / name)
        for name in sorted(tree.entries):
            content = tree.entries[name]
            if self._now.get(name, b"\0") != content or not os.path.lexists(self.top / name):
                self._put(name, content)
        self._now = dict(tree.entries)

    def _put(self, name: str, content: Content) -> None:
        path = self.top / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        _remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(self.disk.modes.get(name, 0o644) & 0o777)


def _listed(top: Path) -> set[str]:
    found: set[str] = set()
    for folder, folders, files in os.walk(top):
        base = os.path.relpath(folder, top)
        found |= {os.path.normpath(os.path.join(base, name)) for name in (*folders, *files)}
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
