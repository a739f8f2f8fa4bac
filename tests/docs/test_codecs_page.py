"""``codecs.md`` is made of the docstrings of the codecs: the specification cannot drift from them.

After a change of a docstring, ``python -m tests.docs.test_codecs_page`` writes the page anew.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.pages import Block
from theta import codecs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "theta" / "docs" / "codecs.md"
PARTS = (
    "theta/codecs/planes.py",
    "theta_native/tokens.py",
    "theta_native/rans.py",
    "theta/codecs/entropy.py",
    "theta_native/gaps/events.py",
    "theta_native/gaps/moves.py",
    "theta_native/differences.py",
    "theta/codecs/residual.py",
)
HEAD = """# The codecs of format 1

This page belongs to the specification in `format.md` (section 7). Each part is the documentation of
the module that implements it, word for word. "theta.codecs.x" and "theta_native.x" name the part on x.
"""


def sources() -> list[str]:
    """The modules that the page is made of, in its order."""
    return [
        *PARTS,
        *(f"{codecs.codec(name).__name__.replace('.', '/')}.py" for name in codecs.names()),
    ]


def page() -> str:
    """Return the page as it must be."""
    text = HEAD
    for source in sources():
        doc = ast.get_docstring(ast.parse((ROOT / source).read_text()))
        assert doc, source
        text += f"\n## {source.removesuffix('.py').replace('/', '.')}\n\n```rst\n{doc}\n```\n"
    return text


@pytest.mark.page("codecs", "rst")
def test_the_page_is_what_the_modules_say(page_blocks: list[Block]) -> None:
    assert PAGE.read_text() == page()
    assert len({block.text for block in page_blocks}) == len(sources())


if __name__ == "__main__":
    PAGE.write_text(page())
