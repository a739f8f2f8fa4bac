"""The marks of a page say what the numbers say: scale, median, cut tensors, odd numbers, labels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support import Repo, make_model, random_tensors
from tests.support.browser import Visit, browser
from theta.pages import document
from theta.pages.markdown import markdown
from theta.porcelain.studies.diff_study import METRICS
from theta.porcelain.studies.pages_data import PageData, Section

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MODEL = "model.safetensors"
Opener = Callable[[str], "Page"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Open the text of a page, which complains of nothing."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    visit = Visit(context.new_page())

    def show(text: str) -> Page:
        (tmp_path / "page.html").write_text(text)
        return visit.open(tmp_path / "page.html")

    yield show
    assert visit.complaints == []
    context.close()


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "status": "M", "shape": [4, 4], "dtype": "f32", "bytes": 64, **more}


def diffed(*rows: dict[str, Any]) -> dict[str, Any]:
    section = Section(MODEL, f"{len(rows)} changed", (), METRICS, list(rows))
    return PageData("diff", "a -> b", (), (section,)).as_json()


def plain(text: str) -> str:
    """Text on one line, with the letter for the sign of products."""
    return " ".join(text.split()).replace("\N{MULTIPLICATION SIGN}", "x")


def fills(page: Page) -> list[tuple[int, ...]]:
    """The colours of the map, from left to right."""
    found = page.locator("svg rect.cell[fill]").evaluate_all(
        "all => all.map(one => one.getAttribute('fill'))"
    )
    return [tuple(map(int, re.findall(r"\d+", one))) for one in found]


def test_the_scale_is_logarithmic_from_the_least_to_the_largest(opened: Opener) -> None:
    values = (1e-4, 1e-3, 1e-2)
    page = opened(document.html(diffed(*(row(f"l.{k}.w", relative=v) for k, v in enumerate(values)))))
    assert fills(page) == [(0x44, 0x01, 0x54), (0x21, 0x91, 0x8C), (0xFD, 0xE7, 0x25)]
    legend = page.locator(".legend").inner_text()
    assert all(word in legend for word in ("0.01%", "1%", "logarithmic"))
    ticks = page.locator("figure svg text").all_text_contents()
    assert "1%" in ticks


def test_what_is_a_millionth_of_the_largest_has_the_least_colour(opened: Opener) -> None:
    rows = (row(f"l.{k}.w", relative=v) for k, v in enumerate((1e-20, 1e-6, 1e-3, 1.0)))
    found = fills(opened(document.html(diffed(*rows))))
    assert found[0] == found[1] == (0x44, 0x01, 0x54)
    assert found[2] == (0x21, 0x91, 0x8C)


def test_shares_have_a_linear_scale_from_none_to_all(opened: Opener) -> None:
    rows = (row(f"l.{k}.w", changed=v) for k, v in enumerate((0.0, 0.1, 0.5)))
    page = opened(document.html(diffed(*rows)))
    assert page.locator("rect.cell.zero").count() == 1
    assert fills(page) == [(0x48, 0x24, 0x75), (0x21, 0x91, 0x8C)]
    assert "linear" in page.locator(".legend").inner_text()


@pytest.mark.parametrize(("values", "middle"), [((1, 2, 9), 2.0), ((1, 2, 4, 9), 3.0), ((5,), 5.0)])
def test_the_blue_line_is_the_median_of_a_layer(
    opened: Opener, values: tuple[int, ...], middle: float
) -> None:
    rows = [row(f"l.{layer}.{k}w", relative=float(v)) for layer in (0, 1) for k, v in enumerate(values)]
    page = opened(document.html(diffed(*rows)))
    heights = {
        look: float(re.findall(r"M[\d.]+ ([\d.]+)", page.locator(f"path.{look}").get_attribute("d") or "")[0])
        for look in ("most", "middle")
    }
    ground, top = 150 - 22, heights["most"]
    assert (ground - heights["middle"]) / (ground - top) == pytest.approx(middle / max(values), abs=0.01)


def test_a_cell_is_told_and_opened_as_the_tensor_that_it_is_drawn_as(opened: Opener) -> None:
    rows = [row("l.0.e.0.w", relative=5.0), row("l.0.e.1.w", relative=float("nan"), nans=3, infinite=1)]
    page = opened(document.html(diffed(*rows, row("l.1.e.0.w", relative=1.0))))
    red = page.locator("rect.cell.odd")
    red.hover()
    hint = page.locator("#hint").inner_text()
    assert hint.startswith("l.0.e.1.w: ")
    assert "1 infinite, 3 no number" in hint
    assert "one of 2 tensors" in hint
    red.click()
    assert page.locator(".detail h3").inner_text() == "l.0.e.1.w"
    assert page.locator("[aria-live]").inner_text() == hint
    below = page.evaluate("document.querySelector('[aria-live]').getBoundingClientRect().top")
    assert below < page.evaluate("document.querySelector('tbody').getBoundingClientRect().top")


def test_numbers_that_are_none_say_which_and_come_first(opened: Opener) -> None:
    rows = [
        row("l.0.w", relative=5.0),
        row("l.1.w", relative=float("inf")),
        row("l.2.w", relative=float("nan")),
    ]
    data = diffed(*rows)
    page = opened(document.html(data))
    assert page.locator("tbody td:nth-child(5)").all_inner_texts() == ["inf", "nan", "500%"]
    assert [one.split("|")[5].strip() for one in markdown(data).splitlines()[-3:]] == ["inf", "nan", "500%"]


def test_a_cut_tensor_says_which_part_was_compared(repo: Repo, opened: Opener) -> None:
    repo.theta("track", "*.safetensors")
    tensors = random_tensors({"l.0.w": (8, 4), "l.1.w": (8, 4), "l.2.w": (8, 4)}, 1)
    make_model(repo.path / MODEL, tensors)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "base")
    tensors["l.0.w"] = np.concatenate([tensors["l.0.w"] * np.float32(1.5), np.ones((4, 4), np.float32)])
    tensors["l.1.w"] = tensors["l.1.w"][:, :2] * np.float32(1.25)
    make_model(repo.path / MODEL, tensors)
    repo.theta("commit", "-q", "-am", "cut")
    page = opened(repo.theta("show", "--html", "-").stdout)
    assert page.locator("rect.cell.part").count() == 2
    assert "only the leading part was compared" in page.locator(".legend").inner_text()
    cells = page.locator("tbody td:nth-child(3)").all_inner_texts()
    assert [plain(one) for one in cells] == [
        "8x4 → 12x4 first 8 rows compared",
        "8x4 → 8x2 first 8x2 elements compared",
    ]
    page.locator("rect.cell.part").first.hover()
    assert "first 8 rows compared" in page.locator("#hint").inner_text()
    text = plain(repo.theta("show", "--md").stdout)
    assert "| 8x4 → 12x4, first 8 rows compared |" in text
    assert "| 8x4 → 8x2, first 8x2 elements compared |" in text


def sides(repo: Repo, base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Commit a base, and what two branches made of it, in two shards."""
    repo.theta("track", "*.safetensors")
    _written(repo, base, "base")
    repo.git("branch", "side")
    _written(repo, ours, "ours")
    repo.git("checkout", "-q", "side")
    _written(repo, theirs, "theirs")
    repo.git("checkout", "-q", "main")


def _written(repo: Repo, tensors: Mapping[str, Any], message: str) -> None:
    names = sorted(tensors)
    for number in (1, 2):
        part = {name: tensors[name] for name in names[number - 1 :: 2]}
        make_model(repo.path / f"model-0000{number}-of-00002.safetensors", part)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", message)


def test_a_merge_has_one_section_a_checkpoint_and_marks_what_is_odd(repo: Repo, opened: Opener) -> None:
    base = random_tensors({f"l.{k}.w": (4, 4) for k in range(5)}, 1)
    base["l.1.w"] = np.zeros((4, 4), np.float32)
    half = np.float32(0.5)
    ours = {
        **base,
        "l.0.w": base["l.0.w"] + half,
        "l.1.w": base["l.1.w"] + half,
        "l.2.w": base["l.2.w"] + half,
    }
    spoilt = base["l.2.w"].copy()
    spoilt[0, 0] = np.nan
    theirs = {**base, "l.0.w": base["l.0.w"] - half, "l.1.w": base["l.1.w"] + half, "l.2.w": spoilt}
    theirs["l.1.w"] = base["l.1.w"] + np.float32(0.25)
    theirs["l.3.w"] = base["l.3.w"] + half
    sides(repo, base, ours, theirs)
    page = opened(repo.theta("merge", "--dry-run", "-X", "average", "side", "--html", "-", code=None).stdout)
    assert page.locator("h2").all_inner_texts() == [MODEL]
    assert "changed on one side" in page.locator(".legend").inner_text()
    for width in (1400, 700):
        page.set_viewport_size({"width": width, "height": 900})
        legend, map_of = (page.locator(one).first.bounding_box() for one in (".legend", ".pictures svg"))
        assert legend and map_of and legend["y"] + legend["height"] <= map_of["y"], width
    assert page.locator("rect.cell.aside").count() == 1
    assert page.locator("main section > p").first.inner_text().startswith("5 tensors: ")
    assert page.locator("rect.cell.odd").count() == 2
    cells = {
        line.split("\t")[0]: line.split("\t")[4:8] for line in page.locator("tbody tr").all_inner_texts()
    }
    assert cells["l.1.w"][2:] == ["inf", "inf"]
    assert cells["l.2.w"][1] == cells["l.2.w"][3] == "nan"
    assert cells["l.3.w"][2] == "0%"
    assert cells["l.0.w"][:2] == ["100%", "2"]


def test_a_history_is_labelled_by_step_or_id(repo: Repo, opened: Opener) -> None:
    history = tuple(
        {"commit": f"{k:040x}", "parents": [f"{k - 1:040x}"] if k else [], "names": ["main"][: k // 2],
         "subject": f"subject {k}", "author": "Ada", "date": "2026-01-01 00:00", "changes": "",
         "stored": 10 * k, "step": 100 * k if k else None, "metrics": {"loss": 3.0 - k}}
        for k in range(3)
    )  # fmt: skip
    page = opened(document.html(PageData("log", "History", (), (), history).as_json()))
    stored, loss = (page.locator("figure").nth(k) for k in (0, 1))
    for figure, name in ((stored, "stored bytes by commit"), (loss, "loss by commit")):
        assert figure.locator("figcaption").inner_text() == name
        assert {"0000000", "100", "200"} <= {*figure.locator("svg text").all_text_contents()}
    graph = page.locator(".pictures svg text").all_text_contents()
    assert [re.sub(r"^0+\d", "", one).strip() for one in graph] == [
        "(main) subject 2",
        "subject 1",
        "subject 0",
    ]
    stored.locator("rect.fill").nth(2).hover()
    assert page.locator("#hint").inner_text() == "200: 20 B"


def test_labels_of_commits_do_not_touch(opened: Opener) -> None:
    history = tuple(
        {"commit": f"{k:x}" * 40, "parents": [], "names": [], "subject": "", "author": "Ada",
         "date": "2026-01-01 00:00", "changes": "", "stored": 10 + k}
        for k in range(10, 15)
    )  # fmt: skip
    page = opened(document.html(PageData("log", "History", (), (), history).as_json()))
    labels = page.locator("figure svg text[text-anchor=middle]")
    assert labels.all_text_contents() == [letter * 7 for letter in "abcde"]
    boxes = [one.bounding_box() for one in labels.all()]
    ends = sorted((box["x"], box["x"] + box["width"]) for box in boxes if box is not None)
    assert all(end + 4 < begin for (_, end), (begin, _) in pairwise(ends))


def test_data_of_a_page_is_json() -> None:
    found = diffed(row("l.0.w", relative=float("inf"), largest=float("nan"), distance=0.5))
    plain = json.loads(json.dumps(found, allow_nan=False))["sections"][0]["tensors"][0]
    assert plain["odd_numbers"] == {"relative": "inf", "largest": "nan"}
    assert (plain["relative"], plain["distance"]) == (None, 0.5)
