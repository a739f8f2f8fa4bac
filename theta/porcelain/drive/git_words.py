"""The lines that git prints of a repository with checkpoints, without those on what theta does itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from theta.porcelain.drive.incoming import command

STORED: Final = ".theta/"
_NOTICE: Final = "You are in a sparse checkout with "
_OF_STOPS: Final = (
    *("Auto-merging ", "CONFLICT (", "error: could not apply ", "error: could not revert ", "hint: "),
    *("Could not apply ", "Recorded preimage for "),
)
"""The beginnings of lines about a stop, which theta may settle."""
_MERGES: Final = ("am", "merge", "pull")
_SUMMARY: Final = re.compile(r"\[.+ [0-9a-f]{4,64}\] ")
_OF_SUMMARY: Final = re.compile(
    r" (Author: |Date: |\d+ files? changed|(create|delete|rename|copy|mode|rewrite) )"
)


def plain(line: str) -> str:
    """Return ``line`` without its end, the codes with which git clears a line of progress, and inner tabs."""
    text = line.rstrip("\r\n").replace("\x1b[K", "")
    indented = len(text) - len(text.lstrip("\t"))
    return text[:indented] + text[indented:].expandtabs()


def is_of_user(line: str) -> bool:
    """Return whether ``line`` is about files of the user, not about ``.theta/`` or its absence."""
    return STORED not in line and not line.startswith(_NOTICE)


def is_of_files(line: str, checkpoints: Collection[str]) -> bool:
    """Return whether ``line`` about a stop is of other files than ``checkpoints`` and ``.theta/``."""
    return is_of_user(line) and not any(
        line.endswith((f" in {path}", f"Auto-merging {path}"))
        or line.startswith(f"CONFLICT (modify/delete): {path} ")
        for path in checkpoints
    )


def lists_files(args: Sequence[str]) -> bool:
    """Return whether ``git ARGS`` prints the paths of files that it merges, and asks nothing there."""
    name = command(args)
    if name == "stash":
        return not {"pop", "apply", "branch"}.isdisjoint(args)
    return name in _MERGES and {"-i", "--interactive"}.isdisjoint(args)


def of_user(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what passes a line that git prints on to ``tell`` if it is about files of the user."""

    def passed(line: str) -> None:
        if is_of_user(line):
            tell(plain(line))

    return passed


@dataclass
class Applying:
    """Passes on the lines that git prints while it applies commits.

    The summary of a new commit is left out: it counts and lists the files below ``.theta/``.  Lines about
    a stop are held, since theta may settle it and let git go on.

    Attributes:
        tell: gets a line of standard output, without the newline.
        warn: gets a line of standard error.
        pass_by: gets a line that the next one takes the place of.
    """

    tell: Callable[[str], None]
    warn: Callable[[str], None]
    pass_by: Callable[[str], None]
    _held: list[tuple[Callable[[str], None], str]] = field(default_factory=list)
    _in_summary: bool = False

    def out(self, line: str) -> None:
        """Take a line of standard output."""
        text = plain(line)
        self._in_summary = bool(_SUMMARY.match(text) or (self._in_summary and _OF_SUMMARY.match(text)))
        if not self._in_summary:
            self._heard(text, self.tell)

    def err(self, line: str) -> None:
        """Take a line of standard error."""
        text = plain(line)
        if line.endswith("\r"):
            self.pass_by(text)
        else:
            self._heard(text, self.warn)

    def _heard(self, text: str, tell: Callable[[str], None]) -> None:
        if text.startswith(_OF_STOPS):
            self._held.append((tell, text))
        elif is_of_user(text):
            tell(text)

    def release(self, checkpoints: Collection[str]) -> None:
        """Pass on the lines about a stop that is not settled; of ``checkpoints`` theta tells itself."""
        held, self._held = self._held, []
        for tell, text in held:
            if is_of_files(text, checkpoints):
                tell(text)

    def forget(self) -> None:
        """Drop the lines on the stop, which was settled."""
        self._held = []
