"""A server that loads theta once, and forks for each command.

Starting Python and importing theta takes longer than most commands.  A fork has both done, and is a separate
process otherwise.  The filter and the hooks that git starts use the server too: in tests ``theta install``
writes a small program to a repository that passes its arguments, directory, environment and standard streams
to the server.  A command with another home directory is started in a new process, because libraries have
read the old one.
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
"""Bytes of the length that precedes a job."""
# Git starts this program for the filter and for each hook.  client.c does the same in a tenth of the time.
_CLIENT: Final = """#!{python} -IS
import os, socket, sys
if sys.argv[3:4] != ["theta"]:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
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
    """Write the program that passes a job to the server, in C if there is a compiler, otherwise in Python."""
    if compiler := shutil.which("cc"):
        source = Path(__file__).with_name("client.c")
        words = {"SOCKET": socket_path, "PYTHON": sys.executable}
        defined = [f'-D{name}="{value}"' for name, value in words.items()]
        subprocess.run([compiler, *defined, "-o", program, source], check=True)
    else:
        program.write_text(_CLIENT.format(python=sys.executable, head=HEAD, path=socket_path))
        program.chmod(0o700)


class Server:
    """The loaded theta of this test session."""

    def __init__(self, home: Path) -> None:
        # The path of a socket has at most 107 bytes, and that of a home in TMPDIR may be longer.
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
        """Run ``theta ARGS``; return exit code (-9 if it was killed), standard output and standard error."""
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
    """Return the server of this session, which is started on first use."""
    if not _running:
        _running.append(Server(Path.home()))
    return _running[0]


class Python:
    """A replacement of ``sys`` for launchers that the test's own process writes, to use the server too."""

    @property
    def executable(self) -> str:
        """The program that passes a job to the server."""
        return str(get().program)


def stop() -> None:
    """Stop the server of this session, if there is one."""
    while _running:
        _running.pop().stop()


def _send(connection: socket.socket, job: Sequence[str], descriptors: Sequence[int]) -> None:
    body = b"".join(os.fsencode(field) + b"\0" for field in job)
    socket.send_fds(connection, [len(body).to_bytes(HEAD, "little")], list(descriptors))
    connection.sendall(body)
