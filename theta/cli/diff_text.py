"""The output of ``theta diff``: a table for each changed checkpoint, or plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from theta.cli import console, reports, terminal
from theta.errors import UsageError
from theta.lazy import Module
from theta.porcelain.look import comparison
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.look.diffing import Compared
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.cli import stats_rows, tables
    from theta.git.options import Arguments
    from theta.porcelain.look import file_pairs
    from theta.porcelain.look.file_pairs import FilePair
    from theta.porcelain.studies import diff_study
else:
    file_pairs = Module("theta.porcelain.look.file_pairs")
    diff_study = Module("theta.porcelain.studies.diff_study")
    stats_rows = Module("theta.cli.stats_rows")
    tables = Module("theta.cli.tables")


@dataclass(frozen=True)
class Form:
    """The form of the output: with numbers, of which tensors, as JSON, a page or Markdown."""

    stats: bool
    tensor: str | None
    as_json: bool
    html: str | None
    md: bool

    @property
    def pictured(self) -> bool:
        """Whether a page is asked for, or its Markdown."""
        return self.html is not None or self.md

    @property
    def asked(self) -> bool:
        """Whether any of it was asked for."""
        return self.stats or self.as_json or self.tensor is not None or self.pictured


def stat(found: Sequence[Compared]) -> None:
    """Print the row of a diffstat for each checkpoint, which counts tensors."""
    for item in found:
        console.out(item.changes.row(item.path))


def tell(session: Session, request: DiffRequest, found: Sequence[Compared]) -> None:
    """Print the tensors of each changed checkpoint, with their numbers if ``request`` wants them."""
    for item in found:
        rows = stats_rows.of_checkpoint(item, request) if request.numbers else None
        with terminal.progress("comparing") as progress:
            table = comparison.tensors(session, request, item, progress, rows.add if rows else None)
        if rows is not None:
            rows.begin()
            tables.measured(table)
        else:
            tables.changes(table)


def as_json(session: Session, request: DiffRequest, found: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return the changed checkpoints as plain data."""
    whole = diff_study.as_json if request.numbers else comparison.as_json
    return [whole(session, request, item) for item in found]


def pair(session: Session, asked: Arguments, form: Form, two: FilePair) -> int:
    """Print how two checkpoints differ; return 1 if they do and ``--exit-code`` asks for that."""
    if form.pictured:
        raise UsageError("a page is of two versions, not of two files")
    request = comparison.DiffRequest(two.sides, (), form.tensor, form.stats)
    with terminal.progress("comparing") as progress:
        item = file_pairs.compare(session, two, request, progress)
    found = [] if item is None else [item]
    if form.as_json:
        reports.as_json("diff", as_json(session, request, found))
    elif not found and form.tensor is not None:
        console.note(f"no changed tensor is called {form.tensor}")
    else:
        tell(session, request, found)
    return int(asked.has("--exit-code") and bool(found))
