"""The end of a case, and of the cases of a seed together."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

FAULTS: Final = ("lost", "wrong", "executed", "other")
"""Kinds of faults: something that was stored is gone; something is not what it should be, and theta does not
say so; something of a stranger was run; a crash, a hang, a message without a reason or something left."""

NO_CASE: Final = "no case"
"""The word for a case that did not come about, such as a kill after the end; it is not counted."""


class FaultError(AssertionError):
    """Something that must never happen, of one of the kinds :data:`FAULTS`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@contextlib.contextmanager
def counted_as(kind: str) -> Iterator[None]:
    """Let checks of the tests that fail in the block be faults of a kind."""
    try:
        yield
    except AssertionError as error:
        raise FaultError(kind, str(error)) from error


@contextlib.contextmanager
def about(text: str) -> Iterator[None]:
    """Add to whatever the block raises what it was about."""
    try:
        yield
    except Exception as error:
        error.add_note(text)
        raise


class Campaign(Protocol):
    """Cases of one kind, in a process of their own.

    Attributes:
        name: one word.
        title: the first column of the page.
        counts: the word for its cases.
        each: the number of cases of each seed.
    """

    name: str
    title: str
    counts: str
    each: int

    def prepare(self, place: Path, /) -> None:
        """Make what all cases need, in the empty folder ``place``."""

    def case(self, seed: int, number: int, /) -> str:
        """Run one case; return a word for what came of it.

        Raises :class:`FaultError`, and ``AssertionError`` for something wrong.
        """


@dataclass
class Outcome:
    """The cases of one seed.

    Attributes:
        seed: the seed.
        cases: how many cases came about.
        seconds: the time that they took.
        words: what came of them, and how often.
        faults: the kind, the number of the case, and the text of each fault.
    """

    seed: int
    cases: int = 0
    seconds: float = 0.0
    words: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, int, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return a form for JSON."""
        return {**vars(self), "words": dict(self.words)}

    @classmethod
    def of_json(cls, body: Mapping[str, Any]) -> Outcome:
        """Return the outcome that :meth:`as_json` made this form of."""
        faults: Sequence[Sequence[Any]] = body["faults"]
        found = [(str(kind), int(number), str(text)) for kind, number, text in faults]
        return cls(
            int(body["seed"]), int(body["cases"]), float(body["seconds"]), Counter(body["words"]), found
        )


def _text(error: BaseException) -> str:
    return "\n".join([*getattr(error, "__notes__", ()), str(error)])


def run(campaign: Campaign, seed: int, only: int | None = None) -> Outcome:
    """Run the cases of a seed, or only the one with a number; no fault ends it."""
    found, begun = Outcome(seed), time.monotonic()
    for number in range(campaign.each) if only is None else (only,):
        try:
            word = campaign.case(seed, number)
        except FaultError as fault:
            found.faults.append((fault.kind, number, _text(fault)))
            word = fault.kind
        except Exception as error:  # of theta, of a check: no campaign expects any
            kind = "wrong" if isinstance(error, AssertionError) else "other"
            found.faults.append((kind, number, f"{type(error).__name__}: {_text(error)}"))
            word = kind
        found.words[word] += 1
        found.cases += word != NO_CASE
    found.seconds = time.monotonic() - begun
    return found
