"""Findings as the files that services read: SARIF 2.1.0 and JUnit's XML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
MARKS: Final = (
    '"$schema": "https://json.schemastore.org/sarif-2.1.0.json"',
    '<testsuites name="theta check"',
)
"""Texts near the beginning of such files: only these are written over."""
Findings = Sequence[Mapping[str, str]]
"""Mappings with ``rule``, ``path``, ``tensor`` and ``message``."""


def sarif(findings: Findings, rules: Mapping[str, str], version: str, files: Mapping[str, str]) -> str:
    """Return SARIF 2.1.0 (OASIS), as code hosts read it; ``files`` is path -> the file to show instead."""
    names = list(rules)
    driver = {
        "name": "theta",
        "version": version,
        "rules": [{"id": name, "shortDescription": {"text": text}} for name, text in rules.items()],
    }
    results = [_result({**one, "path": files.get(one["path"], one["path"])}, names) for one in findings]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _result(one: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    text = f"{one['tensor']}: {one['message']}" if one["tensor"] else one["message"]
    found: dict[str, Any] = {
        "ruleId": one["rule"],
        "ruleIndex": names.index(one["rule"]),
        "level": "error",
        "message": {"text": text},
    }
    place: dict[str, Any] = {}
    if one["path"]:
        place["physicalLocation"] = {"artifactLocation": {"uri": _uri(one["path"])}}
    if one["tensor"]:
        place["logicalLocations"] = [{"name": one["tensor"], "kind": "member"}]
    return found | ({"locations": [place]} if place else {})


def _uri(path: str) -> str:
    return quote(os.fsencode(path))


def junit(findings: Findings, paths: Sequence[str], rules: Mapping[str, str]) -> str:
    """Return JUnit's XML: a suite for each path, a case for each rule, a failure for each finding."""
    root = ElementTree.Element("testsuites", name="theta check")
    for path in [*paths, *sorted({one["path"] for one in findings} - {*paths})]:
        mine = [one for one in findings if one["path"] == path]
        suite = ElementTree.SubElement(
            root, "testsuite", name=_xml(path or "commit"), tests=str(len(rules)), failures=str(_failed(mine))
        )
        for rule in rules:
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(path or "commit"), name=rule)
            if lines := list(_lines(mine, rule)):
                failure = ElementTree.SubElement(case, "failure", message=_xml(lines[0]), type=rule)
                failure.text = _xml("\n".join(lines))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _failed(findings: Findings) -> int:
    return len({one["rule"] for one in findings})


def _lines(findings: Findings, rule: str) -> Iterator[str]:
    for one in findings:
        if one["rule"] == rule:
            yield f"{one['tensor']}: {one['message']}" if one["tensor"] else one["message"]


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot have."""
    return "".join(
        c if c in "\t\n" or (c >= " " and c.isprintable()) else "\N{REPLACEMENT CHARACTER}" for c in text
    )
