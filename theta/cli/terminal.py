"""The user at the terminal: gets questions, messages and progress."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from theta.cli import console, working
from theta.cli.common import heard

if TYPE_CHECKING:
    from theta.merging.strategies import Policy
    from theta.porcelain.commands.settlement import Settlement
    from theta.porcelain.drive.running import Said
    from theta.porcelain.merge.answers import Answer, Answers
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress


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
        return working.progress(what)

    def heard(self, said: Said) -> None:
        """Pass on what git said."""
        heard(said)

    def passing(self, line: str) -> None:
        """Show the step that git is at until something else is printed."""
        if console.is_watched():
            console.write_line(line)

    def settled(self, settlement: Settlement) -> None:
        """Tell what was settled and what stays in conflict."""
        from theta.cli import conflicts

        conflicts.told(settlement)


def on_terminal() -> bool:
    """Return whether standard input and output are terminals, so that a user can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
