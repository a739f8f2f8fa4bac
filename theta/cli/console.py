"""Everything that theta prints goes through here, where foreign text becomes safe to show."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from theta.cli.foreign import visible, visible_line, visible_of_git
from theta.errors import DiskError, ExitCode, RefusedError, ThetaError
from theta.units import human as human

if TYPE_CHECKING:
    from rich.console import Console

    from theta.progress import Progress

quiet = False
colour = "auto"
"""``always`` or ``never`` where the command line says so."""


def out(*lines: str) -> None:
    """Lines on standard output; none is an empty one."""
    clear_line()
    with _writing():
        for line in lines or ("",):
            sys.stdout.write(visible_line(line) + "\n")


def on_screen() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def pass_on() -> None:
    """Standard input, which is what git prints, on standard output: safe to show, with git's colours."""
    with _writing():
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(visible_of_git(os.fsdecode(line)).encode())
        sys.stdout.buffer.flush()


def records(fields: Iterable[str]) -> None:
    """Fields for programs on standard output: byte for byte, with a NUL behind each."""
    flush()
    with _writing():
        sys.stdout.buffer.write(b"".join(os.fsencode(field) + b"\0" for field in fields))


class ReaderGoneError(Exception):
    """Nobody reads the output any more.  No ``OSError``: typer would end the process for that."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Say that it is the output that could not be written; a reader that went away ends the command."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except OSError as error:
        silence(sys.stdout)
        raise DiskError(f"cannot write the output: {error.strerror}") from error


def silence(stream: TextIO) -> None:
    """Let what is still in ``stream`` go nowhere, so that nothing fails when the process ends."""
    from theta import _fs

    with contextlib.suppress(OSError, ValueError):
        _fs.silence(stream.fileno())
        stream.flush()


def note(*lines: str) -> None:
    """Lines on standard output, unless ``--quiet``."""
    if not quiet:
        out(*lines)


def flush() -> None:
    """Get all out that was printed; raises :class:`DiskError` where that fails."""
    with _writing():
        sys.stdout.flush()


def err(*lines: str) -> None:
    """Lines on standard error; where nobody can be told, nobody is."""
    clear_line()
    with contextlib.suppress(DiskError, ReaderGoneError):
        flush()
    try:
        for line in lines:
            sys.stderr.write(visible_line(line) + "\n")
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def hints(lines: Iterable[str]) -> None:
    """Lines on what theta set up, on standard error: what is printed for programs stays as it is."""
    for line in lines:
        if not quiet:
            err(f"hint: {line}")


def warn(text: str) -> None:
    """A warning."""
    err(f"warning: {text}")


def error(problem: ThetaError) -> None:
    """An error: one line, and a second one with the way out; git's own words as they are."""
    text = str(problem) if isinstance(problem, RefusedError) else _one_line(str(problem))
    err(*f"error: {text}".split("\n"))
    if problem.hint:
        err(f"hint: {problem.hint}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def compiled_in_vain() -> None:
    """Say so where kernels were compiled that could not be kept for the next command."""
    saved = sys.modules.get("theta_native._saved")
    if saved is not None and saved.lost and not quiet:
        err("hint: kernels are compiled anew each time; with NUMBA_CACHE_DIR=DIR they are kept in DIR")


def bug(problem: Exception) -> int:
    """What nobody expected: say that it is theta's fault, and where the story is."""
    if isinstance(problem, OSError):
        from theta._fs import as_theta_error

        known = as_theta_error(problem, problem.filename or "the repository")
        error(known)
        return int(known.exit_code)
    if os.environ.get("THETA_LOG"):
        err(*"".join(traceback.format_exception(problem)).rstrip().split("\n"))
    place = traceback.extract_tb(problem.__traceback__)[-1]
    err(f"error: this is a bug in theta: {type(problem).__name__}: {_one_line(str(problem))[:300]}")
    err(f"hint: it happened at {place.filename}:{place.lineno}; THETA_LOG=1 prints the whole trace")
    return int(ExitCode.BUG)


def rich_console() -> Console:
    """A rich console; colours only on a terminal, never with ``NO_COLOR``."""
    from theta.cli.screen import Screen

    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100"))
    terminal = {"always": True, "never": None}.get(colour)
    return Screen(
        highlight=False,
        soft_wrap=False,
        emoji=False,
        width=width,
        force_terminal=terminal,
        no_color=colour == "never" or None,
    )


def show(renderable: Any) -> None:
    """Print a rich table or panel on standard output."""
    clear_line()
    flush()
    with _writing():
        rich_console().print(renderable)


def ask(question: str) -> str:
    """A line from the keyboard."""
    return input(visible(question))


def shape_text(shape: Sequence[int]) -> str:
    """A shape for people."""
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape)) or "scalar"


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """One progress line on a terminal; none in a pipe or with ``--quiet``."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from theta_native import watchers

    line = _ProgressLine(what)
    watchers.append(line.compiling)
    try:
        yield line
    finally:
        watchers.remove(line.compiling)
        clear_line()


@contextlib.contextmanager
def fetches() -> Iterator[Callable[[str], None] | None]:
    """What shows git's own progress of a fetch, on the same line of a terminal as :func:`progress`."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        yield _ProgressLine("fetching").show
    finally:
        clear_line()


_AFTER: Final = 0.5
"""Seconds that work takes before progress is shown."""
_EVERY: Final = 0.1
"""Seconds between two states of the line."""


class _ProgressLine:
    """Shows steps on one line of the terminal, which is written over and taken away in the end."""

    def __init__(self, what: str) -> None:
        self._what, self._of = what, ""
        self._began = self._since = time.monotonic()
        self._shown, self._done, self._total, self._compiled = 0.0, 0, 0, 0
        self._last, self._flowed, self._waits = self._since, 0, True

    def step(self, verb: str, total: int, of: str = "") -> None:
        """A step of ``total`` bytes begins."""
        self._what, self._of = verb, of or self._of
        self._since, self._done, self._total = time.monotonic(), 0, total
        self._last, self._flowed, self._waits = self._since, 0, True
        self.show(_step_text(verb, self._of, 0, total, 0.0))

    def __call__(self, nbytes: int) -> None:
        """``nbytes`` more are done."""
        now = time.monotonic()
        if self._waits:  # until now bytes were waited for, or kernels: that says nothing of the speed
            self._since += now - self._last
            self._waits = False
        else:
            self._flowed += nbytes
        self._last, self._done = now, self._done + nbytes
        seconds = now - self._since
        self.show(_step_text(self._what, self._of, self._done, self._total, seconds, self._flowed))

    def compiling(self) -> None:
        """A kernel is compiled, on whichever thread; all others wait for it."""
        self._compiled += 1
        self._waits = True
        self.show(f"compiling kernels, once after an installation: {self._compiled}")

    def show(self, text: str) -> None:
        """Show ``text``, unless it is too early for that."""
        now = time.monotonic()
        if now - self._began > _AFTER and now - self._shown > _EVERY:
            self._shown = now
            write_line(text)


def _step_text(verb: str, of: str, done: int, total: int, seconds: float, flowed: int | None = None) -> str:
    """A state of a step: ``hashing a.safetensors: 52 % of 793 MB, 67.1 MB/s, 6 s left``.

    ``flowed``: so many of the bytes were done in these ``seconds``; all where it is None.
    """
    name = f"{verb} {of}".strip()
    if not total:
        return name
    done = min(done, total)
    parts = [f"{name}: {100 * done // total} % of {human(total)}"]
    flowed = done if flowed is None else flowed
    if flowed and seconds > 0:
        parts += [f"{human(flowed / seconds)}/s", f"{duration((total - done) * seconds / flowed)} left"]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time for people, in its two largest units."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_line_is_up = False


def write_line(text: str) -> None:
    """Write ``text`` over the line that the cursor is on, cut to the width of the terminal."""
    global _line_is_up
    width = shutil.get_terminal_size().columns
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r\x1b[K{visible(_one_line(text))[: width - 1]}")
        sys.stderr.flush()
    _line_is_up = True


def clear_line() -> None:
    """Take the line of :func:`write_line` away, before anything else is printed."""
    global _line_is_up
    if _line_is_up:
        with contextlib.suppress(OSError):
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        _line_is_up = False
