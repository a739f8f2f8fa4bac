"""The shells: their programs of completion, and the words that these ask for."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import completing
else:
    completing = Module("theta.cli.completing")

SHELLS: Final = ("bash", "zsh", "fish")
_SPECIAL: Final = re.compile(r"^[#~]|[^\w@%+=:,./#~^-]")
"""A character that bash has to find behind a backslash."""


def script(shell: str) -> str:
    """Return the program for ``shell`` that lets it complete lines of theta."""
    if shell not in SHELLS:
        raise UsageError(f"no such shell: {shell}", hint=f"one of {', '.join(SHELLS)}")
    return (resources.files("theta.cli") / "shells" / f"theta.{shell}").read_text(encoding="utf-8")


def shell_of_user() -> str:
    """Return the shell that the environment names; bash when it names none that is known."""
    name = os.path.basename(os.environ.get("SHELL", ""))
    return name if name in SHELLS else SHELLS[0]


def asked(argv: Sequence[str]) -> int:
    """Do what the options ``--complete`` and ``--show-completion`` ask for."""
    if argv[0] == "--show-completion":
        console.out(*script(argv[1] if len(argv) > 1 else shell_of_user()).splitlines())
        return 0
    return complete(argv[1:])


def complete(args: Sequence[str]) -> int:
    """Print what completes a line, one word a line; a shell shows no errors, so there are none."""
    os.environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
    with contextlib.suppress(Exception):
        found = _WORDS[args[0]](args[1:])
        if found:
            console.out(*found)
    return 0


def _of_fish(line: Sequence[str]) -> list[str]:
    """Return the words for fish, which gives its last word quoted, and ends words by itself."""
    found = completing.words([*line[:-1], _split(line[-1])[0][-1]])
    return [one for word in found for one in _followed(word)]


def _followed(word: str) -> list[str]:
    """Return a word as it is, and a path also with the mark of a tensor behind it."""
    goes_on = not word.endswith((" ", *completing.OPEN))
    return [word, f"{word}#"] if goes_on else [word.rstrip(" ")]


def _of_bash(args: Sequence[str]) -> list[str]:
    """Return the words for bash, which replaces only what is behind the last of the characters ``breaks``."""
    point, breaks, line = args
    words, quote = _split(os.fsdecode(os.fsencode(line)[: int(point)]))
    ends = "" if quote else breaks.translate(dict.fromkeys(map(ord, " \t\n\"'")))
    cut = max((words[-1].rfind(one) for one in ends), default=-1) + 1
    found = completing.words(words)
    return [word.rstrip(" ") for word in found] if quote else [_escaped(word[cut:]) for word in found]


def _escaped(word: str) -> str:
    kept = word.removesuffix(" ")
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", kept) + word[len(kept) :]


def _split(line: str) -> tuple[list[str], str]:
    """Return the words of a line, "" behind a blank as the last one, and the quote that is still open."""
    words, word, quote, escaped = list[str](), "", "", False
    for character in line:
        if escaped or (quote and character != quote and not (quote == '"' and character == "\\")):
            word, escaped = word + character, False
        elif character == "\\":
            escaped = True
        elif character in "\"'":
            quote = "" if quote else character
        elif character.isspace():
            words, word = [*words, word] if word else words, ""
        else:
            word += character
    return [*words, word], quote


_WORDS: Final[dict[str, Callable[[Sequence[str]], list[str]]]] = {
    "bash": _of_bash,
    "fish": _of_fish,
    "zsh": lambda line: completing.words(line),
}
