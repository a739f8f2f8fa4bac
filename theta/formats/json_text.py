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
_PLAIN: Final = rb'[^"\\\x00-\x1f]*+'
_PLAIN_RE: Final = re.compile(_PLAIN)
# A run of escapes, so that strings of millions of them need no stack.  Groups have no possessive quantifiers:
# Python up to 3.11.4 goes on where a failed repetition ended (gh-106052).
_ESCAPES_RE: Final = re.compile(rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb"){1,1000}")
_COLON_RE: Final = re.compile(COLON)
_EMPTY_RE: Final = re.compile(WS + rb"\}" + WS)
_SPACE_RE: Final = re.compile(WS)


def empty_end(text: bytes, position: int) -> int | None:
    """Return the position after ``}`` and white space if an object ends here, otherwise None."""
    match = _EMPTY_RE.match(text, position)
    return match.end() if match else None


def key(text: bytes, position: int, what: str) -> tuple[str, int]:
    """Parse a name and its colon; return the name and the position of its value."""
    start = skip_space(text, position)
    end = _string_end(text, start)
    colon = _COLON_RE.match(text, end)
    if end == start or colon is None:
        raise FormatError(f"{what}: no name at byte {position} of the header")
    if end - start > 6 * MAX_NAME_BYTES + 2:
        raise FormatError(f"{what}: a name over {MAX_NAME_BYTES} bytes at byte {position} of the header")
    return _string(text[start:end], what), colon.end()


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
    return _end(_SPACE_RE, text, position)


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
        end = _string_end(text, position)
        if end == position:
            raise FormatError(f"{what}: {clip(name)} has no text")
        if name in found or len(found) >= limit:
            raise FormatError(f"{what}: {clip(name)} is there twice, or one too many")
        found[name] = _string(text[position:end], what)
        position, more = separator(text, skip_space(text, end), what)
    return found, position


def _string_end(text: bytes, position: int) -> int:
    """Return the position after the string that begins at ``position``; itself when none is there."""
    if text[position : position + 1] != b'"':
        return position
    end = _end(_PLAIN_RE, text, position + 1)
    while (further := _end(_ESCAPES_RE, text, end)) > end:
        end = further
    return end + 1 if text[end : end + 1] == b'"' else position


def _end(pattern: re.Pattern[bytes], text: bytes, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _string(token: bytes, what: str) -> str:
    try:
        text: str = json.loads(token.decode())
        text.encode()  # json.loads accepts lone surrogates
    except ValueError as error:
        raise FormatError(f"{what}: a string in the header is not valid unicode") from error
    return text
