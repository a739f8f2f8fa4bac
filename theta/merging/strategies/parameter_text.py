"""The text format of parameters: ``density=0.5,weight=[0.6,0.4],t={self_attn:[0,1],*:0.5}``.

Values are numbers, ``true`` and ``false``, words, lists in brackets (a gradient over the layers, or one
value for each model), and filters in braces.  A tensor gets the value of the first filter that its name
contains; ``*`` matches all names.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final, Union

from theta.errors import UsageError

_ATOM: Final = re.compile(r"[^,\[\]{}:=\s\"]+")
_KEY: Final = re.compile(r"[a-z0-9_]+")
_MAX_TEXT: Final = 1 << 16
_MAX_DEPTH: Final = 8


@dataclass(frozen=True)
class Filtered:
    """Pairs (part of a name, value); the first part that a tensor's name contains decides."""

    entries: tuple[tuple[str, Setting], ...]

    def at(self, name: str) -> Setting | None:
        """Return the value for tensor ``name``; None when no filter matches."""
        return next((value for part, value in self.entries if part == "*" or part in name), None)


Setting = Union[bool, float, str, "tuple[Setting, ...]", Filtered]


class _Reader:
    """A cursor over the text of parameters."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_TEXT:
            raise UsageError(f"parameters of {len(text)} characters are too long")
        self._text, self._at = text, 0

    def fail(self, wanted: str) -> UsageError:
        rest = self._text[self._at : self._at + 40]
        return UsageError(f"expected {wanted} at {rest!r}" if rest else f"expected {wanted} at the end")

    def _skip(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def done(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def take(self, mark: str) -> bool:
        self._skip()
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) * found
        return found

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self.fail(wanted)
        self._at = found.end()
        return found[0]

    def value(self, depth: int = 0) -> Setting:
        if depth > _MAX_DEPTH:
            raise UsageError("parameters are nested too deeply")
        if self.take("["):
            return self._list(depth)
        if self.take("{"):
            return Filtered(self._entries(depth))
        return atom(self.match(_ATOM, "a value"))

    def _list(self, depth: int) -> tuple[Setting, ...]:
        found = [self.value(depth + 1)]
        while self.take(","):
            found.append(self.value(depth + 1))
        if not self.take("]"):
            raise self.fail("']'")
        return tuple(found)

    def _entries(self, depth: int) -> tuple[tuple[str, Setting], ...]:
        found = [self._entry(depth)]
        while self.take(","):
            found.append(self._entry(depth))
        if not self.take("}"):
            raise self.fail("'}'")
        return tuple(found)

    def _entry(self, depth: int) -> tuple[str, Setting]:
        self._skip()
        part = self._quoted() if self._text.startswith('"', self._at) else self.match(_ATOM, "a filter")
        if not self.take(":"):
            raise self.fail("':'")
        return part, self.value(depth + 1)

    def _quoted(self) -> str:
        try:
            found, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
        except ValueError as error:
            raise self.fail("a quoted filter") from error
        return str(found)


def atom(text: str) -> Setting:
    """Parse ``true``, ``false`` or a finite number; anything else is a word."""
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise UsageError(f"{text} is not a number that a parameter can have")
    return number


def read(text: str) -> dict[str, Setting]:
    """Parse the parameters in ``text``; raises :class:`UsageError`."""
    reader = _Reader(text)
    found: dict[str, Setting] = {}
    while not reader.done():
        if found and not reader.take(","):
            raise reader.fail("','")
        key = reader.match(_KEY, "a parameter")
        if not reader.take("="):
            raise reader.fail(f"'=' after {key}")
        if key in found:
            raise UsageError(f"{key} is given twice")
        found[key] = reader.value()
    return found


def text(value: Setting) -> str:
    """Return the shortest text that :func:`read` parses as ``value``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Filtered):
        return "{" + ",".join(f"{_part(part)}:{text(inner)}" for part, inner in value.entries) + "}"
    return "[" + ",".join(map(text, value)) + "]"


def _part(part: str) -> str:
    return part if _ATOM.fullmatch(part) else json.dumps(part)
