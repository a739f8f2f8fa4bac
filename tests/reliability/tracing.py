"""The writes, syncs and renames of a command and all its children, in order, by ``strace``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import Repo
from tests.support.environment import dated

_CALLS: Final = (
    "write,writev,pwrite64,copy_file_range,sendfile,ftruncate,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat"
)
_FD: Final = re.compile(r"^(\w+)\((\d+)<([^>]*)>(.*)")
_NAMES: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Event:
    """One thing that happened to a file: ``write``, ``sync``, ``name`` (from ``source``) or ``unlink``."""

    what: str
    path: str
    source: str = ""
    text: str = ""


def trace(repo: Repo, place: Path, *command: str) -> list[Event]:
    """Run ``theta ...`` or ``git ...`` in ``repo`` and return its events; it must succeed."""
    repo.ticks += 1
    program = [sys.executable, "-m", "theta"] if command[0] == "theta" else ["git"]
    log = place / "trace"
    strace = ["strace", "-f", "-y", "-s", "64", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    done = subprocess.run(
        [*strace, "-o", str(log), *program, *command[1:]],
        cwd=repo.path,
        env=os.environ | dated(repo.ticks),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(_events(log.read_text(errors="replace")))


def _events(log: str) -> Iterator[Event]:
    written: dict[str, int] = {}
    for number, call in enumerate(_calls(log)):
        found = _FD.match(call)
        if found and found[1] in ("fsync", "fdatasync"):
            yield Event("sync", found[3])
        elif found and not found[1].startswith(("rename", "link", "unlink")):
            written[found[3]] = number
            text = _NAMES.search(found[4])
            yield Event("write", found[3], text=text[1] if text else "")
        elif names := _NAMES.findall(call):
            yield from _naming(call, names, written, number)


def _naming(call: str, names: list[str], written: dict[str, int], number: int) -> Iterator[Event]:
    if call.startswith("unlink"):
        yield Event("unlink", names[0])
        return
    source, target = (os.path.normpath(name) for name in names[:2])
    if not source.startswith("/"):  # the directory of the process is not known, what it wrote last is
        known = [path for path in written if path.endswith("/" + source)]
        if not known:
            return
        full = max(known, key=written.__getitem__)
        target = full.removesuffix(source) + target
        source = full
    written[target] = number
    yield Event("name", target, source)


def _calls(log: str) -> Iterator[str]:
    """The calls that succeeded, whole, in the order in which they ended."""
    begun: dict[str, str] = {}
    for row in log.splitlines():
        pid, _, call = row.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>").strip()
            continue
        if call.startswith("<..."):
            call = begun.pop(pid, "") + call.partition("resumed>")[2]
        if " = -1 " not in call and " = ?" not in call:
            yield call
