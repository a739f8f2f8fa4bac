"""The process of ``tests.support.server``: it loads theta, then forks for each job."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import os
import pkgutil
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.server import HEAD

_HUGE: Final = 2 << 20
"""Bytes of a huge page."""
_COLLAPSE: Final = 25
"""``MADV_COLLAPSE`` of madvise(2)."""
_COUNT: Final = "THETA_TEST_STEPS"
"""Names a file to which the number of the command's disk operations is written."""
_LOADED: Final = "THETA_TEST_LOADED"
"""Names a file to which the names of the modules that the command imports are appended."""
_KILL_AFTER: Final = "THETA_TEST_KILL_AFTER"
"""Seconds after which the command is killed."""
_FULL_AT: Final = "THETA_TEST_FULL_AT"
"""The number of the disk operation from which on the disk is full."""
_FIRST: Final = "THETA_TEST_FIRST"
"""Python code that runs in the process before the command, and not in its children."""
_FILE_SIZE: Final = "THETA_TEST_FILE_SIZE"
"""The limit of a file's size in bytes, which simulates a full disk; the streams must be pipes."""
_KILL_GROUP: Final = "THETA_TEST_KILL_GROUP"
"""``1`` to kill its child processes too."""


def serve(path: str, program: str) -> None:
    """Run the commands that come to the socket at ``path``, until standard input ends."""
    listen(path, lambda connection: _answer(connection, program))


def listen(path: str, answer: Callable[[socket.socket], None]) -> None:
    """Fork for each connection, with theta loaded, and ``answer`` it there, until standard input ends."""
    _load()
    # Forks are reaped automatically; each must restore the default action before it waits for git.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(64)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while all(key.fileobj is listener for key, _ in selector.select()):
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(connection)
            connection.close()


def _load() -> None:
    import theta
    import theta_native

    for package in (theta, theta_native):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # its own tests will fail
                    importlib.import_module(module.name)
    for name in (
        "numba",
        "rich.table",
        "rich.text",
        "rich.tree",
        "rich.progress",
        "ml_dtypes",
        "zlib_ng.zlib_ng",
    ):
        importlib.import_module(name)
    _warm()
    _begin_as_theta()
    gc.collect()
    gc.freeze()
    _into_huge_pages()


def _begin_as_theta() -> None:
    """Set what :func:`theta.__main__.main` sets before it runs a command."""
    from theta import __main__, _memory

    gc.set_threshold(__main__._YOUNG)
    _memory.one_heap()


def _into_huge_pages() -> None:
    """Move the memory that is loaded into huge pages, so that a fork has fewer tables of pages to copy.

    A kernel that cannot do it is no matter.
    """
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        if words[1] != "rw-p" or words[5:] not in ([], ["[heap]"]):
            continue
        first, last = (int(word, 16) for word in words[0].split("-"))
        for start in range(-(-first // _HUGE) * _HUGE, last - _HUGE + 1, _HUGE):
            advise(start, _HUGE, _COLLAPSE)


def _warm() -> None:
    """Load the kernels that most commands run, and the modules of typer for parsing."""
    import numpy as np
    import typer

    from theta.cli import track
    from theta.codecs import dense

    typer.main.get_command(track.app).make_context("track", ["*.pt"]).close()

    words = np.random.default_rng(0).standard_normal(200_000)
    for dtype, kind in (("f32", "f4"), ("f16", "f2")):
        raw = words.astype(kind).tobytes()
        assert dense.decode(dense.encode(raw, dtype), dtype, len(raw)) == raw


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, descriptors, _, _ = socket.recv_fds(connection, HEAD, 3)
    left = int.from_bytes(head, "little")
    body = bytearray()
    while len(body) < left:
        part = connection.recv(left - len(body))
        if not part:
            sys.exit("a job was cut short")
        body += part
    client, cwd, count, *words = map(os.fsdecode, bytes(body).split(b"\0")[:-1])
    args, variables = words[: int(count)], words[int(count) :]
    env = dict(variable.split("=", 1) for variable in variables)
    return {"args": args, "cwd": cwd, "env": env, "client": client}, list(descriptors)


def _answer(connection: socket.socket, program: str) -> None:
    """Run one command in this fork, send its exit code and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 70
    try:
        job, descriptors = _receive(connection)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        os.chdir(job["cwd"])
        if _has_ended(
            connection
        ):  # killed while this fork was made: a hook that git starts would be dead too
            os._exit(code)
        code = _run(job, program) if _is_ours(job["env"]) else _afresh(job)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        connection.send(bytes([code & 0xFF]))
        os._exit(code)


def _has_ended(client: socket.socket) -> bool:
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _is_ours(env: Mapping[str, str]) -> bool:
    """Return whether ``env`` has the same values of the variables that libraries read when loaded."""
    names = {name for name in env.keys() | os.environ.keys() if name.startswith(("XDG_", "PYTHON", "NUMBA_"))}
    names |= {"HOME", "GIT_CONFIG_GLOBAL"}
    return all(env.get(name) == os.environ.get(name) for name in names)


def _afresh(job: Mapping[str, Any]) -> int:
    return subprocess.call([sys.executable, "-m", "theta", *job["args"]], env=job["env"])


def _run(job: Mapping[str, Any], program: str) -> int:
    from theta.cli.app import run

    os.environ.clear()
    os.environ.update(job["env"])
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    sys.executable = program
    _adopt(int(job["client"]))
    _die_later(job["env"])
    _fill_disk(job["env"].get(_FULL_AT))
    _limit_files(job["env"].get(_FILE_SIZE))
    steps = _counted(job["env"].get(_COUNT))
    exec(os.environ.pop(_FIRST, ""), {})
    code = _telling_loaded(job["env"].get(_LOADED), lambda: run(job["args"]))
    if steps is not None:
        Path(job["env"][_COUNT]).write_text(str(len(steps)))
    return code


def _adopt(client: int) -> None:
    """Make ``client`` the parent of this process for theta's search for the git that started it."""
    from theta.git import processes

    own, stat = os.getpid(), processes._stat

    def adopted(pid: int) -> tuple[str, int, int] | None:
        found = stat(pid)
        return (found[0], client, found[2]) if found and pid == own else found

    processes._stat = adopted


def _die_later(env: Mapping[str, str]) -> None:
    """Start a process that kills this one, or its process group, if ``env`` asks for it."""
    moment = env.get(_KILL_AFTER)
    if moment is None:
        return
    del os.environ[_KILL_AFTER]  # hooks must not kill themselves
    os.setsid()
    victim = os.getpid()
    if os.fork():
        return
    time.sleep(float(moment))
    if os.getppid() == victim:
        (os.killpg if env.get(_KILL_GROUP) == "1" else os.kill)(victim, signal.SIGKILL)
    os._exit(0)


def _fill_disk(wanted: str | None) -> None:
    """Let disk operation number ``wanted`` and all later writes fail as on a full disk."""
    if wanted is None:
        return
    from theta import _fs

    left = [int(wanted)]
    frees = {"unlink", "rmtree", "rename", "lock"}

    def step(operation: str, path: str) -> None:
        left[0] -= 1
        if left[0] <= 0 and operation not in frees:
            raise _fs.as_theta_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path)

    _fs.on_step = step


def _limit_files(wanted: str | None) -> None:
    """Limit the size of files to ``wanted`` bytes; Python ignores the signal, so that writing fails."""
    if wanted is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(wanted), int(wanted)))


def _telling_loaded(wanted: str | None, command: Callable[[], int]) -> int:
    """Run ``command``; if ``wanted`` is given, append the modules that it loads to this file.

    To list the loaded modules is not free: a fork copies each page of which it counts a reference.
    """
    if wanted is None:
        return command()
    before = set(sys.modules)
    code = command()
    with Path(wanted).open("a") as file:
        file.writelines(f"{name}\n" for name in sorted(sys.modules.keys() - before))
    return code


def _counted(wanted: str | None) -> list[str] | None:
    """Return a list that grows with each disk operation; None if ``wanted`` is None."""
    if wanted is None:
        return None
    from theta import _fs

    steps: list[str] = []
    _fs.on_step = lambda operation, path: steps.append(operation)
    return steps


if __name__ == "__main__":
    serve(*sys.argv[1:])
