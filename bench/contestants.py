"""The tools that bench/run.py measures side by side: how each is set up, and what it runs for a step."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from measure import size

IDENTITY = (
    ("user.name", "Ada Bench"),
    ("user.email", "ada@example.com"),
    ("gc.auto", "0"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
)
PATTERN = "*.safetensors"
Command = list[str]


@dataclass(frozen=True)
class Step:
    """One thing that a user does: the files of ``version`` are put into the worktree before it."""

    kind: str
    name: str
    version: str = ""
    again: bool = False
    """It changes nothing that a second run would meet, so it is repeated in the same repository."""
    empty: bool = False
    """The kernel cache is empty before it."""


class Contestant(ABC):
    """One tool, with a home of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.caches, self.cache = 0, folder / "kernels"
        # An installed program has its bytecode; one that may not write it is compiled at each start.
        left_out = ("GIT_", "THETA_", "PYTHONDONTWRITEBYTECODE")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        self.env |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
        self.env |= {"GIT_CONFIG_NOSYSTEM": "1", "NUMBA_CACHE_DIR": str(self.cache)}
        folder.mkdir(parents=True)
        for key, value in IDENTITY:
            self.do("git", "config", "--global", key, value, where=folder)

    def do(self, *command: str, where: Path) -> str:
        """Run what is not measured; returns what it prints."""
        done = subprocess.run(
            command,
            cwd=where,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def prepare(self, repository: Path) -> None:
        """Make an empty repository that tracks the files of a model."""
        self.do("git", "init", "-q", str(repository), where=self.folder)
        self.track(repository)
        self.do("git", "add", "-A", where=repository)
        self.do("git", "commit", "-q", "--allow-empty", "-m", "track", where=repository)

    def choose_cache(self, *, empty: bool) -> None:
        """The kernel cache of the next command: an empty one, or the one that the warm-up filled."""
        self.caches += empty
        self.cache = self.folder / (f"kernels-{self.caches}" if empty else "kernels")
        self.env["NUMBA_CACHE_DIR"] = str(self.cache)

    def compiled(self) -> int:
        """Files of compiled kernels."""
        return sum(1 for _ in self.cache.rglob("*.nb*")) if self.cache.is_dir() else 0

    def bytes(self, repository: Path) -> int:
        """Bytes of the whole repository, without the worktree."""
        return size(repository / ".git")

    @abstractmethod
    def track(self, repository: Path) -> None:
        """Set up ``repository`` for the tool."""

    @abstractmethod
    def commands(self, step: Step, paths: list[str]) -> list[Command]:
        """Return the commands of ``step``, in order; empty if the tool has nothing like it."""

    @abstractmethod
    def version(self) -> str:
        """Return the version that the tool prints."""


def by_git(step: Step, paths: list[str]) -> list[Command]:
    """Git's commands for ``step``."""
    return {
        "commit": [["git", "add", "--", *paths], ["git", "commit", "-q", "-m", step.name]],
        "switch": [["git", "switch", "-q", "--detach", step.version]],
        "restore": [["git", "restore", f"--source={step.version}", "--", *paths]],
        "status": [["git", "status"]],
        "log": [["git", "--no-pager", "log", "-1"]],
        "version": [["git", "--version"]],
    }[step.kind]


class Git(Contestant):
    """Git alone."""

    def track(self, repository: Path) -> None:
        """Nothing is needed."""

    def commands(self, step: Step, paths: list[str]) -> list[Command]:
        """Git's own commands."""
        return by_git(step, paths)

    def version(self) -> str:
        """The version of git."""
        return self.do("git", "--version", where=self.folder)


class Lfs(Git):
    """Git with git-lfs."""

    def track(self, repository: Path) -> None:
        """As its manual says."""
        self.do("git", "lfs", "install", "--local", where=repository)
        self.do("git", "lfs", "track", PATTERN, where=repository)

    def version(self) -> str:
        """The version of git-lfs."""
        return self.do("git", "lfs", "version", where=self.folder)


class Theta(Contestant):
    """theta's own commands; ``path`` is the command, or a clone of the repository at some revision."""

    def __init__(self, name: str, folder: Path, path: Path) -> None:
        super().__init__(name, folder)
        self.path = path.resolve()
        self.command = str(self._launcher() if self.path.is_dir() else self.path)
        self.env["PATH"] = f"{Path(self.command).parent}{os.pathsep}{self.env['PATH']}"

    def _launcher(self) -> Path:
        self.env["PYTHONPATH"] = str(self.path)
        command = self.folder / "bin" / "theta"
        command.parent.mkdir()
        command.write_text(f"#!{sys.executable}\nfrom theta.__main__ import script\nscript()\n")
        command.chmod(0o755)
        return command

    def warm(self) -> None:
        """Compile all kernels: ``track`` begins to, in the background, and that takes a minute of a core."""
        self.do(self.command, "install", "--warm", where=self.folder)

    def track(self, repository: Path) -> None:
        """As its manual says."""
        self.do(self.command, "track", PATTERN, where=repository)

    def commands(self, step: Step, paths: list[str]) -> list[Command]:
        """Those of theta with the names of git's."""
        theta = self.command
        return {
            "commit": [[theta, "add", "--", *paths], [theta, "commit", "-q", "-m", step.name]],
            "switch": [[theta, "switch", "-q", "--detach", step.version]],
            "restore": [[theta, "restore", f"--source={step.version}", "--", *paths]],
            "status": [[theta, "status"]],
            "log": [[theta, "--no-pager", "log", "-1"]],
            "version": [[theta, "--version"]],
        }[step.kind]

    def version(self) -> str:
        """The version, and the commit where a clone is measured."""
        told = self.do(self.command, "--version", where=self.folder)
        if not self.path.is_dir():
            return f"{told} ({self.path})"
        return f"{told} at {self.do('git', 'describe', '--always', '--dirty', where=self.path)}"


class PlainGit(Theta):
    """git's commands in a repository of theta: filter and hooks do the work."""

    def commands(self, step: Step, paths: list[str]) -> list[Command]:
        """Those of git that call theta."""
        return by_git(step, paths) if step.kind in ("commit", "switch", "restore", "status") else []


@dataclass
class Floor:
    """The least time that any tool needs: see bench/floor.py."""

    folder: Path
    name: str = "floor"
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def commands(self, step: Step, sources: list[Path], wrote: int) -> list[Command]:
        """Read the files, hash and write what theta wrote; a checkout writes the files."""
        if step.kind not in ("commit", "switch", "restore") or not sources:
            return []
        size = wrote if step.kind == "commit" else sum(path.stat().st_size for path in sources)
        program = Path(__file__).with_name("floor.py")
        target = self.folder / "floor.bin"
        return [[sys.executable, "-I", "-S", str(program), str(size), str(target), *map(str, sources)]]
