"""The figures of the README are those of ``bench/RESULTS.md``."""

from __future__ import annotations

import re

from tests.support.environment import ROOT

TOOLS = ("theta", "git-lfs")


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def measured() -> dict[tuple[str, str], list[str]]:
    """Return (step, tool) -> its cells: runs, wall seconds, processor seconds, memory, size."""
    found = rows((ROOT / "bench" / "RESULTS.md").read_text())
    return {(row[0], row[1]): row[2:] for row in found if len(row) == 10}


def test_the_readme_quotes_the_results() -> None:
    section = (ROOT / "README.md").read_text().partition("## How fast, how small")[2].partition("\n## ")[0]
    known, quoted = measured(), [row for row in rows(section) if re.fullmatch(r"[0-9.]+", row[-1])]
    *steps, size = quoted
    assert len(steps) == 6
    for step, *seconds in steps:
        assert seconds == [known[step, tool][1].split(" ")[0] for tool in TOOLS], step
    last = "add + commit, one layer changed"
    assert size[1:] == [known[last, tool][4] for tool in TOOLS]
