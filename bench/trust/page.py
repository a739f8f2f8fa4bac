"""The tables of ``theta/docs/trust.md``, made of the cumulative table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.trust import campaigns, table
from bench.trust.outcome import FAULTS
from bench.trust.table import Row

PAGE: Final = table.ROOT / "theta" / "docs" / "trust.md"
_BEGIN, _END = "<!-- made by: python -m bench.trust --page -->\n", "<!-- until here -->\n"


def rows(found: Sequence[Row]) -> str:
    """Return the table of one state, that of all campaigns, then that of faults that were mended."""
    sound = [row for row in found if not row.mended]
    lines = [
        *_one_state(found),
        "| campaign | cases | lost | wrong | executed | other | bound 3/n | hours | seeds | commits |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|",
        *filter(None, (_line(n, [row for row in sound if row.campaign == n]) for n in campaigns.NAMES)),
    ]
    inputs = sum(row.cases for row in sound if campaigns.make(row.campaign).counts == "inputs")
    text = "\n".join(lines) + "\n"
    text += f"\nMutated inputs in all: {inputs:,}. Digest of the rows: `{_digest(found)}`.\n"
    return text + _mended([row for row in found if row.mended])


def _one_state(found: Sequence[Row]) -> list[str]:
    """Return the lines of the table of the newest sources, of those that most campaigns ran on."""
    found = [row for row in found if row.cases]
    if not found:
        return []
    many = Counter(row.sources for row in found)
    # Seeds are counted on, so the highest one is of what was run last.
    most = max(found, key=lambda row: (row.last, many[row.sources], row.seeds[-1][1])).sources
    listed = {row.campaign: row for row in found if row.sources == most}
    lines = [
        f"Of one state of the sources, that of commit `{next(iter(listed.values())).commit}`:",
        "",
        "| campaign | cases | lost | wrong | executed | other | bound 3/n | what they were |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in (name for name in campaigns.NAMES if name in listed):
        row = listed[name]
        lines.append(f"| {' | '.join([*_counts(name, [row]), row.mended])} |")
    return [*lines, "", "Of all states together:", ""]


def _digest(found: Iterable[Row]) -> str:
    return table.digest(asdict(row) for row in found)


def _counts(name: str, found: Sequence[Row]) -> list[str]:
    """Return the cells with the title of a campaign, its cases, its faults of each kind, and the bound."""
    cases = sum(row.cases for row in found)
    faults = [sum(row.faults[kind] for row in found) for kind in FAULTS]
    bound = "-" if any(faults) else f"{3 / cases:.2g}"
    return [campaigns.make(name).title, f"{cases:,}", *map(str, faults), bound]


def _line(name: str, found: Sequence[Row]) -> str:
    if not any(row.cases for row in found):
        return ""
    hours = sum(row.seconds for row in found) / 3600
    seeds = sum(last - first + 1 for row in found for first, last in row.seeds)
    cells = [
        *_counts(name, found), f"{hours:.2f}", f"{seeds:,}",
        " ".join(dict.fromkeys(f"`{row.commit}`" for row in found)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _mended(found: Sequence[Row]) -> str:
    """Return the table of states on which a campaign found what was mended since."""
    if not found:
        return ""
    lines = ["", "| campaign | commit | cases | faults | mended |", "|---|---|---:|---:|---|"]
    for row in found:
        cells = [row.campaign, f"`{row.commit}`", f"{row.cases:,}", str(sum(row.faults.values())), row.mended]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def filled(text: str, found: Sequence[Row]) -> str:
    """Return the text of the page with the tables as they are now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{rows(found)}\n{_END}{after}"


def write(found: Sequence[Row], page: Path = PAGE) -> None:
    """Write the tables into the page."""
    page.write_text(filled(page.read_text(), found))
