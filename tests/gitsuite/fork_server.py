"""A server that runs the commands which ``stand_in.c`` hands over, each in a fork that has theta loaded.

Unlike that of ``tests.support`` it runs them in a fork of the fork, where git may take the place of theta,
and with the home directory that the command has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import pygit2

from tests.support import environment, make_model, random_tensors, serving
from theta.git.options import BEFORE_COMMAND
from theta.porcelain.setup.installing import STORE_ATTRIBUTES as _STORES

_MUTE: Final[dict[str, Any]] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


_INITIAL: Final = "STAND_IN_INITIAL"
"""``checkpoint`` or ``file``: what ``git init`` puts into the index of each new repository."""


@dataclass(frozen=True)
class Place:
    """The directory of the stand-in, that of the real git, and the program that hooks and filter start."""

    own: str
    real: str
    program: str


def serve(path: str, *words: str) -> None:
    """Fork for each connection until standard input ends.  ``words`` are the fields of a :class:`Place`."""
    place = Place(*words)
    serving.listen(path, lambda connection: _answer(connection, place))


def _answer(connection: socket.socket, place: Place) -> NoReturn:
    """Run one command in a fork, send its exit code and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 70
    with contextlib.suppress(BaseException):
        job, descriptors = serving._receive(connection)
        child = os.fork()
        if child == 0:
            connection.close()
            _command(job, descriptors, place)
        for descriptor in descriptors:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.send(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _command(job: Mapping[str, Any], descriptors: list[int], place: Place) -> NoReturn:
    """Run a job in this process and end it."""
    code = 70
    try:
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        env = dict(job["env"])
        os.umask(int(env.pop("STAND_IN_UMASK", "022"), 8))
        env["PATH"] = env.get("PATH", os.defpath).replace(place.own, place.real)
        initial = env.pop(_INITIAL, "")
        os.environ.clear()
        os.environ.update(env)
        os.chdir(job["cwd"])
        _settle_in(Path(env.get("HOME", "/")))
        serving._adopt(int(job["client"]))
        sys.executable = place.program
        code = (
            initialised(job["args"], initial) if _command_of(job["args"]) == "init" else _theta(job["args"])
        )
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _settle_in(home: Path) -> None:
    """Let libgit2, which read the old HOME when it was loaded, find the configuration in ``home``."""
    for level, directory in environment.search_paths(home).items():
        pygit2.settings.search_path[level] = str(directory)


def _command_of(args: Sequence[str]) -> str:
    """Return the first word that is neither an option of git's own nor the value of one."""
    words = iter(args)
    for word in words:
        if not word.startswith("-"):
            return word
        if word in BEFORE_COMMAND:
            next(words, None)
    return ""


def initialised(args: Sequence[str], initial: str) -> int:
    """Run ``git ARGS``, an init, and stage a model in the new repository, as a checkpoint or a file."""
    if not initial:
        return _theta(args)
    code = subprocess.call(["git", *args])
    at = list(args).index("init")
    named = [word for word in args[at + 1 :] if not word.startswith("-")]
    place = Path(named[-1] if named else ".")
    if code or "--bare" in args or "GIT_DIR" in os.environ or not (place / ".git").exists():
        return code
    os.chdir(place)
    if (
        os.path.exists(".gitattributes")
        or subprocess.call(["git", "rev-parse", "-q", "--verify", "HEAD"], **_MUTE) == 0
    ):
        return code
    make_model(Path("model.safetensors"), random_tensors({"a": (8, 4), "b": (4,)}))
    if initial == "checkpoint":
        for words in (["track", "*.safetensors"], ["add", "model.safetensors"]):
            _quietly(words)
    else:
        Path(".gitattributes").write_text(
            "*.safetensors filter=theta diff=theta merge=text -text\n" + _STORES + "\n"
        )
        subprocess.call(["git", "add", ".gitattributes", "model.safetensors"], **_MUTE)
    return code


def _quietly(words: list[str]) -> None:
    """Run ``theta WORDS`` in a fork that prints nothing."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        os._exit(_theta(words) & 0xFF)
    os.waitpid(child, 0)


def _theta(args: Sequence[str]) -> int:
    from theta.cli.app import run

    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    return run(args, alone=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
