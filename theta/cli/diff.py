"""``theta diff``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, report_files, reports, terminal
from theta.cli.args import Given
from theta.cli.common import open_session, uses_theta
from theta.cli.passing import Passing
from theta.errors import NotARepositoryError, UsageError
from theta.git.run import plain as outside
from theta.lazy import Module
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.history import HIDE

if TYPE_CHECKING:
    import typer

    from theta.cli import in_conflict, stats_rows, tables
    from theta.git.options import Arguments
    from theta.porcelain.studies import diff_study
    from theta.porcelain.workspace.session import Session
else:
    in_conflict = Module("theta.cli.in_conflict")
    diff_study = Module("theta.porcelain.studies.diff_study")
    stats_rows = Module("theta.cli.stats_rows")
    tables = Module("theta.cli.tables")
    typer = Module("typer")

app = Passing(
    (
        "--stats",
        "--tensor=",
        "--json",
        "--html=",
        "--md",
    )
)


@app.command
def diff(
    given: Given,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print norms, cosine and changed elements of each tensor.")
    ] = False,
    tensor: Annotated[
        str | None, typer.Option("--tensor", metavar="GLOB", help="Show only tensors matching GLOB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Draw them on a page of its own.")
    ] = None,
    md: Annotated[bool, typer.Option("--md", help="Print them as Markdown, for a review.")] = False,
) -> int:
    """Show differences: [--cached] [REV [REV]] [--] [PATH...] (git diff's options apply).

    Checkpoints are compared tensor by tensor, by digest; --stats, --html and --md read their values.
    Files are shown by git diff.
    """
    asked = given.of_git()
    session = _session(asked)
    console.colour = asked.colours() or console.colour
    if session is None or not asked.known or asked.has("--no-index"):
        return outside(Path.cwd()).show("diff", *asked.given)
    if session.repo.is_bare and not asked.words:
        _ = session.repo.worktree
    git, form = session.repo.git().in_directory(session.cwd), Form(stats, tensor, as_json, html, md)
    revisions, paths = diffing.split(git, asked)
    of_files = any(":" in name for name in revisions if not name.startswith(":/"))
    if not form.asked and (of_files or not uses_theta(session)):
        return _by_git(session, *asked.given)
    return _diff(session, asked, form, revisions, paths)


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


def _session(asked: Arguments) -> Session | None:
    """Open the session here; return None outside of repositories, where git compares two files."""
    try:
        return open_session(worktree=False)
    except NotARepositoryError:
        if len(asked.words) == 2:
            return None
        raise


def _diff(session: Session, asked: Arguments, form: Form, revisions: list[str], paths: list[str]) -> int:
    git = session.repo.git().in_directory(session.cwd)
    pair = diffing.sides(git, revisions, cached=asked.has("--cached") or asked.has("--staged"))
    files = ["--", *(paths or [":(top)"]), HIDE]
    if pair is None or not asked.only(*comparison.PATCHES):
        if form.asked:
            raise UsageError("these options take two versions, and no other form of output")
        return _by_git(session, *asked.flags, *revisions, *files)
    request = comparison.DiffRequest(pair, paths, form.tensor, form.stats or form.pictured)
    if form.pictured:
        report_files.check(form.html, form.md, form.as_json)
        return report_files.diff(session, request, report_files.Drawing(form.html, form.as_json))
    with terminal.progress("comparing") as progress:
        result = comparison.diff(session, request, progress)
    torn = "" in (pair.old, pair.new) and session.index.conflicts
    if form.as_json:
        whole = diff_study.as_json if form.stats else comparison.as_json
        body = [whole(session, request, item) for item in result.checkpoints]
        body += in_conflict.as_json(session, request) if torn else []
        reports.as_json("diff", body)
        return int(asked.has("--exit-code") and bool(body))
    for item in result.checkpoints:
        rows = stats_rows.of_checkpoint(item, request) if form.stats else None
        with terminal.progress("comparing") as progress:
            table = comparison.tensors(session, request, item, progress, rows.add if rows else None)
        if rows is not None:
            rows.begin()
            tables.measured(table)
        else:
            tables.changes(table)
    untold = in_conflict.tell(session, request) if torn else []
    if form.tensor is not None and not (result.checkpoints or untold):
        console.note(f"no changed tensor is called {form.tensor}")
    code = int(asked.has("--exit-code") and bool(result.checkpoints or untold))
    hidden = (f":(exclude,top,literal){path}" for path in (*result.known, *untold))
    return _by_git(session, *asked.flags, *revisions, *files, *hidden) or code


def _by_git(session: Session, *args: str) -> int:
    with session.journal.reading():
        return session.repo.git().in_directory(session.cwd).show("diff", *args)
