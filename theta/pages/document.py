"""One self-contained HTML page: data as JSON, and the style and the script that draw it.

The page asks the network for nothing.  Its Content-Security-Policy allows the style and the script by their
digests, and nothing else: no other script runs, whatever a tensor or an author is called.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from theta.pages.safe_text import safe

MARK: Final = '<meta name="generator" content="theta">'
"""A line near the beginning of each page, by which one is known."""


def html(report: Mapping[str, Any]) -> str:
    """Return the page of a report (``PageData.as_json``)."""
    data = safe(report)
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; base-uri 'none'"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8">{MARK}',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}; form-action \'none\'">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">',
            f"<title>{escape(str(data['title']))} - theta {escape(str(data['kind']))}</title>",
            f"<style>{style}</style></head><body>",
            "<noscript>A script draws the tables and pictures of this page.</noscript>",
            '<main id="page"></main>',
            f'<script type="application/json" id="data">{_embedded(data)}</script>',
            f"<script>{script}</script></body></html>",
            "",
        ]
    )


def _asset(name: str) -> str:
    return files("theta.pages").joinpath("assets", name).read_text("utf-8")


def _source(text: str) -> str:
    """Return the name of an inline style or script in a policy: the digest of its text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that ends no script element and begins no comment, whatever its strings hold."""
    sections = [{**section, "tensors": _columns(section["tensors"])} for section in data["sections"]]
    text = json.dumps(
        _short({**data, "sections": sections}), ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows without their keys, which would be half of a page; the script puts them back."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {"keys": keys, "rows": [[row.get(key) for key in keys] for row in rows]}


def _short(value: Any) -> Any:
    """Return plain data with as many digits of each number as a picture can show."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list | tuple) else value
