"""Everything that theta prints goes through here, where foreign text becomes safe to show."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from theta.errors import DiskError
from theta.git.display.colours import Looks, Palette
from theta.git.quoting import one_line, visible, visible_line, visible_of_git

if TYPE_CHECKING:
    from theta.git.repository import Repository

quiet = False
colour = "auto"
"""``always`` or ``never`` where the command line says so."""
paged = False
"""Whether the user's pager gets the output."""
repository: Repository | None = None
"""The repository whose settings of colours hold."""
_line_is_up = False


def out(*lines: str, painted: bool = False) -> None:
    """Print lines on standard output; none is an empty one.  In ``painted`` ones only colours are obeyed."""
    clear_line()
    with writing():
        for line in lines or ("",):
            sys.stdout.write((visible_of_git if painted else visible_line)(line) + "\n")


def here(path: str) -> str:
    """Return ``path`` (from the root of the worktree) as a path from the current directory."""
    return path if repository is None else repository.here(path)


def palette(kind: str = "ui") -> Palette:
    """Return the colours of a part of git, such as ``status``."""
    able = on_screen() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    given = any(name in os.environ for name in ("GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"))
    return Palette(repository, kind, Looks(colour, able, paged, given))


def on_screen() -> bool:
    """Return whether standard output is for a terminal, through a pager too."""
    return paged or sys.stdout.isatty()


def is_watched() -> bool:
    """Return whether to show progress: standard error is a terminal, and ``--quiet`` was not given."""
    return not quiet and sys.stderr.isatty()


def records(fields: Iterable[str]) -> None:
    """Print fields for programs on standard output: byte for byte, with a NUL behind each."""
    flush()
    with writing():
        sys.stdout.buffer.write(b"".join(os.fsencode(field) + b"\0" for field in fields))


class ReaderGoneError(Exception):
    """Nobody reads the output any more.  No ``OSError``: typer would end the process for that."""


@contextlib.contextmanager
def writing() -> Iterator[None]:
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
    """Print lines on standard output, unless ``--quiet``."""
    if not quiet:
        out(*lines)


def flush() -> None:
    """Flush everything that was printed; raises :class:`DiskError` if that fails."""
    with writing():
        sys.stdout.flush()


def err(*lines: str) -> None:
    """Print lines on standard error, or to the pager that has the terminal; nothing happens if that fails."""
    clear_line()
    with contextlib.suppress(DiskError, ReaderGoneError):
        flush()
    stream = sys.stdout if paged and sys.stderr.isatty() else sys.stderr
    try:
        stream.writelines(visible_line(line) + "\n" for line in lines)
        stream.flush()
    except OSError:
        silence(stream)


def hints(lines: Iterable[str]) -> None:
    """Print lines on what theta set up on standard error: what is printed for programs stays as it is."""
    for line in lines:
        if not quiet:
            err(f"hint: {line}")


def warn(text: str) -> None:
    """Print a warning."""
    err(f"warning: {text}")


def ask(question: str) -> str:
    """Read a line from the keyboard."""
    return input(visible(question))


def write_line(text: str) -> None:
    """Write ``text`` over the line that the cursor is on, cut to the width of the terminal."""
    global _line_is_up
    width = shutil.get_terminal_size().columns
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r\x1b[K{visible(one_line(text))[: width - 1]}")
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
