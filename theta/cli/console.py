"""Everything that theta prints goes through here."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from theta.errors import ExitCode, ThetaError

if TYPE_CHECKING:
    from rich.console import Console

    from theta.store.snapshot import Progress

quiet = False


def out(text: str = "") -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """One line on standard output, unless ``--quiet``."""
    if not quiet:
        out(text)


def flushed() -> bool:
    """Whether all that was printed got out: nobody may read any more, or the disk be full."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True


def err(text: str) -> None:
    """One line on standard error."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """A warning."""
    err(f"warning: {text}")


def error(problem: ThetaError) -> None:
    """An error: one line, and a second one with the way out."""
    err(f"error: {_one_line(str(problem))}")
    if problem.hint:
        err(f"hint: {problem.hint}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def bug(problem: Exception) -> int:
    """What nobody expected: say that it is theta's fault, and where the story is."""
    if isinstance(problem, OSError):
        from theta._fs import as_theta_error

        known = as_theta_error(problem, problem.filename or "the repository")
        error(known)
        return int(known.exit_code)
    if os.environ.get("THETA_LOG"):
        traceback.print_exception(problem)
    place = traceback.extract_tb(problem.__traceback__)[-1]
    err(f"error: this is a bug in theta: {type(problem).__name__}: {_one_line(str(problem))[:300]}")
    err(f"hint: it happened at {place.filename}:{place.lineno}; THETA_LOG=1 prints the whole trace")
    return int(ExitCode.BUG)


def rich_console(*, stderr: bool = False) -> Console:
    """A rich console; colours only on a terminal, never with ``NO_COLOR``."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100"))
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=width)


def show(renderable: Any) -> None:
    """Print a rich table or panel on standard output."""
    sys.stdout.flush()
    rich_console().print(renderable)


def human(size: float) -> str:
    """A number of bytes for people: powers of 1000, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def shape_text(shape: Sequence[int]) -> str:
    """A shape for people."""
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape)) or "scalar"


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """One progress line (bytes, MB/s) on a terminal; none in a pipe or with ``--quiet``."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    started, done, shown = time.monotonic(), [0], [0.0]

    def advance(count: int) -> None:
        done[0] += count
        now = time.monotonic()
        if now - shown[0] > 0.1 and now - started > 0.3:
            shown[0] = now
            speed = done[0] / (now - started)
            sys.stderr.write(f"\r\x1b[K{what}: {human(done[0])}, {human(speed)}/s")
            sys.stderr.flush()

    try:
        yield advance
    finally:
        if shown[0]:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
