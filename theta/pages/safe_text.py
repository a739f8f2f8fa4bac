"""Text of others on pages: a reader sees each character of it, and it is nothing but text.

Names of tensors and files, messages, authors and metrics are chosen by others.  All of a report's text is
made safe here, before HTML, Markdown or a cell is made of it: what a browser would obey or not show is an
escape, as it is on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from theta.git.quoting import visible, visible_lines

_LAID_OUT: Final = "message"
"""The key of the text that has lines of its own."""
_TICKS: Final = re.compile("`+")
_WORDS: Final = re.compile(r"(?:[A-Za-z0-9 ()]|(?<=[0-9])(?:%|\.(?=[0-9]))|[,;:](?= )|->(?= ))*")
_ID: Final = re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{7,}\b")
"""The id of a commit, which hosts make a link."""


def safe(value: Any) -> Any:
    """Return plain data whose texts, of keys too, have no invisible, bidirectional or control character."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _of_key(key, one) for key, one in value.items()}
    return [safe(one) for one in value] if isinstance(value, list | tuple) else value


def _of_key(key: object, value: Any) -> Any:
    return visible_lines(value) if key == _LAID_OUT and isinstance(value, str) else safe(value)


def inert(text: object) -> str:
    """Return Markdown that shows ``text`` on one line and does nothing else.

    Words and numbers stand as they are.  All else is a code span, in which hosts see no HTML, link, mention,
    issue, emoji or command; a bar is escaped, for it would end the cell of a table.
    """
    shown = visible(str(text))
    if _WORDS.fullmatch(shown) and not _ID.search(shown):
        return shown
    ticks = "`" * (max(map(len, _TICKS.findall(shown)), default=0) + 1)
    edge = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{ticks}{edge}{shown}{edge}{ticks}".replace("|", "\\|")
