"""The cost of a command: seconds, processor seconds, memory, and bytes on the disk.

This module imports neither numpy nor theta: a child inherits the peak memory of the process that
starts it, so a program that measures stays small.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timed:
    """One run: seconds, processor seconds, and the peak resident megabytes of the largest process."""

    wall: float
    processor: float
    resident: float

    def __str__(self) -> str:
        return f"{self.wall:6.1f} s {self.processor:6.1f} s of processors {self.resident:6.0f} MB"

    def __add__(self, other: Timed) -> Timed:
        """Both, one after the other."""
        peak = max(self.resident, other.resident)
        return Timed(self.wall + other.wall, self.processor + other.processor, peak)


NOTHING = Timed(0.0, 0.0, 0.0)


def run(command: Sequence[str], directory: Path, env: Mapping[str, str] | None = None) -> Timed:
    """Run and wait; ``wait4`` tells what the largest process of the tree held."""
    began = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=directory, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed: {error.decode(errors='replace')[-2000:]}")
    return Timed(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def apart(module: str, call: str, *args: object) -> str:
    """Call a function of a module beside this one in a process of its own; return what it prints."""
    code = f"import sys, {module}\nfrom pathlib import Path\n{call}"
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def size(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def stored(repository: Path) -> int:
    """Bytes of all packs and loose objects, without the indexes of packs."""
    files = (repository / ".git" / "objects").rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix not in (".idx", ".rev"))


def warm(files: Sequence[Path]) -> None:
    """Bring files into the page cache."""
    for path in files:
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass


def forget_pages(places: Sequence[Path]) -> None:
    """Write what is dirty and empty the page cache; without permission, forget the files below ``places``."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for place in places:
            for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
                _forget(path)


def _forget(path: Path) -> None:
    """Drop the pages of one file, unless a process has it mapped."""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
