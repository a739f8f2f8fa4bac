"""Quoting paths as git does in line-based output."""

from __future__ import annotations

import os
from typing import Final

_LETTERS: Final = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


def quoted(path: str, *, blanks: bool = False, octal: bool = True) -> str:
    """Return ``path``, quoted as a C string if necessary (git's quote.c).

    ``blanks`` also quotes paths with spaces; ``octal`` escapes non-ASCII bytes (``core.quotePath``).
    """
    found = "".join(_spelled(byte, octal) for byte in os.fsencode(path))
    plain = found.encode("latin-1") == os.fsencode(path)
    text = os.fsdecode(found.encode("latin-1"))
    return text if plain and not (blanks and " " in path) else f'"{text}"'


def _spelled(byte: int, octal: bool) -> str:
    if byte in _LETTERS:
        return "\\" + _LETTERS[byte]
    return f"\\{byte:03o}" if byte < 32 or byte == 127 or (octal and byte > 127) else chr(byte)
