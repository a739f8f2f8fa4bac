"""``theta help TOPIC``: the packaged manuals."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.errors import NotFoundError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import screen
else:
    screen = Module("theta.cli.screen")

_WIDEST: Final = 100
_LANGUAGE: Final = re.compile(r"^( *```)\w+", re.MULTILINE)
"""The language of a block of code: colours of languages do not suit every terminal."""


def show_topic(topic: str) -> int:
    """Print ``theta/docs/TOPIC.md``."""
    place = resources.files("theta") / "docs" / f"{topic}.md"
    if not topic.replace("-", "_").isidentifier() or not place.is_file():
        raise NotFoundError(f"there is no command or topic '{topic}'", hint="theta --help lists the commands")
    text = place.read_text(encoding="utf-8")
    if console.on_screen():
        _laid_out(text)
    else:
        console.out(*text.rstrip().split("\n"))
    return 0


def _laid_out(text: str) -> None:
    """Print Markdown as wide as the terminal, not wider than lines are read well."""
    from rich.constrain import Constrain
    from rich.markdown import Markdown

    plain = _LANGUAGE.sub(r"\1text", text)
    page = Markdown(plain, code_theme="ansi_dark", hyperlinks=False)
    screen.show(Constrain(page, min(screen.width(), _WIDEST)))
