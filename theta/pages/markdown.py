"""A report as Markdown, for comments on reviews."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from theta.git.quoting import split_lines
from theta.pages.numbers_text import told
from theta.pages.safe_text import inert
from theta.units import shape_text

SHOWN: Final = 30
"""Tensors that a section lists; comments have limits, and readers too."""

_STATUS: Final = {"A": "added", "D": "deleted", "M": "changed", "S": "resized", "T": "dtype", "R": "renamed"}


def markdown(data: Mapping[str, Any]) -> str:
    """Return the report (``PageData.as_json``) as Markdown with tables; all that others wrote is inert."""
    lines = [f"### {inert(data['title'])}", ""]
    lines += [f"- {name}: {inert(text)}" for name, text in data["facts"]]
    if data["message"]:
        lines += ["", *(f"> {inert(line)}  " if line else ">" for line in split_lines(data["message"]))]
    for section in data["sections"]:
        lines += ["", *_section(section)]
    if data["history"]:
        lines += ["", *_history(data["history"])]
    return "\n".join(lines) + "\n"


def _section(section: Mapping[str, Any]) -> Iterator[str]:
    yield f"#### {inert(section['path'])}: {inert(section['summary'])}"
    yield ""
    for name, text in section["facts"]:
        yield f"- {name}: {inert(text)}"
    metrics = [
        metric for metric in section["metrics"] if any(_number(row, metric) for row in section["tensors"])
    ]
    rows = _most_telling(section["tensors"], metrics)
    if not rows:
        return
    yield ""
    yield from _table(["tensor", "", "shape", "dtype", *(m["short"] for m in metrics)], 4)
    for row in rows[:SHOWN]:
        numbers = (_number(row, metric) for metric in metrics)
        status = _STATUS.get(row["status"], row["status"])
        yield _line([inert(row["name"]), status, _shape(row), inert(row["dtype"]), *numbers])
    if len(rows) > SHOWN:
        yield ""
        yield f"and {len(rows) - SHOWN} more"


def _number(row: Mapping[str, Any], metric: Mapping[str, str]) -> str:
    """Return one number; one that JSON has no word for is ``inf`` or ``nan``."""
    odd: str | None = row.get("odd_numbers", {}).get(metric["key"])
    return odd or told(row.get(metric["key"]), metric["form"])


def _shape(row: Mapping[str, Any]) -> str:
    """Return the shape, that of the old version too, and which part of both was compared."""
    found = shape_text(row["shape"])
    if row.get("old_shape") is not None:
        found = f"{shape_text(row['old_shape'])} → {found}"
    return f"{found}, {row['part']} compared" if row.get("part") else found


def _most_telling(rows: Sequence[Any], metrics: Sequence[Mapping[str, str]]) -> list[Any]:
    """Return the rows by their first metric, the largest first; those without it come before them."""
    if not metrics:
        return list(rows)
    key = metrics[0]["key"]
    return sorted(rows, key=lambda row: -row[key] if row.get(key) is not None else float("-inf"))


def _history(commits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _table(["commit", "subject", "author", "date", "stored"], 4)
    for one in reversed(commits):
        stored = told(one.get("stored"), "bytes")
        others = (one["commit"][:12], one["subject"], one["author"])
        yield _line([*map(inert, others), one["date"], stored])


def _table(headings: Sequence[str], words: int) -> Iterator[str]:
    yield _line([heading.replace("|", "\\|") for heading in headings])
    yield f"|{'|'.join('---' if number < words else '--:' for number in range(len(headings)))}|"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
