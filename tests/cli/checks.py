"""The form of every refusal of the command line, and what a command writes on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess

from tests.support import Repo, server
from tests.support.repos import describe
from tests.support.terminals import is_readable

Done = subprocess.CompletedProcess[str]


def refused(done: Done, code: int, *words: str) -> None:
    """Assert one ``error:`` line with ``words``, at most one ``hint:`` line, and the exit code."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, describe(done)
    assert [line.split(":")[0] for line in lines] in (["error"], ["error", "hint"]), describe(done)
    assert len(lines[0]) > len("error: "), describe(done)
    for word in words:
        assert word in lines[0], describe(done)
    never_a_bug(done)


def never_a_bug(done: Done) -> None:
    """Assert that nothing unforeseen was printed, whatever the exit code."""
    said = done.stdout + done.stderr
    assert done.returncode != 70, describe(done)
    assert "Traceback" not in said, describe(done)
    assert "this is a bug" not in said, describe(done)


def on_terminal(repo: Repo, *args: str, keys: bytes = b"", env: dict[str, str] | None = None) -> str:
    """Run ``theta ARGS`` on a terminal; return all that it writes there."""
    leader, follower = pty.openpty()
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLUMNS": "200",
        "GIT_PAGER": "cat",
        **(env or {}),
    }
    command = [str(server.get().program), "-P", "-m", "theta", *args]
    with subprocess.Popen(
        command, cwd=repo.path, env=environment, stdin=follower, stdout=follower, stderr=follower
    ):
        os.close(follower)
        os.write(leader, keys)
        got = b""
        while is_readable(leader, 60):
            try:
                piece = os.read(leader, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            got += piece
    os.close(leader)
    return got.decode("utf-8", "surrogateescape")
