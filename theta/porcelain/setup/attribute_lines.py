"""Reading and writing the lines of a ``.gitattributes`` file (gitattributes(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _fs
from theta.git.quoting import split_lines

ATTRIBUTES: Final = ("filter=theta", "diff=theta", "merge=text", "-text")
"""The attributes of a tracked pattern; ``merge`` overrides the driver of any other line."""

_SPACE: Final = "[[:space:]]"
_BLANK: Final = re.compile(r"[ \t\n\r\f\v]")
"""The characters that ``[[:space:]]`` matches; git knows no others of Unicode as blanks."""
_WORD: Final = re.compile(r"[^ \t\r\n]+")
_OURS: Final = re.compile(r"[-!]?(filter|diff|merge|text)(=.*)?")
_ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7]{2})|(.))")
_NAMED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class AttributeLine:
    """A line with its pattern as :func:`encoded` spells it ('' for a comment) and its attributes."""

    text: str
    pattern: str = ""
    attributes: tuple[str, ...] = ()

    @property
    def is_tracked(self) -> bool:
        """Whether the line sets theta's filter."""
        return "filter=theta" in self.attributes


def parse(text: str) -> AttributeLine:
    """Parse a line."""
    body = text.strip(" \t\r")
    if not body or body.startswith("#"):
        return AttributeLine(text)
    if found := re.match(r'"((?:[^"\\]|\\.)*)"', body):
        pattern, rest = encoded(_ESCAPE.sub(_unescaped, found[1])), body[found.end() :]
    else:
        pattern, rest = _WORD.match(body)[0], _WORD.sub("", body, count=1)  # type: ignore[index]
    return AttributeLine(text, pattern, tuple(_WORD.findall(rest)))


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return bytes([int(found[1], 8)]).decode("utf-8", "surrogateescape")
    return _NAMED.get(found[2], found[2])


def encoded(pattern: str) -> str:
    """Replace spaces, and a leading '#' or '"', by bracket expressions that match them."""
    spelled = _BLANK.sub(lambda _: _SPACE, pattern)
    return f"[{spelled[0]}]{spelled[1:]}" if spelled[:1] in ("#", '"') else spelled


def literal(name: str) -> str:
    """Return the pattern that matches only the file ``name``."""
    spelled = re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", name.replace("\\", "\\\\"))
    return encoded(f"\\{spelled}" if spelled.startswith("!") else spelled)


def shown(pattern: str) -> str:
    """Return ``pattern`` with plain spaces."""
    return pattern.replace(_SPACE, " ")


def read(path: Path) -> list[AttributeLine]:
    """Return the lines of the file at ``path``; empty if there is no file."""
    if not path.is_file():
        return []
    return of_file(path.read_bytes())


def of_file(data: bytes) -> list[AttributeLine]:
    """Return the lines of a file with the content ``data``."""
    text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    return list(map(parse, split_lines(text)))


def write(path: Path, lines: Sequence[AttributeLine]) -> None:
    """Write ``lines`` to ``path``; remove the file if there are none."""
    text = "".join(line.text + "\n" for line in lines)
    if text:
        _fs.write_atomic(path, text.encode("utf-8", "surrogateescape"))
    elif path.is_file():
        _fs.remove(path)


def with_tracked(lines: Sequence[AttributeLine], pattern: str) -> list[AttributeLine]:
    """Return ``lines`` with a new last one that tracks ``pattern``.

    Older lines of the same pattern, such as those of Git LFS, lose their filter, diff, merge and text.
    """
    kept: list[AttributeLine] = []
    for line in lines:
        rest = [name for name in line.attributes if not _OURS.fullmatch(name)]
        if line.pattern != pattern or len(rest) == len(line.attributes):
            kept.append(line)
        elif rest:
            kept.append(parse(f"{pattern} {' '.join(rest)}"))
    return [*kept, parse(f"{pattern} {' '.join(ATTRIBUTES)}")]


def with_last(lines: Sequence[AttributeLine], pattern: str) -> list[AttributeLine]:
    """Return ``lines`` with a last one that tracks ``pattern``; lines of others stay as they are."""
    kept = [line for line in lines if not (line.is_tracked and line.pattern == pattern)]
    return [*kept, parse(f"{pattern} {' '.join(ATTRIBUTES)}")]
