"""Tensor names as lines of a manifest and as paths of a git tree.

Both mappings are part of format 1: see ``theta/docs/format.md``.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

MAX_PART: Final = 180
MAX_PARTS: Final = 64
MAX_PATH: Final = 1024
MAX_STORE: Final = 200
_KEEP: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=,()[]{}!#&;^~$ "
_DEVICE: Final = re.compile(
    rb"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$|git~[0-9]+)(?:$|[^a-z0-9])", re.I
)
_STORE: Final = re.compile(f"[{re.escape(_KEEP.decode())}%.]{{1,{MAX_STORE}}}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]+")
"""Names that need no escapes, unless they are keywords."""
_LINE_ESCAPE: Final = re.compile(r"[\x00-\x1f\x7f\\\x85\u2028\u2029\ud800-\udfff]")
_LINE_UNESCAPE: Final = re.compile(r"\\(?:\\|u([0-9a-f]{4}))")


def escape_line(name: str) -> str:
    r"""Return ``name`` as one line: backslash doubled, line breaks and controls as ``\uXXXX``.

    A leading space, ``#`` or conflict marker, and the empty name, are escaped too, so that no
    name can pass for another line of a manifest.
    """
    if _PLAIN.fullmatch(name) and name not in _KEYWORDS:
        return name
    text = _LINE_ESCAPE.sub(lambda m: "\\\\" if m[0] == "\\" else f"\\u{ord(m[0]):04x}", name)
    if not text:
        return "\\u"
    if text[0] in " <>=|#" or text.split(" ", 1)[0] in _KEYWORDS:
        text = f"\\u{ord(text[0]):04x}{text[1:]}"
    if text[-1] == " ":
        text = text[:-1] + "\\u0020"
    return text


_KEYWORDS: Final = frozenset({"theta", "format", "store", "skeleton", "end"})


def unescape_line(line: str) -> str:
    """Undo :func:`escape_line`; raises ``ValueError`` for a text that it never makes."""
    if _PLAIN.fullmatch(line) and line not in _KEYWORDS:
        return line
    name = "" if line == "\\u" else _LINE_UNESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else "\\", line)
    if escape_line(name) != line:
        raise ValueError(f"not an escaped name: {line[:80]!r}")
    return name


def tree_path(name: str) -> str:
    """Return the path of the tree of tensor ``name`` below its store: the name split at its dots.

    Two names have one path only if SHA-256 collides; each part can be checked out on any file system.
    """
    data = name.encode("utf-8", "surrogatepass")
    parts = [_part(part) for part in data.split(b".")]
    path = "/".join(parts)
    if len(parts) > MAX_PARTS or len(path) > MAX_PATH:
        return "%~" + hashlib.sha256(data).hexdigest()
    return path


def store_of(path: str) -> str:
    """Return the name of the store of a checkpoint that is first added at ``path``: one component."""
    data = path.encode("utf-8", "surrogateescape")
    name = ".".join(_part(part) for part in data.split(b"."))
    name = name if len(name) <= MAX_STORE - 20 else f"{_cut(name)}%~{hashlib.sha256(data).hexdigest()}"
    return "_" + name if name[0] in "% ." else name


def _cut(name: str) -> str:
    """Return the beginning of a long name of a store, which does not end in the name of a device."""
    end = 100
    while _DEVICE.match(name[:end].rpartition(".")[2].encode()):
        end -= 1
    return name[:end]


def numbered(store: str, number: int) -> str:
    """Return another name for a second store that would be called ``store``."""
    name = f"{store}~{number}"
    return name if is_store(name) else f"{store}-{number}"  # git~2 is a short name of .git on Windows


def is_store(name: str) -> bool:
    """Return whether a store may have this name."""
    if _STORE.fullmatch(name) is None or name[0] in " .%" or name[-1] in " .":
        return False
    return not any(_DEVICE.match(part.encode()) for part in name.split("."))


@lru_cache(maxsize=1 << 12)  # the names of a model are made of few words
def _part(part: bytes) -> str:
    if not part:
        return "%"
    text = "".join(chr(byte) if byte in _KEEP else f"%{byte:02X}" for byte in part)
    if _DEVICE.match(part):
        text = f"%{part[0]:02X}{text[1:]}"
    if text[-1] == " ":
        text = text[:-1] + "%20"
    if len(text) > MAX_PART:
        text = text[:MAX_PART].rsplit("%", 1)[0] + "%~" + hashlib.sha256(part).hexdigest()
    return text
