"""A git repository in which a test runs git and theta."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support import server
from tests.support.environment import dated

TIMEOUT = 600
"""Seconds after which a command is considered to hang."""

Done = subprocess.CompletedProcess[str]


class Repo:
    """A repository at ``path``; git's clock advances by a minute with each command.

    theta runs in a fork of the session's server; if ``afresh``, it is started as by a user's shell.
    """

    def __init__(self, path: Path, ticks: int = 0) -> None:
        self.path = path
        self.ticks = ticks
        self.afresh = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create a repository with one commit of one small file."""
        path.mkdir(parents=True)
        repo = cls(path)
        repo.git("init", "--quiet")
        repo.write("code.py", "print('hello')\n")
        repo.git("add", "code.py")
        repo.git("commit", "--quiet", "-m", "initial")
        return repo

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the worktree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def git(self, *args: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Return the output of ``git ARGS`` without trailing newlines; it must succeed."""
        done = self.try_git(*args, stdin=stdin, env=env)
        assert done.returncode == 0, describe(done)
        return done.stdout.rstrip("\n")

    def try_git(self, *args: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Done:
        """Run ``git ARGS``, which may fail."""
        return self.run("git", *args, stdin=stdin, env=env)

    def theta(
        self,
        *args: str,
        code: int | None = 0,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run ``theta ARGS``, which must end with exit code ``code`` (None for any)."""
        done = self._theta(args, stdin, env)
        assert code is None or done.returncode == code, describe(done)
        return done

    def _theta(self, args: tuple[str, ...], stdin: str | None, env: Mapping[str, str] | None) -> Done:
        if self.afresh:
            return self.run(sys.executable, "-m", "theta", *args, stdin=stdin, env=env)
        self.ticks += 1
        environment = os.environ | dated(self.ticks) | dict(env or {})
        ended, *printed = server.get().run(args, self.path, environment, stdin or "", TIMEOUT)
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in printed)
        return Done(["theta", *args], ended, out, err)

    def run(self, *command: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Done:
        """Run any command in the worktree."""
        self.ticks += 1
        return subprocess.run(
            command,
            cwd=self.path,
            env=os.environ | dated(self.ticks) | dict(env or {}),
            input="" if stdin is None else stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=TIMEOUT,
            check=False,
        )

    def clone(self, path: Path, *args: str) -> Repo:
        """Clone with plain git, over the transport of a server."""
        self.git("clone", "--quiet", *args, self.path.as_uri(), str(path))
        return Repo(path, self.ticks)

    def copy(self, path: Path) -> Repo:
        """Copy the repository with its worktree."""
        shutil.copytree(self.path, path, symlinks=True)
        copied = Repo(path, self.ticks)
        copied.afresh = self.afresh
        return copied

    def fsck(self) -> None:
        """Assert that ``git fsck`` finds no errors; unreachable objects are no errors."""
        done = self.try_git("fsck", "--full", "--strict", "--no-dangling", "--no-progress")
        assert done.returncode == 0, describe(done)
        assert (done.stdout, done.stderr) == ("", ""), describe(done)

    def stored_bytes(self) -> int:
        """Return the bytes of all object files of the repository."""
        objects = Path(self.git("rev-parse", "--path-format=absolute", "--git-path", "objects"))
        return sum(file.stat().st_size for file in objects.rglob("*") if file.is_file())


def describe(done: Done) -> str:
    """Describe a finished command, for the message of a failed assertion."""
    command = " ".join(map(str, done.args))
    return f"{command}\nexit code {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
