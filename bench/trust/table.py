"""The cumulative table: what was run on which state of the sources, and its digest and signature."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.trust import campaigns
from bench.trust.outcome import FAULTS, Outcome

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = Path(__file__).with_name("table.json")
_KEY: Final = "theta.trust/v1"
_SOURCES: Final = ("theta", "theta_native")


@dataclass
class Row:
    """The runs of one campaign on one state of the sources.

    Attributes:
        campaign: its name.
        commit: the commit that was checked out; with ``+`` if the sources were not as in it.
        sources: the digest of the sources that were run.
        seeds: ranges of seeds, both ends included.
        cases: how many cases came about.
        faults: kind -> how many.
        words: what came of the cases.
        seconds: the time that they took, of all processes together.
        last: the day of the last run.
        machine: the processor and the system.
        mended: what mended the faults; empty if there is nothing to mend, or it is not mended.
    """

    campaign: str
    commit: str
    sources: str
    seeds: list[list[int]] = field(default_factory=list)
    cases: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    words: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    last: str = ""
    machine: str = ""
    mended: str = ""

    def add(self, found: Outcome) -> None:
        """Count the cases of another seed."""
        self.seeds = _ranges([*_each(self.seeds), found.seed])
        self.cases += found.cases
        self.words = dict(sorted((Counter(self.words) + found.words).items()))
        self.seconds = round(self.seconds + found.seconds, 1)
        for kind, _, _ in found.faults:
            self.faults[kind] += 1
        self.last = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.machine = machine()


def read(file: Path = FILE) -> list[Row]:
    """Return the rows of a table; none of a file that is missing."""
    if not file.exists():
        return []
    return [Row(**row) for row in json.loads(file.read_text())[_KEY]["rows"]]


def write(rows: Iterable[Row], file: Path = FILE) -> None:
    """Write a table with its digest, beside and then over the old one."""
    body = [asdict(row) for row in sorted(rows, key=lambda row: (row.campaign, row.sources))]
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps({_KEY: {"digest": digest(body), "rows": body}}, indent=1) + "\n")
    draft.replace(file)


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of the rows, as JSON without blanks and with sorted keys."""
    text = json.dumps(list(rows), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_whole(file: Path = FILE) -> bool:
    """Return whether the digest of a table is that of its rows."""
    body = json.loads(file.read_text())[_KEY]
    return bool(body["digest"] == digest(body["rows"]))


def row_of(rows: list[Row], campaign: str) -> Row:
    """Return the row of a campaign on the sources as they are, which is added if it is new."""
    for row in rows:
        if (row.campaign, row.sources) == (campaign, sources()):
            return row
    rows.append(Row(campaign, commit(), sources()))
    return rows[-1]


def share(rows: list[Row], campaign: str) -> float:
    """Return how much of its goal a campaign has reached on the sources as they are."""
    done = sum(row.cases for row in rows if (row.campaign, row.sources) == (campaign, sources()))
    return done / campaigns.GOALS[campaign]


def joined(rows: Iterable[Row], more: Iterable[Row]) -> list[Row]:
    """Return the rows of two tables; seeds that both have on the same sources are refused."""
    found = {(row.campaign, row.sources): row for row in rows}
    for row in more:
        old = found.setdefault((row.campaign, row.sources), row)
        if old is not row:
            _join(old, row)
    return list(found.values())


def _join(old: Row, row: Row) -> None:
    if {*_each(old.seeds)} & {*_each(row.seeds)}:
        raise ValueError(f"both tables have the same seeds of {row.campaign}")
    old.seeds = _ranges([*_each(old.seeds), *_each(row.seeds)])
    old.cases += row.cases
    old.seconds = round(old.seconds + row.seconds, 1)
    old.words = dict(sorted((Counter(old.words) + Counter(row.words)).items()))
    old.faults = {kind: old.faults[kind] + row.faults[kind] for kind in FAULTS}
    old.last = max(old.last, row.last)


def next_seed(rows: Iterable[Row], campaign: str, first: int) -> int:
    """Return the first seed from ``first`` on after all that a campaign had on these sources."""
    taken = [
        seed
        for row in rows
        if (row.campaign, row.sources) == (campaign, sources())
        for seed in _each(row.seeds)
    ]
    return max([first - 1, *taken]) + 1


def _each(ranges: Iterable[Iterable[int]]) -> list[int]:
    return [seed for first, last in ranges for seed in range(first, last + 1)]


def _ranges(seeds: Iterable[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


@cache
def sources() -> str:
    """Return a digest of all files of the product, by name and content."""
    found = hashlib.sha256()
    for file in sorted(file for top in _SOURCES for file in (ROOT / top).rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        found.update(f"{file.relative_to(ROOT)} {content}\n".encode())
    return found.hexdigest()[:16]


@cache
def commit() -> str:
    """Return the commit that is checked out, with ``+`` if the sources are not as in it; "none" of a copy."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        return "none"
    modules = [f"{top}/*.py" for top in _SOURCES]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *modules], check=False)
    return head.stdout.strip() + ("+" if changed.returncode else "")


@cache
def machine() -> str:
    """Return the number of processors, their kind, and the system."""
    return f"{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release().split('-')[0]}"
