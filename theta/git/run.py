"""Running git.  No other module starts programs."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

from theta import _fs, _modes
from theta.errors import NotFoundError, ThetaError, UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    import subprocess
    from concurrent import futures
else:
    futures = Module("concurrent.futures")
    subprocess = Module("subprocess")

DEFER = {"THETA_SMUDGE": "defer", "THETA_HOOKS": "off"}
"""The environment of a git run by theta, which does the work of filter and hooks itself."""

DEFER_FILES = {"THETA_SMUDGE": "defer"}
"""The same for the filter only: the hooks run."""

DURABLE: Final = ("core.fsync", "all")
"""The setting with which git also syncs loose objects, refs and the index."""

_MOST_KEYS: Final = 1000
PATIENT: Final = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")
"""Settings of a git that nobody watches: a connection that brings nothing for a minute counts as broken."""
_FULL: Final = "no space is left on the disk; free some and repeat the command"
"""The hint at a failure, for which git does not always give that reason."""
_GLANCE: Final = 0.2
"""Seconds between two looks whether to stop."""

_PATHSPECS = ("LITERAL", "GLOB", "NOGLOB", "ICASE")
"""Variables ``GIT_*_PATHSPECS`` of the user, which would change the meaning of theta's pathspecs."""

_PAGED: Final = "GIT_PAGER_IN_USE"
"""The variable with which git prints into a pipe as on a terminal, in colours."""

Heard = Callable[[str], None]
"""Gets a line that git prints, with the newline or carriage return that ends it."""


class GitFailedError(ThetaError):
    """A git command failed; the message is git's reason."""

    def __init__(self, command: str, code: int, stderr: str, *, hint: str = "") -> None:
        lines = [line for line in stderr.strip().splitlines() if line]
        last = lines[-1] if lines else f"git {command} failed with code {code}"
        fatal = (line for line in lines if line.startswith("fatal: "))  # advice may follow it
        super().__init__(next(fatal, last).removeprefix("fatal: ").removeprefix("error: "), hint=hint)
        self.code = code
        self.stderr = stderr


@dataclass(frozen=True)
class Result:
    """The exit code and output of a git command."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, with undecodable bytes as surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Git:
    """Runs git in one directory.

    Attributes:
        cwd: the directory.
        index_file: another index file for git to use.
        extra: environment variables; None to run git as the user would.
        programs: a directory to put first in PATH.
        marks: environment variables that identify git as a child process of this command.
    """

    cwd: Path
    index_file: Path | None = None
    extra: Mapping[str, str] | None = None
    programs: str = ""
    marks: Mapping[str, str] | None = None

    def with_programs(self, directory: str) -> Git:
        """Return the runner with ``directory`` first in PATH."""
        return replace(self, programs=directory)

    def in_directory(self, cwd: Path) -> Git:
        """Return the runner for another directory, from which git resolves path arguments."""
        return replace(self, cwd=cwd)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of git."""
        environment = (
            dict(os.environ) | {"GIT_NO_REPLACE_OBJECTS": "1"} | {**(self.extra or {}), **(self.marks or {})}
        )
        if self.extra is not None:
            # Hooks run with GIT_INDEX_FILE, which may be a temporary one of git stash.
            environment.pop("GIT_INDEX_FILE", None)
        environment.pop("GIT_INTERNAL_SUPER_PREFIX", None)  # most commands fail with it
        environment |= self._places(environment)
        if self.index_file is not None:
            environment["GIT_INDEX_FILE"] = str(self.index_file)
        if self.programs:
            environment["PATH"] = os.pathsep.join([self.programs, environment.get("PATH", os.defpath)])
        return environment | _durable(environment)

    def _places(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the user's relative ``GIT_DIR`` and ``GIT_WORK_TREE`` for a git in another directory."""
        named = {name: environment.get(name, "") for name in ("GIT_DIR", "GIT_WORK_TREE")}
        relative = {name: place for name, place in named.items() if place and not os.path.isabs(place)}
        if not relative or os.path.realpath(self.cwd) == os.path.realpath("."):
            return {}
        return {name: os.path.abspath(place) for name, place in relative.items()}

    def run(
        self,
        *args: str,
        stdin: bytes | None = None,
        check: bool = True,
        shown: Callable[[str], None] | None = None,
    ) -> Result:
        """Run ``git ARGS`` and capture its output; with ``check`` raises :class:`GitFailedError` if it fails.

        ``shown`` is called with each line of standard error as soon as git writes it.
        """
        environment = self.environment() | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        for name in (_PAGED, *(f"GIT_{kind}_PATHSPECS" for kind in _PATHSPECS)):
            environment.pop(name, None)
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self._start(args, environment, source, subprocess.PIPE, subprocess.PIPE) as child:
            stdout, stderr = child.communicate(stdin) if shown is None else _watched(child, stdin, shown)
        result = Result(child.returncode, stdout, stderr)
        if check and result.code:
            hint = _FULL if _fs.is_full(self.cwd) else ""
            raise GitFailedError(args[0], result.code, stderr.decode("utf-8", "replace"), hint=hint)
        return result

    def show(self, *args: str) -> int:
        """Run ``git ARGS`` on the user's terminal; return its exit code."""
        with self._start(args, self.environment(), None, None, None) as child:
            return _ended(child)

    def overhear(self, *args: str, more: Mapping[str, str], out: Heard, err: Heard | None = None) -> int:
        """Run ``git ARGS`` as :meth:`show`, in English, and read what it prints as soon as it does.

        ``out`` is called with each line of standard output.  ``err`` is called with each line of standard
        error; None leaves it to the user's terminal.  ``more`` are further environment variables.
        """
        environment = self.environment() | {"LANGUAGE": "C"} | dict(more)
        errors = None if err is None else subprocess.PIPE
        with self._start(args, environment, None, subprocess.PIPE, errors) as child:
            _heard(child, out, err)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def _start(
        self,
        args: Sequence[str],
        environment: dict[str, str],
        stdin: int | None,
        output: int | None,
        errors: int | None,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", *args],
                cwd=self.cwd,
                env=environment,
                stdin=stdin,
                stdout=output,
                stderr=errors,
                umask=_modes.for_programs(),
            )
        except FileNotFoundError as error:
            raise _missing() from error

    def conversation(self, *args: str) -> Conversation:
        """Start ``git ARGS`` that answers questions on its standard input, one a line."""
        environment = self.environment() | {"LC_ALL": "C"}
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        return Conversation(self._start(args, environment, pipe, pipe, nothing))

    def lines(self, *args: str, stdin: bytes | None = None) -> list[str]:
        """Return the NUL-separated fields that ``git ARGS``, with ``-z`` in ARGS, prints."""
        text = self.run(*args, stdin=stdin).text
        return text.split("\0")[:-1] if text else []

    def changes(self, command: str, *args: str) -> list[str]:
        """Return the NUL-separated fields that :meth:`compared` prints."""
        return self.compared(command, *args).text.split("\0")[:-1]

    def compared(self, command: str, *args: str) -> Result:
        """Run a command that compares, and again without submodules if git refuses ``.gitmodules``."""
        try:
            return self.run(command, *args)
        except GitFailedError as error:
            if "submodule." not in error.stderr:
                raise
            return self.run(command, "--ignore-submodules=all", *args)


class Conversation:
    """A git that answers questions, one a line, as long as this object lives."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        weakref.finalize(self, _end, child)

    def ask(self, question: str) -> bytes:
        """Send a question and return the first line of the answer."""
        asked, said = self._child.stdin, self._child.stdout
        assert asked is not None and said is not None
        try:
            asked.write(f"{question}\n".encode())
            asked.flush()
        except BrokenPipeError:
            return b""
        return said.readline()

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes of an answer."""
        assert self._child.stdout is not None
        return self._child.stdout.read(size)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a git that answers questions."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()


def _missing() -> NotFoundError:
    return NotFoundError("git is not installed", hint="install git 2.38 or newer")


def _watched(
    child: subprocess.Popen[bytes], stdin: bytes | None, shown: Callable[[str], None]
) -> tuple[bytes, bytes]:
    """Like :meth:`subprocess.Popen.communicate`, but pass each line of standard error to ``shown``."""
    lines, child.stderr = child.stderr, None
    with futures.ThreadPoolExecutor(1) as pool:
        rest = pool.submit(child.communicate, stdin)
        said = []
        # git ends a line of progress with a carriage return
        for line in io.TextIOWrapper(lines, "utf-8", "replace", newline=None) if lines else ():
            said.append(line)
            shown(line.rstrip())
        return rest.result()[0], "".join(said).encode()


def _heard(child: subprocess.Popen[bytes], out: Heard, err: Heard | None) -> None:
    """Pass what ``child`` prints to ``out`` and ``err`` until it ends."""
    with futures.ThreadPoolExecutor(1) as pool:
        errors = pool.submit(_each_line, child.stderr, err) if err else None
        _each_line(child.stdout, out)
        if errors:
            errors.result()


def _each_line(stream: IO[bytes] | None, heard: Heard) -> None:
    """Call ``heard`` with each line; git is read to its end even if that fails, since it would be killed."""
    assert stream is not None
    with io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="") as lines:
        try:
            for line in lines:
                heard(line)
        finally:
            for _ in lines:
                pass


def _durable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which git, and every git it starts, syncs all files it writes.

    By default git (2.38 and later) syncs packs, but neither loose objects nor refs nor the index: a power
    failure may leave a ref whose objects are empty.
    """
    count = environment.get("GIT_CONFIG_COUNT") or "0"
    number = int(count) if count.isdigit() else 0
    known = {environment.get(f"GIT_CONFIG_KEY_{n}", "").lower() for n in range(min(number, _MOST_KEYS))}
    if not count.isdigit() or DURABLE[0].lower() in known:
        return {}
    key, value = DURABLE
    return {
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": key,
        f"GIT_CONFIG_VALUE_{number}": value,
    }


@cache
def version() -> tuple[int, int]:
    """Return the version of git; (0, 0) when it does not say one."""
    words = re.search(r"(\d+)\.(\d+)", Git(Path()).run("--version", check=False).text)
    return (int(words[1]), int(words[2])) if words else (0, 0)


def fingerprint() -> str:
    """Return what tells the installed git from another one, without running it."""
    place = shutil.which("git")
    found = os.stat(place) if place else None
    return f"{place} {found.st_size} {found.st_mtime_ns}" if found else ""


def redirected() -> bool:
    """Return whether the environment sets the repository or its worktree."""
    return bool(os.environ.get("GIT_DIR") or os.environ.get("GIT_WORK_TREE"))


def configures() -> bool:
    """Return whether the environment has settings that libgit2 does not see (git-config(1), ENVIRONMENT).

    The setting that theta itself gives to each git it starts does not count.
    """
    if os.environ.get("GIT_CONFIG_PARAMETERS"):
        return True
    count = os.environ.get("GIT_CONFIG_COUNT") or "0"
    if count not in ("0", "1") or (count == "1" and os.environ.get("GIT_CONFIG_KEY_0") != DURABLE[0]):
        return True
    usual = os.path.expanduser("~/.gitconfig")
    if "GIT_CONFIG_SYSTEM" in os.environ:
        return True
    return os.environ.get("GIT_CONFIG_GLOBAL", usual) != usual


def skips_system() -> bool:
    """Return whether the environment keeps git from the system's configuration."""
    word = os.environ.get("GIT_CONFIG_NOSYSTEM", "").lower()
    return word not in ("", "0", "false", "no", "off")


def become(*args: str, as_user: bool = False) -> NoReturn:
    """Let ``git ARGS`` take the place of this process; ``as_user``: without any setting of theta's."""
    environment = dict(os.environ) if as_user else Git(Path()).environment()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and git is ended by
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe("git", ["git", *args], environment)
    except FileNotFoundError as error:
        raise _missing() from error


def as_user(*args: str) -> int:
    """Run ``git ARGS`` as the user would, without any setting of theta's; return its exit code."""
    try:
        with subprocess.Popen(["git", *args], env=dict(os.environ), umask=_modes.for_programs()) as child:
            return _ended(child)
    except FileNotFoundError as error:
        raise _missing() from error


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a git on the user's terminal, for a signal that of a shell.

    Whoever ends theta by a signal means that git: it removes its locks, and ends its editor.
    """
    passed_on = (signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in passed_on} if _is_main() else {}
    ours = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in ours:
        signal.signal(number, lambda number, _: child.send_signal(number))
    try:
        code = child.wait()
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _is_main() -> bool:
    """Return whether this is the thread that gets signals."""
    return threading.current_thread() is threading.main_thread()


def pager(command: str, usual: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the user's pager by the shell; it reads from a pipe.  ``usual`` are variables that may be set."""
    environment = {**usual, **os.environ}
    return subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, env=environment)


def shell(command: str, more: Mapping[str, str], stopped: Callable[[], bool]) -> int:
    """Run a command of the user by the shell, on the user's terminal; return its exit code.

    ``more`` are further environment variables.  When ``stopped`` returns True, the command is asked to end.
    Raises :class:`UsageError` when the system cannot start it.
    """
    try:
        started = subprocess.Popen(["/bin/sh", "-c", command], env={**os.environ, **more})
    except OSError as error:
        raise UsageError(f"the command cannot be started: {error.strerror}") from error
    with started as child:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GLANCE)
            if stopped():
                child.terminate()
                break
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


PLACE: Final = "{}"
VARIABLE: Final = "THETA_CANDIDATE"


def about(command: str, place: Path) -> tuple[str, dict[str, str]]:
    """Return ``command`` with ``{}`` replaced by the path ``place``, and the environment that names it too.

    The name of a file may come from a repository, and the user may have put ``{}`` in quotes: a path that the
    shell would not read as one word goes by the environment only.  Raises :class:`UsageError` for one in a
    command with ``{}``.
    """
    if PLACE in command and shlex.quote(str(place)) != str(place):
        raise UsageError(
            f"{place.name!r} is no name for a command line", hint=f"use ${VARIABLE} in place of {{}}"
        )
    return command.replace(PLACE, str(place)), {VARIABLE: str(place)}


def shell_output(command: str, more: Mapping[str, str]) -> tuple[int, str]:
    """Run a command of the user by the shell; return its exit code and what it prints.

    Its messages, on standard error, go to the user's terminal.  ``more`` are further environment variables.
    Raises :class:`UsageError` when the system cannot start it.
    """
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"the command cannot be started: {error.strerror}") from error
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return code, done.stdout.decode("utf-8", "replace")


def plain(cwd: Path, marks: Mapping[str, str] | None = None) -> Git:
    """Return a runner of git as the user would run it, with theta's filter and hooks."""
    return Git(cwd, marks=marks)
