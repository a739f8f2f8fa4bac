"""Progress on one line of the terminal while a command works."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from theta.cli import console
from theta.lazy import Module

if TYPE_CHECKING:
    import theta_native
    from theta.cli import progress_line
    from theta.progress import Progress
else:
    progress_line = Module("theta.cli.progress_line")
    theta_native = Module("theta_native")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """Show one progress line on a terminal; none in a pipe or with ``--quiet``."""
    if not console.is_watched():
        yield None
        return
    line = progress_line.ProgressLine(what, console.write_line)
    theta_native.watchers.append(line.compiling)
    try:
        yield line
    finally:
        theta_native.watchers.remove(line.compiling)
        console.clear_line()


@contextlib.contextmanager
def fetches() -> Iterator[Callable[[str], None] | None]:
    """Yield a function that shows git's progress of a fetch on the line of :func:`progress`."""
    if not console.is_watched():
        yield None
        return
    try:
        yield progress_line.ProgressLine("fetching", console.write_line).show
    finally:
        console.clear_line()
