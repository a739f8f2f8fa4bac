"""The other side of a command, which gets its questions, messages and progress: a terminal, or nobody."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from theta.merging.strategies import Policy
    from theta.porcelain.commands.merge_request import Settlement
    from theta.porcelain.drive.running import Said
    from theta.porcelain.merge.answers import Answer, Answers
    from theta.porcelain.workspace.session import Session
    from theta.progress import Progress


class Dialogue(Protocol):
    """The other side of a command: a user at a terminal, or a program."""

    @property
    def aloud(self) -> bool:
        """Whether git has the terminal: it prints there, and opens an editor."""
        ...

    @property
    def asks(self) -> bool:
        """Whether there is somebody to ask."""
        ...

    def asker(self, session: Session, answers: Answers) -> Policy:
        """Return the function that asks about a tensor and adds to ``answers``; used if :attr:`asks`."""
        ...

    def recalled(self, answer: Answer) -> None:
        """Note that an answer that was given before is used."""
        ...

    def progress(self, what: str) -> AbstractContextManager[Progress | None]:
        """Show progress during a ``with`` block."""
        ...

    def heard(self, said: Said) -> None:
        """Note that git said this of files."""
        ...

    def passing(self, line: str) -> None:
        """Note that git is at this step."""
        ...

    def settled(self, settlement: Settlement) -> None:
        """Note that checkpoints were settled, or were not; a commit may follow."""
        ...


class Nobody:
    """A program: it gets no questions and no messages, and finds everything in the result."""

    aloud = False
    asks = False

    def asker(self, _session: Session, _answers: Answers) -> Policy:
        """Leave every tensor in conflict."""
        return lambda _: None

    def recalled(self, answer: Answer) -> None:
        """Tell nobody."""

    def progress(self, _what: str) -> AbstractContextManager[None]:
        """Show nothing."""
        return nullcontext()

    def heard(self, said: Said) -> None:
        """Tell nobody."""

    def passing(self, line: str) -> None:
        """Tell nobody."""

    def settled(self, settlement: Settlement) -> None:
        """Tell nobody."""


NOBODY: Final = Nobody()
