"""The user at the terminal: gets questions, messages, and progress on one line while a command works."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from theta.cli import console
from theta.lazy import Module

if TYPE_CHECKING:
    import theta_native
    from theta.cli import conflicts, progress_line
    from theta.merging import result_file
    from theta.merging.strategies import Policy
    from theta.porcelain.commands.merge_request import SettledFile, Settlement
    from theta.porcelain.drive.running import Said
    from theta.porcelain.merge.answers import Answer, Answers
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress
else:
    conflicts = Module("theta.cli.conflicts")
    progress_line = Module("theta.cli.progress_line")
    result_file = Module("theta.merging.result_file")
    theta_native = Module("theta_native")


class Terminal:
    """The user at a terminal or behind a pipe: gets questions, messages and progress."""

    aloud = True

    def __init__(self, *, no_prompt: bool = False) -> None:
        self._no_prompt = no_prompt

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask, who did not forbid it."""
        return not self._no_prompt and on_terminal()

    def asker(self, session: Session, answers: Answers) -> Policy:
        """Return the prompt."""
        from theta.cli.prompting import Prompt

        return Prompt(session, answers).decide

    def recalled(self, answer: Answer) -> None:
        """Tell that an answer is used again."""
        console.note(f"{answer.conflict.name}: {answer.strategy}, as answered before")

    def progress(self, what: str) -> AbstractContextManager[Progress | None]:
        """Return a progress line."""
        return progress(what)

    def heard(self, said: Said) -> None:
        """Pass on what git said."""
        heard(said)

    def passing(self, line: str) -> None:
        """Show the step that git is at until something else is printed."""
        if console.is_watched():
            console.write_line(line)

    def settled(self, settlement: Settlement) -> None:
        """Tell what was settled and what stays in conflict."""
        for item in settlement.settled:
            _report(item)
        if settlement.unmerged:
            conflicts.left(settlement)


def can_show(text: str) -> bool:
    """Return whether the encoding of standard output has all letters of ``text``."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def on_terminal() -> bool:
    """Return whether standard input and output are terminals, so that a user can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def heard(said: Said) -> None:
    """Pass on what git said."""
    if said.out:
        console.note(*said.out)
    if said.err:
        console.err(*said.err)


def _report(item: SettledFile) -> None:
    """Print one line for a checkpoint that was settled."""
    if item.tensors is None:
        console.note(f"{console.here(item.path)}: removed")
        return
    decided = {name: by for name, by in item.decided.items() if name != result_file.CONTAINER}
    how = ", ".join(sorted(set(decided.values())))
    tail = f", {len(decided)} of them by {how}" if decided else ""
    console.note(f"{console.here(item.path)}: merged {item.tensors} tensors{tail}")


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
