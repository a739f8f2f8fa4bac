r"""Words as one line of text, such as the value of a trailer, and back.

The line is what a shell reads.  If a word has a character that could end the line (git and Python do not
agree which these are), a backslash stands for it in the whole line, which then begins with ``--escaped``: a
theta that does not know that option refuses the line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from theta.errors import UsageError

_MARK: Final = "--escaped"
_MOST: Final = 4 << 20
_BREAKS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters of control, those at which :meth:`str.splitlines` splits, and what UTF-8 cannot hold."""
_SPECIAL: Final = re.compile(rf"{_BREAKS.pattern}|\\")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-f]{4})|(.)|$)", re.DOTALL)


def join(words: Sequence[str]) -> str:
    """Return ``words`` as one line that :func:`split` reads."""
    if not any(map(_BREAKS.search, words)):
        return shlex.join(words)
    return shlex.join([_MARK, *(_SPECIAL.sub(_escaped, word) for word in words)])


def split(line: str) -> list[str]:
    """Return the words of ``line``; raises :class:`UsageError` if it is malformed."""
    if len(line) > _MOST:
        raise UsageError(f"a recipe of {len(line)} characters is too long")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"a malformed recipe: {error}") from error
    return [_ESCAPE.sub(_character, word) for word in words[1:]] if words[:1] == [_MARK] else words


def _escaped(found: re.Match[str]) -> str:
    return "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}"


def _character(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    if found[2] != "\\":
        raise UsageError(f"a malformed recipe: {found[0]!r} stands for no character")
    return "\\"
