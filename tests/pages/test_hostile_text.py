"""Text of others on pages, in Markdown and in cells of notebooks: all of it is seen, and none of it acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from markdown_it import MarkdownIt

import theta
from tests.support import Repo, make_model, random_tensors
from tests.support.browser import Visit, browser
from theta.git.quoting import visible
from theta.pages.safe_text import inert, safe

if TYPE_CHECKING:
    from markdown_it.token import Token
    from playwright.sync_api import Browser

TRICKS = (
    "\u202egnp.exe\u2066",
    "zero\u200bwidth\ufeff\u2060",
    "\x1b]0;owned\x07\x9b31m",
    "tag\U000e0041",
    "</script><img src=x onerror=alert(1)><!--",
    "a|b||c\\|d",
    "`code` ``two`` `",
    "@everyone #12 GH-12 !12 &12 ~bug %1",
    "[link](https://evil.example) ![x](https://evil.example/x.png) <https://evil.example> www.evil.example",
    "**bold** _em_ ~~no~~ :tada: $x$ \\",
    "0123456789abcdef0123456789abcdef01234567",
    "line\nfeed\n/close",
    "<details open>",
)
PATH = "mo\u202e|`@a`<b>\x07del.safetensors"
SUBJECT = "subject \u202e@everyone <b>|` fixes #1"
BODY = "First line.\n\n<script>alert(1)</script> \u202e\n/close\n# no heading @all"
UNSEEN = r"[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]"
TEXTS = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_ALL);
  for (let node = walk.currentNode; node; node = walk.nextNode()) {
    if (node.nodeType === 3 && !["SCRIPT", "STYLE"].includes(node.parentNode.tagName)) found.push(node.data);
    for (const one of node.attributes ?? []) found.push(one.value);
  }
  return found.filter((text) => new RegExp(UNSEEN, "u").test(text.replaceAll("\\n", "")));
}""".replace("UNSEEN", f"String.raw`{UNSEEN}`")
ROW = ("tr", "th", "td")
PAGES = (
    ("diff", "HEAD~", "HEAD"),
    ("show", "HEAD"),
    ("show", f"HEAD:{PATH}"),
    ("log",),
    ("merge", "--dry-run", "side"),
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Repo:
    """A model whose tensors, path, author, messages and branch are all tricks; two branches changed it."""
    repo = Repo.create(tmp_path_factory.mktemp("hostile") / "re\u202epo")
    repo.theta("track", "*.safetensors")
    repo.git("config", "user.name", "A\u202e|<i>`@b`")
    shapes = {f"layers.{k}.{trick}.weight": (4, 4) for k in range(2) for trick in TRICKS}
    tensors = random_tensors(shapes, 1)
    _commit(repo, tensors, 0.0)
    repo.git("branch", "side")
    _commit(repo, tensors, 0.5)
    repo.git("checkout", "-q", "side")
    _commit(repo, tensors, -0.5)
    repo.git("checkout", "-q", "main")
    return repo


def _commit(repo: Repo, tensors: dict[str, Any], by: float) -> None:
    make_model(repo.path / PATH, {name: value + np.float32(by) for name, value in tensors.items()})
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", SUBJECT, "-m", BODY)


@pytest.mark.parametrize("words", PAGES, ids=lambda words: " ".join(words)[:10])
def test_all_text_of_a_page_is_seen(
    hostile: Repo, chromium: Browser, words: tuple[str, ...], tmp_path: Path
) -> None:
    hostile.theta(*words, "--html", str(tmp_path / "out.html"), code=None)
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    visit = Visit(context.new_page())
    page = visit.open(tmp_path / "out.html")
    if words[0] != "log":
        page.locator("tbody button").nth(3).click()
        page.locator(".pictures svg").first.focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        assert "\\" in page.locator(".table tbody").last.inner_text()
    assert page.evaluate(TEXTS) == []
    assert page.locator("img, details, b, i, main script").count() == 0
    assert (visit.complaints, len(visit.requests)) == ([], 1)
    context.close()


@pytest.mark.parametrize("words", PAGES, ids=lambda words: " ".join(words)[:10])
def test_markdown_of_others_does_nothing(hostile: Repo, words: tuple[str, ...]) -> None:
    text = hostile.theta(*words, "--md", code=None).stdout
    assert text == "\n".join(visible(line) for line in text.split("\n"))
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(text)
    inner = [one for token in tokens for one in token.children or ()]
    kinds = {token.type for token in (*tokens, *inner)}
    blocks = (
        "heading",
        "paragraph",
        "bullet_list",
        "list_item",
        "blockquote",
        "table",
        "thead",
        "tbody",
        *ROW,
    )
    allowed = {f"{kind}_{end}" for kind in blocks for end in ("open", "close")}
    assert kinds <= {*allowed, "inline", "text", "code_inline", "softbreak", "hardbreak"}
    assert not re.search(r"[@#<`\[|~$&!]|www|//|[0-9a-f]{40}|evil", "".join(_plain(inner)))
    rows = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")]
    assert len({*rows}) == 1
    assert any("fixes #1" in one.content or "@everyone" in one.content for one in inner)


def _plain(tokens: list[Token]) -> Iterator[str]:
    """Yield the text outside of code spans; headings of columns have bars."""
    return (token.content.replace("max|\u0394|", "") for token in tokens if token.type == "text")


@pytest.mark.parametrize(
    "trick", [*TRICKS, PATH, SUBJECT, "`", "``", " ", "", "a b", "x|", "3 of 4, 12.5% (2 files)"]
)
def test_inert_text_is_one_span_with_all_of_it(trick: str) -> None:
    found = MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n|---|---|\n| {inert(trick)} | end |")
    cells = [token.children or [] for token in found if token.type == "inline"][2:]
    assert len(cells) == 2
    assert "".join(one.content for one in cells[0]).strip() == visible(trick).strip()
    assert {one.type for one in cells[0]} <= {"code_inline", "text"}
    assert len(cells[0]) <= 1


def test_keys_are_safe_too_and_only_messages_keep_lines() -> None:
    found = safe({"a\u202e": {"message": "x\ny\u202e", "name": "x\ny"}, "rows": [("\x07", 1, None)]})
    assert found == {r"a\u202e": {"message": "x\ny\\u202e", "name": r"x\ny"}, "rows": [[r"\a", 1, None]]}


def test_cells_of_notebooks_show_it_too(hostile: Repo) -> None:
    with theta.open(hostile.path) as repo:
        shown: tuple[Any, ...] = (repo, repo.diff("HEAD~", "HEAD"), repo[f"HEAD:{PATH}"])
        text = "".join(one._repr_html_() for one in shown)
    assert visible(text) == text
    assert r"\u202e" in text
    assert not re.search(r"<(img|script|b>\\|details)", text)
