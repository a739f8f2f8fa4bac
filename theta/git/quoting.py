"""Text from files, repositories and networks, made safe to print: quoted as git does, or with escapes.

A terminal obeys control characters (it moves, writes over what stands there, sets its title, sends text
back), and shows text in another order for the bidirectional ones (CVE-2021-42574).  What is invisible
lets two names look alike.  All of them are shown as escapes.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Final

_LETTERS: Final = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
_UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2028\u2029\u2060-\u2065\u206a-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"  # invisible, or breaking the line
    "\u2800\ufe00-\ufe0d"  # a blank of Braille, variants of what stands before
    "\ud800-\udfff"  # lone surrogates: bytes of a name that is not UTF-8
    "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # layout of old scripts and music
    "\U000e0000-\U000e0fff"  # tags and other variations
    "]"
    "|(?<![\u203c\u2049\u2100-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff])"
    "[\ufe0e\ufe0f](?!\u20e3)"  # variants, but those of emojis
)
_SPECIAL: Final = re.compile(r'["$`\\!]')
"""The signs that double quotes of a shell leave their meaning."""
_OF_GIT: Final = re.compile("(\x1b\\[[0-9;]*[mK]|\t|\n)")
_SHORT: Final = {"\a": r"\a", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\v": r"\v", "\f": r"\f", "\r": r"\r"}


def visible(text: str) -> str:
    """Return ``text`` with escapes for each character that a terminal would obey, or not show."""
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # os.fsdecode of a byte
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return _SHORT.get(character) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def split_lines(text: str) -> list[str]:
    """Return the lines of ``text``, which line feeds end.

    :meth:`str.splitlines` also splits at characters that names of refs and files, and subjects, may have.
    """
    found = text.split("\n")
    return found if found[-1] else found[:-1]


def one_line(text: str) -> str:
    """Return ``text`` without line feeds."""
    return " ".join(text.split())


def visible_lines(text: str) -> str:
    """Do as :func:`visible`, but keep line feeds: for text that theta has laid out."""
    return "\n".join(map(visible, text.split("\n")))


def visible_line(text: str) -> str:
    """Do as :func:`visible`, but keep tabs that indent the line."""
    indented = len(text) - len(text.lstrip("\t"))
    return text[:indented] + visible(text[indented:])


def visible_of_git(line: str) -> str:
    """Do as :func:`visible` for a line that git prints: keep tabs, colours and the line feed."""
    return "".join(part if number % 2 else visible(part) for number, part in enumerate(_OF_GIT.split(line)))


def from_folder(path: str, folder: str) -> str:
    """Return ``path`` as a path from ``folder``, both from the root of a worktree; its last slash stays."""
    return path if folder == "." else os.path.relpath(path, folder) + "/" * path.endswith("/")


def quoted(path: str, *, blanks: bool = False, octal: bool = True) -> str:
    """Return ``path``, quoted as a C string if necessary (git's quote.c).

    ``blanks`` also quotes paths with spaces; ``octal`` escapes non-ASCII bytes (``core.quotePath``).
    """
    found = "".join(_spelled(byte, octal) for byte in os.fsencode(path))
    plain = found.encode("latin-1") == os.fsencode(path)
    text = os.fsdecode(found.encode("latin-1"))
    return text if plain and not (blanks and " " in path) else f'"{text}"'


def shell_word(text: str) -> str:
    """Return ``text`` as a word of a shell, in double quotes if they do: hints use single ones."""
    word = shlex.quote(text)
    return word if word == text or _SPECIAL.search(text) else f'"{text}"'


def _spelled(byte: int, octal: bool) -> str:
    if byte in _LETTERS:
        return "\\" + _LETTERS[byte]
    return f"\\{byte:03o}" if byte < 32 or byte == 127 or (octal and byte > 127) else chr(byte)
