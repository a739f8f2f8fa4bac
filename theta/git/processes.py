"""Finding the git processes that are alive, to know who owns files left in the repository.

Processes are read from ``/proc``.  Without it no process is known to be alive, and callers wait instead.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
import zlib
from pathlib import Path
from typing import Final

from theta import _fs

TOKEN: Final = "THETA_RUN"
"""The environment variable that identifies the child processes of a theta command."""

_PLAIN_ADD: Final = frozenset(
    ("-A", "--all", "-u", "--update", "-f", "--force", "-v", "--verbose", "--sparse")
)
"""The options of ``git add`` with which it asks nothing and starts no other git."""
_PROC: Final = Path("/proc")
_FORGOTTEN: Final = 86_400.0
"""Seconds after which a process of another machine counts as ended."""
_OLDEST: Final = 2
"""The words in a mark of the first versions."""
_OLD_PLACE: Final = 2
"""The words about the machine in a mark of an earlier version."""
_ENDED: Final = "Z"
"""The state of a zombie; the init process of a container may reap it late."""


def _fields(pid: int) -> tuple[str, list[str]] | None:
    """Return the name of a process and the fields after it in ``stat`` of proc(5), or None."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    name, _, rest = text[text.index("(") + 1 :].rpartition(")")
    return name, rest.split()


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return (name, parent, start time) of a living process, or None."""
    found = _fields(pid)
    if found is None or found[1][0] == _ENDED:
        return None
    return found[0], int(found[1][1]), int(found[1][19])


def owner() -> str:
    """Return the mark of the outermost git above this process, or of this process, for :func:`is_alive`."""
    pid = found = os.getpid()
    while pid > 1 and (info := _stat(pid)) is not None:
        if info[0].startswith("git"):
            found = pid
        pid = info[1]
    return _mark(found)


def _mark(pid: int) -> str:
    """Return the id of a process, its start time, and the boot, namespace of ids and name of this machine."""
    info = _stat(pid)
    return " ".join((str(pid), str(info[2] if info else 0), *_here()))


@functools.cache
def _here() -> tuple[str, str, str]:
    """Return digests of the boot, of the namespace of process ids, and of the name of this machine."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_bytes()
        namespace = os.fsencode(os.readlink(_PROC / "self/ns/pid"))
    except OSError:
        boot, namespace = b"", os.fsencode(os.uname().nodename)
    facts = (boot, namespace, os.fsencode(os.uname().nodename))
    boot_id, space, host = (f"{zlib.crc32(fact):08x}" for fact in facts)
    return boot_id, space, host


def command() -> list[str]:
    """Return the words of the nearest git above this process; empty when there is none."""
    pid = _nearest()
    return os.fsdecode((_PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1] if pid else []


def _nearest() -> int:
    """Return the id of the nearest git above this process; 0 when there is none."""
    pid = os.getpid()
    while pid > 1 and (info := _stat(pid)) is not None:
        if info[0] == "git":
            return pid
        pid = info[1]
    return 0


def only_adds() -> bool:
    """Return whether the only git above is ``git add``, which writes the index once, at its end."""
    words = command()
    if words[1:2] != ["add"] or owner().partition(" ")[0] != str(_nearest()):
        return False
    options = itertools.takewhile(lambda word: word != "--", words[2:])
    return all(not word.startswith("-") or word in _PLAIN_ADD for word in options)


def this() -> str:
    """Return the mark of this process, for :func:`is_alive`."""
    return _mark(os.getpid())


def is_alive(mark: str, written: float) -> bool:
    """Return whether the process with this mark of :func:`owner` or :func:`this` is still running.

    A process is not running if its namespace of ids on this host is that of an earlier boot.  Of a process
    of another machine, or of another namespace (a container, which may have the name of its host), nobody
    knows: it counts as running for a day since the mark was ``written``.
    """
    words = mark.split()
    if len(words) < _OLDEST:
        return False
    pid, started, *where = words
    if _is_of_here(where):
        info = _stat(int(pid)) if pid.isdigit() else None
        return info is not None and str(info[2]) == started
    return where[1:] != list(_here()[1:]) and written > time.time() - _FORGOTTEN


def is_of_this_machine(mark: str) -> bool:
    """Return whether a mark has the host and the namespace of ids of this process, of any boot."""
    where = mark.split()[_OLDEST:]
    return _is_of_here(where) or where[1:] == list(_here()[1:])


def _is_of_here(where: list[str]) -> bool:
    """Return whether the ids of processes here are those of a mark that ends with ``where``.

    Earlier versions wrote a digest of the boot together with the namespace, then the host; or nothing.
    """
    if len(where) == _OLD_PLACE:
        return where[0] == _fs.machine()
    return not where or where[:2] == list(_here()[:2])


def children_of(token: str) -> list[int]:
    """Return the ids of living git processes started by the theta command with this token."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for place in _PROC.glob("[0-9]*"):
        info = _stat(int(place.name))
        if info is not None and info[0].startswith("git") and wanted in _environment(place):
            found.append(int(place.name))
    return found


def gits_in(*places: Path) -> bool:
    """Return whether a living git works in one of the directories ``places``, or below it.

    The git of ``git theta``, which has started this process, does nothing itself.
    """
    inside = [os.path.realpath(place) for place in places]
    passing = _nearest() if command()[1:2] == ["theta"] else 0
    for process in _PROC.glob("[0-9]*"):
        info = _stat(int(process.name))
        if info is None or not info[0].startswith("git") or int(process.name) == passing:
            continue
        try:
            where = os.readlink(process / "cwd")
        except PermissionError:
            return True  # of another user: nobody knows
        except OSError:
            continue  # it has ended
        if any(where == place or where.startswith(place + os.sep) for place in inside):
            return True
    return False


def is_open(file: Path) -> bool:
    """Return whether a living process has ``file`` open; one of another user is not known to have."""
    wanted = os.stat(file)
    for descriptor in _PROC.glob("[0-9]*/fd/*"):
        try:
            if os.path.samestat(os.stat(descriptor), wanted):
                return True
        except OSError:
            continue  # it has ended, or is of another user
    return False


def _environment(place: Path) -> list[bytes]:
    try:
        return (place / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def exists(pid: int) -> bool:
    """Return whether a process of any user has this id; a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    found = _fields(pid)
    return found is None or found[1][0] != _ENDED
