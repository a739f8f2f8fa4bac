"""Which git processes are alive: who owns what a command left in the repository.

Answers come from ``/proc``.  Where there is none nobody is known to be alive, and callers fall
back on waiting.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TOKEN: Final = "THETA_RUN"
"""The environment variable by which children of one theta command are known."""

_PROC: Final = Path("/proc")
_ENDED: Final = "Z"
"""The state of a process that waits to be reaped; the first process of a container may do that late."""


def _fields(pid: int) -> tuple[str, list[str]] | None:
    """The name of a process and what follows it in proc(5)'s ``stat``, its state first."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    name, _, rest = text[text.index("(") + 1 :].rpartition(")")
    return name, rest.split()


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(name, parent, start time) of a living process."""
    found = _fields(pid)
    if found is None or found[1][0] == _ENDED:
        return None
    return found[0], int(found[1][1]), int(found[1][19])


def owner() -> str:
    """The outermost git that this process runs for (itself, if there is none), for :func:`is_alive`."""
    pid = found = os.getpid()
    while pid > 1 and (info := _stat(pid)) is not None:
        if info[0].startswith("git"):
            found = pid
        pid = info[1]
    info = _stat(found)
    return f"{found} {info[2] if info else 0}"


def this() -> str:
    """This process, for :func:`is_alive`."""
    info = _stat(os.getpid())
    return f"{os.getpid()} {info[2] if info else 0}"


def is_alive(mark: str) -> bool:
    """Whether the process that :func:`owner` or :func:`this` named is still running."""
    pid, _, started = mark.partition(" ")
    info = _stat(int(pid)) if pid.isdigit() else None
    return info is not None and str(info[2]) == started


def children_of(token: str) -> list[int]:
    """Living git processes that a theta command with this token started."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for place in _PROC.glob("[0-9]*"):
        info = _stat(int(place.name))
        if info is not None and info[0].startswith("git") and wanted in _environment(place):
            found.append(int(place.name))
    return found


def _environment(place: Path) -> list[bytes]:
    try:
        return (place / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def exists(pid: int) -> bool:
    """Whether some process has this id (of any user); one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    found = _fields(pid)
    return found is None or found[1][0] != _ENDED
