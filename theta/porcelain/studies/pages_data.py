"""The data of a page, as plain data: what HTML, Markdown and JSON are made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from theta.porcelain.studies.map_places import place_of
from theta.units import finite


@dataclass(frozen=True)
class Metric:
    """A number that each tensor of a section may have.

    Attributes:
        key: its key in the rows.
        short: a heading for a column.
        label: its name in words.
        form: the way it is shown: ``"percent"``, ``"bytes"`` or ``"number"``.
        linear: it goes from 0 to 1, and colours do so too; others are logarithmic.
    """

    key: str
    short: str
    label: str
    form: str
    linear: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Section:
    """One checkpoint on a page.

    Attributes:
        path: the path of the file, or the name of a sharded model.
        summary: one line for people.
        facts: pairs of a heading and a text.
        metrics: the numbers of its tensors, the most telling first.
        tensors: rows with ``name``, ``status``, ``shape``, ``dtype``, the metrics' keys and details.
        same: places on the map (layer, kind) of tensors that have no row, since nothing happened to them.
    """

    path: str
    summary: str
    facts: tuple[tuple[str, str], ...] = ()
    metrics: tuple[Metric, ...] = ()
    tensors: list[dict[str, Any]] = field(default_factory=list)
    same: tuple[tuple[int | None, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; each row has its place on the map, and ``odd_numbers``.

        These are the metrics that are "inf" or "nan", which JSON has no words for.
        """
        return {
            "path": self.path,
            "summary": self.summary,
            "facts": [list(fact) for fact in self.facts],
            "metrics": [metric.as_json() for metric in self.metrics],
            "tensors": [finite(self._plain(row)) for row in self.tensors],
            "same": [list(place) for place in self.same],
        }

    def _plain(self, row: Mapping[str, Any]) -> dict[str, Any]:
        place = place_of(row["name"])
        odd = {one.key: _odd(row[one.key]) for one in self.metrics if _odd(row.get(one.key))}
        return {**row, "layer": place.layer, "kind": place.kind} | ({"odd_numbers": odd} if odd else {})


@dataclass(frozen=True)
class PageData:
    """A page: its kind (``diff``, ``show``, ``log``, ``merge``), title, facts and sections.

    ``history`` holds commits for a page on a history, oldest first; ``message`` the lines that a commit has
    below its subject.
    """

    kind: str
    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data that any JSON reader takes: numbers are finite or null."""
        return {
            "kind": self.kind,
            "title": self.title,
            "facts": [list(fact) for fact in self.facts],
            "message": self.message,
            "sections": [section.as_json() for section in self.sections],
            "history": [finite(dict(one)) for one in self.history],
        }


def _odd(value: object) -> str:
    """Return "nan" or "inf" for such a number, "" for others and for what is none."""
    if not isinstance(value, float) or math.isfinite(value):
        return ""
    return "nan" if math.isnan(value) else "inf"


def places(names: Iterable[str]) -> tuple[tuple[int | None, str], ...]:
    """Return the places of these tensors on the map, each once."""
    found = {(place.layer, place.kind): None for place in map(place_of, names)}
    return tuple(found)
