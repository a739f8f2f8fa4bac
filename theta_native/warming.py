"""Processes that compile kernels in advance, or in parallel with the process that needs them.

``signatures.txt`` lists the kernels that the codecs call, with the types of their arguments, in the order
in which a commit needs them.  An empty line ends a group of kernels that are needed together.  A kernel that
is not listed is compiled when it is first called.

When a process needs a kernel that is not compiled, it starts workers.  They compile the kernels of the same
group, last one first, with less priority, and end after the kernel in hand when the process ends.  In the
background at most one worker runs for each cache directory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from theta_native import _claims, _saved, _signatures

WORKERS: Final = "THETA_KERNEL_WORKERS"
"""The environment variable with the number of workers; without it no worker is started."""

BESIDE, BACKGROUND, ALL = "beside", "background", "all"
"""The modes of a worker: for a command that waits, for commands to come, for a user who waits."""

_NICENESS: Final = {BESIDE: 5, BACKGROUND: 19, ALL: 0}

_PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from theta_native import warming
sys.exit(warming.work(*sys.argv[2:]))
"""

# -- starting workers -----------------------------------------------------------------------

_workers: list[subprocess.Popen[bytes]] = []


def missed(line: str) -> None:
    """Start workers when the first kernel is missing; ``line`` is the kernel and its signature."""
    if not _workers and (count := _allowed()) and _saved.can_save():
        for number in range(count):
            with contextlib.suppress(OSError):  # no process can be started: this one compiles
                _start(BESIDE, line, str(number), str(count))


def begin() -> None:
    """Compile all listed kernels in the background, if that has not been done or begun."""
    if not _allowed() or not _saved.can_save() or compiled() >= total():
        return
    place = _saved.directories()[-1]
    if _claims.take(place, BACKGROUND):
        _claims.give_back(place, BACKGROUND)  # the worker takes it
        with contextlib.suppress(OSError):
            _start(BACKGROUND)


def everything() -> Iterator[bool | None]:
    """Compile all listed kernels on all processors.

    Yields None while it goes on, then whether all are saved.
    """
    count = len(os.sched_getaffinity(0))
    started = [_start(ALL, "", str(number), str(count)) for number in range(count)]
    for worker in started:
        while worker.poll() is None:
            yield None
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(0.2)
    yield all(worker.returncode == 0 for worker in started)


def total() -> int:
    """Return the number of listed signatures."""
    return sum(map(len, _signatures.declared()))


def compiled() -> int:
    """Return about how many kernels are compiled, without numba: those for other processors count too."""
    return max((sum(1 for _ in place.glob("*.nbc")) for place in _saved.directories()), default=0)


def _allowed() -> int:
    value = os.environ.get(WORKERS, "")
    return int(value) if value.isdecimal() else 0


def _start(mode: str, *args: str) -> subprocess.Popen[bytes]:
    """Start a worker with the module path of this process, without the current directory."""
    modules = json.dumps([path for path in sys.path if path])
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, modules, mode, str(os.getpid()), *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    _workers.append(child)
    threading.Thread(target=child.wait, daemon=True).start()
    return child


# -- working --------------------------------------------------------------------------------


def work(mode: str, parent: str, first: str = "", number: str = "0", count: str = "1") -> int:
    """Run a worker that :func:`_start` of process ``parent`` started; return its exit code."""
    os.environ.pop(WORKERS, None)  # workers start none
    os.nice(_NICENESS[mode])
    gc.disable()
    if mode == BACKGROUND:
        if _claims.take(_saved.directories()[-1], BACKGROUND):
            _compile(_order(first, 0, 1), lambda: True)
        return 0
    lines = _order(first, int(number), int(count))
    _compile(lines, lambda: os.getppid() == int(parent))
    return 0 if mode == BESIDE or all(map(_is_saved, lines)) else 1


def _order(first: str, number: int, count: int) -> list[str]:
    """Return the lines for worker ``number`` of ``count``, beginning with the group of ``first``."""
    groups = _signatures.declared()
    start = next((place for place, group in enumerate(groups) if first in group), 0)
    found = []
    for group in groups[start:] + groups[:start]:
        backwards, shift = group[::-1], len(group) * number // count
        found += backwards[shift:] + backwards[:shift]
    return found


def _compile(lines: Sequence[str], is_wanted: Callable[[], bool]) -> None:
    """Compile the kernels of ``lines`` that are not compiled and that no other process compiles."""
    for line in lines:
        if not is_wanted():
            return
        with contextlib.suppress(Exception):  # the process that needs the kernel reports the error
            dispatcher, signature = _kernel(line)
            if dispatcher._cache.claim(signature, dispatcher.targetctx):
                dispatcher.compile(signature)


def _is_saved(line: str) -> bool:
    """Return whether the kernel of ``line`` is saved, after waiting for the process that compiles it."""
    try:
        dispatcher, signature = _kernel(line)
        dispatcher.compile(signature)
    except Exception:
        return False
    return not _saved.lost


def _kernel(line: str) -> tuple[Any, tuple[Any, ...]]:
    """Return the dispatcher and the signature that a line names."""
    name, _, text = line.partition(" ")
    module, _, function = name.rpartition(".")
    kernel: Any = getattr(importlib.import_module(f"theta_native.{module}"), function)
    return kernel.compiled() if hasattr(kernel, "compiled") else kernel, _signatures.parse(text)
