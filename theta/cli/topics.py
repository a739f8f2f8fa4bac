"""``theta help TOPIC``: the packaged manuals."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.cli.catalogue import COMMANDS
from theta.errors import NotFoundError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import screen
else:
    screen = Module("theta.cli.screen")

_PAGES: Final = resources.files("theta") / "docs"
_STRATEGIES: Final = "merging"
_WIDEST: Final = 100
_LANGUAGE: Final = re.compile(r"^( *```)\w+", re.MULTILINE)
"""The language of a block of code: colours of languages do not suit every terminal."""


def show_topic(topic: str) -> int:
    """Print ``theta/docs/TOPIC.md``, or the part of the page on merging that is about a strategy."""
    text = _text(topic) if topic.replace("-", "_").isidentifier() else ""
    if not text:
        raise NotFoundError(f"there is no command or topic '{topic}'", hint=_hint(topic))
    if console.on_screen():
        _laid_out(text)
    else:
        console.out(*text.rstrip().split("\n"))
    return 0


def _text(topic: str) -> str:
    place = _PAGES / f"{topic}.md"
    return place.read_text(encoding="utf-8") if place.is_file() else _strategy(topic)


def _strategy(name: str) -> str:
    """Return what the page on merging says of a merge strategy; "" if there is none of this name."""
    page = _text(_STRATEGIES)
    row = re.search(rf"^\| `{name}` \| (.*) \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    if row is None:
        return ""
    result, *facts = row.groups()
    sides, base, parameters = ("none" if fact == "-" else fact for fact in facts)
    lines = [
        f"# The merge strategy {name}",
        "",
        f"- result: {result}",
        f"- sides: {sides}",
        f"- base: {base}",
    ]
    formula = re.compile(rf"`{name}`(, `\w+`)*:")
    lines += [f"- parameters: {parameters}", *filter(formula.search, re.split(r"\n(?=- |\n)", page))]
    return "\n".join(
        [*lines, "", f"'theta help {_STRATEGIES}' has all strategies, and what a star means.", ""]
    )


def titles() -> dict[str, str]:
    """Return the topics, in order of name, with their titles; the front page of the site is none."""
    places = (place for place in _PAGES.iterdir() if place.name.endswith(".md") and place.name != "index.md")
    found = {place.name.removesuffix(".md"): place.read_text(encoding="utf-8") for place in places}
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in sorted(found.items())}


def show_list() -> int:
    """Print the topics, each with its title."""
    console.out("topics of 'theta help TOPIC'")
    console.out(*(f"   {name:<19}{title}" for name, title in titles().items()))
    return 0


def _hint(topic: str) -> str:
    from difflib import get_close_matches

    strategies = re.findall(r"^\| `(\w+)` \|", _text(_STRATEGIES), re.MULTILINE)
    known = [*titles(), *(name for group in COMMANDS.values() for name in group), *strategies]
    near = get_close_matches(topic, known, 1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"{meant}'theta help topics' lists the topics, 'theta --help' the commands"


def _laid_out(text: str) -> None:
    """Print Markdown as wide as the terminal, not wider than lines are read well."""
    from rich.constrain import Constrain
    from rich.markdown import Markdown

    plain = _LANGUAGE.sub(r"\1text", text)
    page = Markdown(plain, code_theme="ansi_dark", hyperlinks=False)
    screen.show(Constrain(page, min(screen.width(), _WIDEST)))
