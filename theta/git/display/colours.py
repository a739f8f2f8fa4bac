"""The colours of git's output: its settings ``color.*``.

The first of these that is there decides whether there are any: the command line, ``color.KIND``,
``color.ui``.  Where they leave it open, there are colours on a terminal that can show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from theta.git.quoting import visible
from theta.lazy import lazy

if TYPE_CHECKING:
    from theta.git.repository import Repository

_RESET: Final = "\x1b[m"
_RED, _GREEN, _YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"
_USUAL: Final = {
    "status": {
        "header": "",
        "branch": "",
        "added": _GREEN,
        **dict.fromkeys(("changed", "untracked", "unmerged", "nobranch"), _RED),
    },
    "diff": {"old": _RED, "new": _GREEN, "changed": _YELLOW},
}
"""git's slots and what they are without a setting; ``changed`` of a diff is theta's."""
_OTHER_NAMES: Final = {"added": "updated"}
_OF_STATUS: Final = {"A": "new", "D": "old"}
_NEVER: Final = ("never", "false", "no", "off", "0")


class Looks(NamedTuple):
    """The output: WHEN of the command line, whether it can show colours, whether a pager has it.

    ``given``: the command line or the environment has settings of git.
    """

    when: str
    able: bool
    paged: bool
    given: bool


class Palette:
    """The colours of one part of git, such as ``status``."""

    def __init__(self, repository: Repository | None, kind: str, looks: Looks) -> None:
        self._repository, self._kind, self._looks = repository, kind, looks

    @lazy
    def on(self) -> bool:
        """Whether to print in colours."""
        when = self._looks.when
        if when == "auto":
            when = self._setting(f"color.{self._kind}") or self._setting("color.ui")
        if when.lower() in (*_NEVER, "always"):
            return when.lower() == "always"
        refused = self._looks.paged and self._setting("color.pager").lower() in _NEVER
        return self._looks.able and not refused

    def paint(self, slot: str, text: str) -> str:
        """Return ``text``, safe to show, in the colour of a slot."""
        start = self.code(slot)
        return f"{start}{visible(text)}{_RESET}" if start and text else visible(text)

    def code(self, slot: str) -> str:
        """Return the control sequence of a slot; empty where nothing is to be coloured."""
        if not self.on:
            return ""
        keys = [f"color.{self._kind}.{name}" for name in (slot, _OTHER_NAMES.get(slot, slot))]
        key = next(filter(self._setting, keys), None)
        if key is None or self._repository is None:
            return _USUAL[self._kind][slot]
        return self._repository.git().run("config", "--get-color", key, check=False).text

    def of_status(self, letter: str) -> str:
        """Return the control sequence for what happened to a tensor."""
        return self.code(_OF_STATUS.get(letter, "changed"))

    def letter(self, letter: str) -> str:
        """Return the letter of what happened to a tensor, in its colour."""
        return self.paint(_OF_STATUS.get(letter, "changed"), letter)

    def _setting(self, key: str) -> str:
        if self._repository is None:
            return ""
        return self._given.get(key) or self._repository.config.get(key) or ""

    @lazy
    def _given(self) -> Mapping[str, str]:
        """The settings of the command line and the environment, which no file has."""
        if self._repository is None or not self._looks.given:
            return {}
        done = self._repository.git().run("config", "-z", "--get-regexp", "^color[.]", check=False)
        lines = (line.partition("\n") for line in done.text.split("\0"))
        return {key: value for key, _, value in lines}
