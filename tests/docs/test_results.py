"""The figures of README and comparison are those of ``bench/RESULTS.md`` and of the page on storage."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, pages
from tests.support.environment import ROOT

TOOLS = ("theta", "git-lfs")


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def section(page: str, heading: str) -> str:
    """Return the text below a heading."""
    found = pages()[page].read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert found, heading
    return found


def measured() -> dict[tuple[str, str], list[str]]:
    """Return (step, tool) -> cells of the first table: runs, wall and processor seconds, memory, size."""
    found = rows((ROOT / "bench" / "RESULTS.md").read_text().split("\n## ")[1])
    return {(row[0], row[1]): row[2:] for row in found if len(row) == 10}


@pytest.mark.parametrize(("page", "heading"), [("README", "How fast, how small"), ("comparison", "Git LFS")])
def test_the_results_beside_git_lfs_are_quoted(page: str, heading: str) -> None:
    known = measured()
    quoted = [row for row in rows(section(page, heading)) if re.fullmatch(r"[0-9.]+", row[-1])]
    *steps, size = quoted
    assert len(steps) == 6
    for step, *seconds in steps:
        assert seconds == [known[step, tool][1].split(" ")[0] for tool in TOOLS], step
    last = "add + commit, one layer changed"
    assert size[1:] == [known[last, tool][4] for tool in TOOLS]


def test_the_comparison_quotes_the_merges() -> None:
    found = rows((ROOT / "bench" / "RESULTS.md").read_text())
    known = {row[0]: [row[1], row[4]] for row in found if len(row) == 8}
    quoted = {row[0]: row[1:] for row in rows(section("comparison", "mergekit"))[2:]}
    assert quoted
    assert {name: known[name] for name in quoted} == quoted


def test_the_comparison_quotes_what_is_stored() -> None:
    """Fractions with three digits of those that the page on storage has with four."""
    said = re.findall(r"\b0\.\d+", section("comparison", "Hugging Face Hub with Xet"))
    known = {row[0]: row[1] for row in rows((DOCS / "storage.md").read_text()) if len(row) > 1}
    names = ("hf_xet 1.8.0", "theta", "full fine-tune, bf16 / f16 / f32")
    assert said == [f"{float(known[name].split(' ')[0]):.3f}" for name in names]


def test_no_other_figure_is_in_the_comparison() -> None:
    """A number with a fraction is a measurement, and stands in a section that a test holds."""
    held = ("Git LFS", "Hugging Face Hub with Xet", "mergekit")
    rest = (DOCS / "comparison.md").read_text()
    for heading in held:
        rest = rest.replace(section("comparison", heading), "")
    assert re.findall(r"\b\d+\.\d+\b", rest) == []
