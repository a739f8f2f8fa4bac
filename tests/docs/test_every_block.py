"""No code block of README and manual is there that no test reads."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs import pages
from tests.docs.pages import Block, every_block

pytest_plugins = ["pytester"]


def test_every_block_is_read_by_a_test() -> None:
    there = {block.key for page in pages.pages() for block in every_block(page)}
    assert there - set(pages.named()) == set()


@pytest.mark.parametrize("page", pages.pages())
def test_every_block_is_fenced(page: str) -> None:
    """A block that is indented, or fenced in another way, is one that nobody would find."""
    rest = pages.outside(page)
    assert re.findall(r"^\s*(?:```|~~~).*", rest, re.MULTILINE) == []
    assert re.findall(r"(?<=\n\n) {4}.*", rest) == []


def test_blocks_are_numbered_by_language() -> None:
    assert [block.key for block in every_block("training")][:3] == [
        ("training", "console", 0),
        ("training", "console", 1),
        ("training", "python", 0),
    ]


def test_commands_are_without_prompt_and_remark() -> None:
    block = Block(("p", "console", 0), "$ # train a\n$ theta cat HEAD:m#a  # values\ntheta check\n")
    assert block.commands == ["# train a", "theta cat HEAD:m#a", "theta check"]


_MARKED = "@pytest.mark.page('README', 'python')\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (f"{_MARKED}def test_it(page_blocks): ...", 1),
        ("@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.page('README', ''))])\n"
         "def test_it(a, page_blocks): ...", 1),
        (f"{_MARKED}def test_it(): ...", 0),
        (f"{_MARKED}def helper(page_blocks): ...", 0),
        (f"{_MARKED}@pytest.mark.campaign\ndef test_it(page_blocks): ...", 0),
        (f"{_MARKED}@pytest.mark.skip\ndef test_it(page_blocks): ...", 0),
    ],
)  # fmt: skip
def test_only_tests_that_run_and_get_the_blocks_count(text: str, count: int) -> None:
    assert len(list(pages._marks(ast.parse(text)))) == count


def test_a_test_that_leaves_a_block_unread_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.docs.pages import page_blocks\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.page("README", "console")
        def test_one(page_blocks):
            assert page_blocks[0].text

        @pytest.mark.page("README", "console")
        def test_all(page_blocks):
            assert all(block.commands for block in page_blocks)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=2, errors=1)
