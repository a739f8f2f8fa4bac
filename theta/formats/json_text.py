"""Parsing JSON headers, which may be hostile, token by token.

A general parser builds any value: 100 MB of ``[],[],`` take gigabytes.  The headers of checkpoints have a
fixed form, so parsing them by tokens needs memory of about their own size.
Positions are byte offsets.  Every function raises ``FormatError`` with the name ``what``.
"""

from __future__ import annotations

import json
import re
from typing import Final

from theta.errors import FormatError
from theta.formats.layout import MAX_NAME_BYTES, clip

WS: Final = rb"[ \t\r\n]*+"
COLON: Final = WS + rb":" + WS
_STRING: Final = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_KEY_RE: Final = re.compile(WS + rb"(" + _STRING + rb")" + COLON)
_VALUE_RE: Final = re.compile(rb"(" + _STRING + rb")" + WS)
_EMPTY_RE: Final = re.compile(WS + rb"\}" + WS)
_SPACE_RE: Final = re.compile(WS)


def empty_end(text: bytes, position: int) -> int | None:
    """Return the position after ``}`` and white space if an object ends here, otherwise None."""
    match = _EMPTY_RE.match(text, position)
    return match.end() if match else None


def key(text: bytes, position: int, what: str) -> tuple[str, int]:
    """Parse a name and its colon; return the name and the position of its value."""
    match = _KEY_RE.match(text, position)
    if match is None:
        raise FormatError(f"{what}: no name at byte {position} of the header")
    if match.end(1) - match.start(1) > 6 * MAX_NAME_BYTES + 2:
        raise FormatError(f"{what}: a name over {MAX_NAME_BYTES} bytes at byte {position} of the header")
    return _string(match[1], what), match.end()


def separator(text: bytes, position: int, what: str) -> tuple[int, bool]:
    """Return the position after ``,`` and True, or after ``}`` and white space and False."""
    mark = text[position : position + 1]
    if mark == b",":
        return position + 1, True
    if mark != b"}":
        raise FormatError(f"{what}: neither ',' nor '}}' at byte {position} of the header")
    return skip_space(text, position + 1), False


def skip_space(text: bytes, position: int) -> int:
    """Return the position of the next byte that is not white space."""
    match = _SPACE_RE.match(text, position)
    return match.end() if match else position


def text_map(text: bytes, position: int, what: str, limit: int) -> tuple[dict[str, str], int]:
    """Parse an object of at most ``limit`` texts without duplicates; return it and the position after it."""
    if text[position : position + 1] != b"{":
        raise FormatError(f"{what} is not an object")
    end = empty_end(text, position + 1)
    if end is not None:
        return {}, end
    found: dict[str, str] = {}
    position, more = position + 1, True
    while more:
        name, position = key(text, position, what)
        value = _VALUE_RE.match(text, position)
        if value is None:
            raise FormatError(f"{what}: {clip(name)} has no text")
        if name in found or len(found) >= limit:
            raise FormatError(f"{what}: {clip(name)} is there twice, or one too many")
        found[name] = _string(value[1], what)
        position, more = separator(text, value.end(), what)
    return found, position


def _string(token: bytes, what: str) -> str:
    try:
        text: str = json.loads(token.decode())
        text.encode()  # json.loads accepts lone surrogates
    except ValueError as error:
        raise FormatError(f"{what}: a string in the header is not valid unicode") from error
    return text
