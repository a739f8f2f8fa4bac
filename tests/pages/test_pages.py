"""Pages in a real browser: they load nothing, complain of nothing, and work by pointer and keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import theta
from tests.cli.checks import refused
from tests.support import Repo, make_model, random_tensors
from tests.support.browser import Visit, browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODEL = "model.safetensors"
EVIL = "layers.1.</script><img src=x onerror=alert(1)><!--.weight"
SHAPES = {
    "embed.weight": (40, 8),
    **{f"layers.{k}.{kind}.weight": (8, 8) for k in range(4) for kind in ("q", "k", "up")},
    EVIL: (8, 8),
    "head.bias": (8,),
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    found = Visit(context.new_page())
    yield found
    assert found.complaints == []
    assert all(url.startswith("file:") for url in found.requests)
    assert len(found.requests) == 1
    context.close()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Repo:
    """A model and its fine-tune: q changes by rank one, up a little, the embedding not at all."""
    repo = Repo.create(tmp_path_factory.mktemp("pages") / "repo")
    repo.theta("track", "*.safetensors")
    tensors = random_tensors(SHAPES, 1)
    make_model(repo.path / MODEL, tensors)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base <b>bold</b>")
    rng = np.random.default_rng(2)
    for name, value in tensors.items():
        if ".q." in name or name == EVIL:
            change = np.outer(rng.normal(size=8), rng.normal(size=8))
            tensors[name] = (value + 0.1 * change).astype(value.dtype)
        elif ".up." in name:
            tensors[name] = (value * (1 + 1e-3 * rng.normal(size=value.shape))).astype(value.dtype)
    tensors["layers.0.k.weight"] = np.full((8, 8), np.nan, np.float32)
    tensors["new.weight"] = np.ones((3, 3), np.float32)
    make_model(repo.path / MODEL, tensors)
    repo.theta("commit", "-q", "-am", "tuned")
    return repo


def test_a_diff_is_a_page_with_a_map_a_table_and_details(tuned: Repo, visit: Visit) -> None:
    tuned.theta("diff", "HEAD~", "HEAD", "--html", "out.html")
    page = visit.open(tuned.path / "out.html")
    assert page.locator("h1").inner_text().count("→") == 1
    assert "<b>bold</b>" in page.locator("dl").first.inner_text()
    changed = json.loads(tuned.theta("diff", "HEAD~", "HEAD", "--json").stdout)["theta.diff/v1"][0]["tensors"]
    assert page.locator("tbody tr").count() == len(changed)
    assert page.locator(".pictures svg rect.cell").count() == len(changed)
    assert page.locator(".pictures svg rect.none:not(.cell)").count() == len(SHAPES) + 1 - len(changed)
    assert (
        page.locator(".pictures svg rect.cell.odd").count()
        == page.locator(".pictures svg rect.cell.added").count()
        == 1
    )
    assert "infinite or no number" in page.locator(".legend").inner_text()
    page.locator(".pictures svg rect.cell[fill]").first.click()
    detail = page.locator(".detail")
    assert detail.locator("svg").count() == 2
    assert "singular values" in detail.inner_text()
    page.get_by_role("button", name="layers.0.k.weight").click()
    assert "64 no number" in detail.inner_text()
    assert "nan" in page.locator("tbody tr.now").inner_text().split()
    assert detail.locator("h3").inner_text() == "layers.0.k.weight"


def test_the_table_is_sorted_searched_and_filtered(tuned: Repo, visit: Visit) -> None:
    tuned.theta("diff", "HEAD~", "HEAD", "--html", "out.html")
    page = visit.open(tuned.path / "out.html")
    column = page.locator("tbody td.number:nth-child(5)")
    shown = [float(text.rstrip("%")) for text in column.all_inner_texts() if text.endswith("%")]
    assert shown == sorted(shown, reverse=True)
    page.get_by_role("button", name="tensor").click()
    names = page.locator("tbody td.name").all_inner_texts()
    assert names == sorted(names)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.get_by_role("searchbox").fill("layers up")
    assert page.locator("tbody tr").count() == 4
    page.get_by_role("searchbox").fill("")
    page.locator("select").nth(1).select_option("A")
    assert page.locator("tbody td.name").all_inner_texts() == ["new.weight"]


def test_the_map_is_used_by_the_keyboard(tuned: Repo, visit: Visit) -> None:
    tuned.theta("diff", "HEAD~", "HEAD", "--html", "out.html")
    page = visit.open(tuned.path / "out.html")
    page.locator(".pictures svg").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", " "):
        page.keyboard.press(key)
    assert page.locator("[aria-live]").inner_text() == page.locator("#hint").inner_text() != ""
    assert page.locator(".detail").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".detail").is_visible()
    assert page.evaluate("document.activeElement.tagName") == "svg"


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (700, "dark")])
def test_a_page_fits_windows_and_schemes(tuned: Repo, visit: Visit, width: int, scheme: str) -> None:
    tuned.theta("show", "--html", "out.html")
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page = visit.open(tuned.path / "out.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_a_stored_checkpoint_and_a_history_are_pages_too(tuned: Repo, visit: Visit) -> None:
    tuned.theta("log", "--html", "out.html")
    page = visit.open(tuned.path / "out.html")
    assert page.locator("svg circle.dot").count() == 3
    assert page.locator("tbody tr").count() == 3
    tuned.theta("show", f"HEAD:{MODEL}", "--html", "stored.html")
    visit.requests.clear()
    page = visit.open(tuned.path / "stored.html")
    assert page.locator("tbody tr").count() == len(SHAPES) + 1


def test_a_rehearsed_merge_shows_how_far_the_sides_agree(repo: Repo, visit: Visit) -> None:
    repo.theta("track", "*.safetensors")
    base = random_tensors({"layers.0.q.weight": (8, 8), "layers.1.q.weight": (8, 8), "head": (4,)}, 1)
    make_model(repo.path / MODEL, base)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base")
    for branch, by in (("side", -0.5), ("main", 0.25)):
        repo.git("checkout", "-q", *(["-b"] if branch == "side" else []), branch)
        change = {"layers.0.q.weight": base["layers.0.q.weight"] + np.float32(by)}
        make_model(repo.path / MODEL, {**base, **change})
        repo.theta("commit", "-q", "-am", branch)
    repo.theta("merge", "--dry-run", "-X", "average", "side", "--html", "out.html")
    page = visit.open(repo.path / "out.html")
    assert page.locator("tbody tr").count() == 1
    assert page.locator("tbody tr").inner_text().split("\t")[4:6] == ["100%", "2"]
    text = repo.theta("merge", "--dry-run", "side", "--md", code=1).stdout
    assert "| `layers.0.q.weight` | conflict |" in text
    refused(repo.theta("merge", "side", "--md", code=None), 2, "--md goes with --dry-run")


def test_a_name_runs_nothing_and_ends_nothing(tuned: Repo, visit: Visit) -> None:
    tuned.theta("diff", "HEAD~", "HEAD", "--html", "out.html")
    text = (tuned.path / "out.html").read_text()
    assert text.count("<script") == text.count("</script") == 2
    assert "<img" not in text
    page = visit.open(tuned.path / "out.html")
    assert page.get_by_role("button", name=EVIL).count() == 1
    assert page.locator("img").count() == 0


def test_markdown_is_for_a_review(tuned: Repo) -> None:
    text = tuned.theta("show", "--md", "--against", "HEAD~").stdout
    assert text.startswith("### tuned\n")
    assert "| `layers.0.q.weight` | changed | 8\N{MULTIPLICATION SIGN}8 | f32 |" in text
    assert f"| `{EVIL}` | changed |" in text


def test_a_diff_in_the_worktree_is_drawn(tuned: Repo, visit: Visit) -> None:
    tensors = random_tensors(SHAPES, 3)
    before = (tuned.path / MODEL).read_bytes()
    make_model(tuned.path / MODEL, tensors)
    tuned.theta("diff", "--html", "out.html", "--tensor", "layers.*")
    (tuned.path / MODEL).write_bytes(before)
    page = visit.open(tuned.path / "out.html")
    assert all("layers." in name for name in page.locator("tbody td.name").all_inner_texts())


def test_only_pages_are_written_over(tuned: Repo) -> None:
    (tuned.path / "mine.html").write_text("<!doctype html> mine")
    refused(tuned.theta("diff", "HEAD~", "--html", "mine.html", code=None), 14, "mine.html", "already")
    assert (tuned.path / "mine.html").read_text() == "<!doctype html> mine"
    refused(tuned.theta("show", "--html", "no/where.html", code=None), 13, "no folder")
    refused(tuned.theta("show", "--html", "a.html", "--md", code=None), 2, "one report")
    refused(tuned.theta("show", "--against", "HEAD~", code=None), 2, "--html")


def test_notebooks_get_tables_without_markup_of_others(tuned: Repo) -> None:
    with theta.open(tuned.path) as repo:
        found = repo.diff("HEAD~", "HEAD")
        shown: tuple[Any, ...] = (repo, found, repo[f"HEAD:{MODEL}"])
        texts = [one._repr_html_() for one in shown]
        assert isinstance(found, list)
    assert MODEL in texts[0]
    assert all("layers.0.q.weight" in text for text in texts[1:])
    assert all("<img" not in text and "<script" not in text for text in texts)


def test_the_terminal_has_the_map_in_small(tuned: Repo) -> None:
    text = tuned.theta("diff", "HEAD~", "HEAD", "--stats").stdout
    rows = [line for line in text.splitlines() if line.startswith(("q.weight ", "up.weight "))]
    assert [line.split()[1] for line in rows] == ["████████", "░░░░░░░░"]
    assert "!!" in next(line for line in text.splitlines() if line.startswith("k.weight "))
    last = text.split("by kind and layer:")[1].strip().splitlines()[-1]
    assert last.startswith("layers 0 to 3")


def test_json_has_the_same_numbers(tuned: Repo) -> None:
    text = tuned.theta("diff", "HEAD~", "HEAD", "--stats", "--json").stdout
    found = json.loads(text, parse_constant=pytest.fail)["theta.diff/v1"][0]["tensors"]
    by_name = {one["name"]: one for one in found}
    assert by_name["layers.0.k.weight"]["stats"]["relative"] is None
    assert by_name["layers.0.k.weight"]["details"]["nans"] == 64
    assert by_name["layers.0.q.weight"]["details"]["effective_rank"] == pytest.approx(1, abs=0.1)


FORMS = {
    "diff": ["diff", "HEAD~", "HEAD", "--tensor", "layers.*"],
    "show": ["show", "HEAD", "--against", "HEAD~"],
    "stored": ["show", f"HEAD:{MODEL}", "--tensor", "layers.*"],
    "log": ["log"],
    "merge": ["merge", "--dry-run", "HEAD~"],
}


@pytest.mark.parametrize("form", FORMS)
def test_page_markdown_and_json_are_made_of_the_same_data(tuned: Repo, form: str) -> None:
    told = tuned.theta(*FORMS[form], "--html", "out.html", "--json").stdout
    data = json.loads(told, parse_constant=pytest.fail)["theta.page/v1"]
    text = (tuned.path / "out.html").read_text()
    shown = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert (shown["title"], len(shown["history"])) == (data["title"], len(data["history"]))
    for one, other in zip(shown["sections"], data["sections"], strict=True):
        rows = [dict(zip(one["tensors"]["keys"], row, strict=True)) for row in one["tensors"]["rows"]]
        for row, plain in zip(rows, other["tensors"], strict=True):
            for metric in other["metrics"]:
                value = plain.get(metric["key"])
                assert row.get(metric["key"]) == (None if value is None else pytest.approx(value, rel=1e-4))
    markdown = tuned.theta(*FORMS[form], "--md").stdout
    assert all(row["name"] in markdown for one in data["sections"] for row in one["tensors"][:30])
    if "layers.*" in FORMS[form]:
        assert all(row["name"].startswith("layers.") for row in data["sections"][0]["tensors"])


def test_the_rank_that_a_codec_found_is_told(tmp_path: Path, home: Path, visit: Visit) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    rng = np.random.default_rng(1)
    base = rng.normal(size=(256, 256)).astype(np.float32)
    for step in (0, 1):
        product = rng.normal(size=(256, 3)) @ rng.normal(size=(3, 256))
        make_model(repo.path / MODEL, {"l.0.w": (base + step * 0.01 * product).astype(np.float32)})
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", str(step))
    repo.theta("show", "--html", "out.html")
    page = visit.open(repo.path / "out.html")
    page.get_by_role("button", name="l.0.w").click()
    pairs = [" ".join(one.split()) for one in page.locator(".detail dl > *").all_inner_texts()]
    assert pairs[pairs.index("rank found by lowrank") + 1] == "3"


def test_what_goes_on_sideways_has_a_shadow_there(tuned: Repo, visit: Visit) -> None:
    tuned.theta("diff", "HEAD~", "HEAD", "--html", "narrow.html")
    page = visit.open(tuned.path / "narrow.html")
    page.set_viewport_size({"width": 360, "height": 900})
    found = page.evaluate("""() => [...document.querySelectorAll("*")]
        .filter((one) => getComputedStyle(one).overflowX === "auto" && one.scrollWidth > one.clientWidth)
        .map((one) => [one.className, getComputedStyle(one).backgroundAttachment])""")
    assert {name for name, _ in found} == {"pictures", "table"}
    assert {shadow for _, shadow in found} == {"local, local, scroll, scroll"}
    assert page.evaluate("document.documentElement.scrollWidth") == 360, "the page itself does not scroll"
