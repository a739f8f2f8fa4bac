"""The forms in which ``theta merge --dry-run`` tells its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from theta.cli import report_files
from theta.errors import UsageError

JsonWanted = Annotated[bool, typer.Option("--json", help="Print the result of --dry-run as JSON.")]
PageFile = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="With --dry-run: draw it on a page of its own.")
]
MarkdownWanted = Annotated[
    bool, typer.Option("--md", help="With --dry-run: print it as Markdown, for a review.")
]


@dataclass(frozen=True)
class RehearsedForm:
    """A table, JSON, a page or Markdown."""

    as_json: bool = False
    html: str | None = None
    md: bool = False

    @classmethod
    def of(cls, as_json: bool, html: str | None, md: bool, *, dry_run: bool) -> RehearsedForm:
        """Return the form; raises :class:`UsageError` for two of them, and for one without --dry-run."""
        given = {"--json": as_json, "--html": html is not None, "--md": md}
        chosen = next((name for name, is_given in given.items() if is_given), "")
        if chosen and not dry_run:
            raise UsageError(f"{chosen} goes with --dry-run", hint=f"theta merge --dry-run {chosen} ...")
        report_files.check(html, md, as_json)
        return cls(as_json, html, md)
