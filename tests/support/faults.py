"""Faults of disk and clock for theta and all that it starts, by a library loaded before the C library.

``tests/support/faults.c`` stands before the calls that change or read files and tell the time.  Each call on
a file below a place is a step.  All processes count them together, so that a number names the moment of a
fault whichever process comes to it: theta, the libraries in it, git, or a hook.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

COUNT, KILL, FULL, FAIL, SHORT, SLOW, RECORD = range(1, 8)
"""Modes: nothing happens; the process of the step is killed, and the group that ``FAULTS_GROUP`` names; from
the step on the disk is full for what grows files; the step fails; reads and writes do less than asked; steps
are slow at random; everything is recorded."""
GROWS, CHANGES, READS, SYNCS = 1, 2, 4, 8
"""Kinds of steps: writes and new names; renames and removals; reads; syncs."""
_CONTROL: Final = struct.Struct("<8Iq512s512s")
_HEAD: Final = struct.Struct("<cQQII")


@dataclass(frozen=True)
class Recorded:
    """Something that was done to files.

    Attributes:
        what: c creates, a creates without a name, w writes, t cuts or extends, s syncs, r renames, l links,
            u unlinks, m makes and d removes a directory, y makes a symbolic link.
        inode: the file, where it is one that has data.
        offset: where it is written, or its new size.
        path: the name, absolute.
        data: what is written, or the old name.
    """

    what: str
    inode: int
    offset: int
    path: str
    data: bytes


class Faults:
    """The library, compiled, and its control."""

    def __init__(self, folder: Path, place: Path) -> None:
        """Compile the library in ``folder``; faults are those of files below ``place``."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        self.library, self.log = folder / "faults.so", folder / "record"
        source = Path(__file__).with_name("faults.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self.library, source, "-ldl"], check=True)
        control = folder / "control"
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._place = str(place)
        self.shift = 0
        self.environment = {"LD_PRELOAD": str(self.library), "FAULTS": str(control)}
        self.off()

    def enter(self) -> None:
        """Let all programs that this process starts from now on load the library."""
        os.environ.update(self.environment)

    def set(self, mode: int, at: int = 0, kinds: int = 15, *, seed: int = 0, error: int = 0) -> None:
        """Begin to count anew, and let ``mode`` happen at step ``at`` of ``kinds``."""
        words = (mode, at, 0, kinds, seed, 0, 0, error)
        packed = _CONTROL.pack(*words, self.shift, self._place.encode(), str(self.log).encode())
        self._shared[: len(packed)] = packed

    def off(self) -> None:
        """Let nothing happen any more; the clock stays as it is."""
        self.set(0)

    @property
    def steps(self) -> int:
        """The number of steps since faults were set."""
        return int(_CONTROL.unpack_from(self._shared)[2])

    @property
    def hits(self) -> int:
        """How often the fault happened."""
        return int(_CONTROL.unpack_from(self._shared)[6])

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Recorded]]:
        """Record what is done to files during the block; the list is filled at its end."""
        self.log.unlink(missing_ok=True)
        found: list[Recorded] = []
        self.set(RECORD)
        try:
            yield found
        finally:
            self.off()
            found += _records(self.log.read_bytes() if self.log.exists() else b"")


def _records(data: bytes) -> Iterator[Recorded]:
    at = 0
    while at < len(data):
        what, inode, offset, first, second = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path = os.path.normpath(os.fsdecode(data[at : at + first])) if first else ""
        yield Recorded(what.decode(), inode, offset, path, data[at + first : at + first + second])
        at += first + second
