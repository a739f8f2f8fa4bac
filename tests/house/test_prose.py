"""Docstrings and comments in plain words."""

import pytest

from tests.house import prose
from tests.house.source import OURS, snippet, sources


def test_docstrings_and_comments_are_plain() -> None:
    assert [finding for source in sources(*OURS) for finding in prose.unclear(source)] == []


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("'What it holds.'", 1),
        ("'The content.'\nclass C:\n    'Of rows.'", 1),
        ("'The content.'\nX = 1\n'What is read.'", 1),
        ("def f() -> bool:\n    'Whether it is there.'", 1),
        ("class C:\n    @property\n    def f(self) -> bool:\n        'Whether it is there.'", 0),
        ("def f() -> bool:\n    'Return whether it is there.'", 0),
        ("def f() -> str:\n    'Return the id; none where it is gone.'", 1),
        ("def f() -> str:\n    'The id.'", 1),
        ("def f() -> str:\n    'Lines on the screen.'", 1),
        ("def f() -> str:\n    '``name`` without blanks.'", 1),
        ("class C:\n    @property\n    def f(self) -> str:\n        'The id.'", 0),
        ("def f() -> str:\n    'Return the id; ``None where`` is code.'", 0),
        ("x = 1  # all but for one", 1),
        ("x = 1  # the content of a file that git wrote", 0),
    ],
)
def test_a_phrase_to_translate_is_seen(text: str, complaints: int) -> None:
    assert len(prose.unclear(snippet(text))) == complaints
