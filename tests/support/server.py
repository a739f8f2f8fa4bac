"""A theta that is loaded once, and forks for each command.

Starting Python and importing theta costs more than most commands do; a fork has them already, and
is a process of its own like any other.  The filter and the hooks that git starts come here too:
what ``theta install`` writes into a repository is a small program that hands its arguments,
directory, environment and standard streams over.  A command in another home directory is started
afresh, since libraries have read the old one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

HEAD: Final = 4
"""Bytes of the length that goes before a job."""
# Git starts it for the filter and for each hook.  client.c does the same in a tenth of the time.
_CLIENT: Final = """#!{python} -IS
import os, socket, sys
env = [name + b"=" + value for name, value in os.environb.items()]
args = [os.fsencode(arg) for arg in sys.argv[4:]]
job = [b"%d" % os.getpid(), os.getcwdb(), b"%d" % len(args), *args, *env]
body = b"".join(field + b"\\0" for field in job)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({path!r})
    socket.send_fds(connection, [len(body).to_bytes({head}, "little")], [0, 1, 2])
    connection.sendall(body)
    answer = connection.recv(1)
sys.exit(answer[0] if answer else 137)
"""


def make_client(program: Path, socket_path: str) -> None:
    """Make the program that hands over to the server: of C where there is a compiler, else of Python."""
    if compiler := shutil.which("cc"):
        source = Path(__file__).with_name("client.c")
        subprocess.run([compiler, f'-DSOCKET="{socket_path}"', "-o", program, source], check=True)
    else:
        program.write_text(_CLIENT.format(python=sys.executable, head=HEAD, path=socket_path))
        program.chmod(0o700)


class Server:
    """The loaded theta of this test session."""

    def __init__(self, home: Path) -> None:
        # The path of a socket has at most 107 bytes; a home in a long TMPDIR may be too far down.
        place = (
            home if len(os.fsencode(home)) < 90 else Path(tempfile.mkdtemp(prefix="theta-tests-", dir="/tmp"))
        )
        self._path = str(place / "theta.socket")
        self.program = home / "theta-python"
        make_client(self.program, self._path)
        command = [sys.executable, "-m", "tests.support.serving", self._path, str(self.program)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.stop()
            raise RuntimeError("theta could not be loaded; its own words are above")

    def run(
        self, args: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: str, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Exit code, standard output and standard error of ``theta ARGS``; -9 if it was killed."""
        with contextlib.ExitStack() as stack:
            streams: list[IO[bytes]] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            streams[0].write(stdin.encode("utf-8", "surrogateescape"))
            streams[0].seek(0)
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(timeout)
            connection.connect(self._path)
            job = [str(os.getpid()), str(cwd), str(len(args)), *args]
            job += [f"{name}={value}" for name, value in env.items()]
            _send(connection, job, [stream.fileno() for stream in streams])
            answer = connection.recv(1)
            for stream in streams[1:]:
                stream.seek(0)
            return answer[0] if answer else -9, streams[1].read(), streams[2].read()

    def stop(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


_running: list[Server] = []


def get() -> Server:
    """The server of this session, started when it is first wanted."""
    if not _running:
        _running.append(Server(Path.home()))
    return _running[0]


class Python:
    """The ``sys`` of a launcher that is written in the test's own process: it leads to the server too."""

    @property
    def executable(self) -> str:
        """The program that hands over to the server."""
        return str(get().program)


def stop() -> None:
    """End the server of this session, if there is one."""
    while _running:
        _running.pop().stop()


def _send(connection: socket.socket, job: Sequence[str], descriptors: Sequence[int]) -> None:
    body = b"".join(os.fsencode(field) + b"\0" for field in job)
    socket.send_fds(connection, [len(body).to_bytes(HEAD, "little")], list(descriptors))
    connection.sendall(body)
