"""``theta diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, diff_text, report_files, reports, terminal
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.cli.run_words import shows_checkpoints
from theta.errors import NotARepositoryError, UsageError
from theta.git.run import plain as outside
from theta.lazy import Module
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.history import HIDE

if TYPE_CHECKING:
    import typer

    from theta.cli import in_conflict
    from theta.git.options import Arguments
    from theta.porcelain.look import file_pairs
    from theta.porcelain.workspace.session import Session
else:
    in_conflict = Module("theta.cli.in_conflict")
    file_pairs = Module("theta.porcelain.look.file_pairs")
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
    --stat counts the changed tensors of each.
    REV:PATH with another, or with a file, compares these two. Files are shown by git diff.
    """
    asked = given.of_git()
    session = _session(asked)
    console.colour = asked.colours() or console.colour
    if session is None or not asked.known or asked.has("--no-index"):
        return outside(Path.cwd()).show("diff", *asked.given)
    if session.repo.is_bare and not asked.words:
        _ = session.repo.worktree
    git, form = session.repo.git().in_directory(session.cwd), diff_text.Form(stats, tensor, as_json, html, md)
    revisions, paths = diffing.split(git, asked)
    of_files = any(":" in name for name in revisions if not name.startswith(":/"))
    pair = file_pairs.named(session, revisions, paths) if of_files and _is_plain(asked) else None
    if pair is not None:
        return diff_text.pair(session, asked, form, pair)
    if of_files and form.asked:
        raise UsageError("these options compare two checkpoints, or versions of a repository")
    if not form.asked and (of_files or not shows_checkpoints(session)):
        return _by_git(session, *asked.given)
    return _diff(session, asked, form, revisions, paths)


def _session(asked: Arguments) -> Session | None:
    """Open the session here; return None outside of repositories, where git compares two files."""
    try:
        return open_session(worktree=False)
    except NotARepositoryError:
        if len(asked.words) == 2:
            return None
        raise


def _diff(
    session: Session, asked: Arguments, form: diff_text.Form, revisions: list[str], paths: list[str]
) -> int:
    git = session.repo.git().in_directory(session.cwd)
    pair = diffing.sides(git, revisions, cached=asked.has("--cached") or asked.has("--staged"))
    files = ["--", *(paths or [":(top)"]), HIDE]
    by_tensor = not form.asked and _is_diffstat(asked)
    if pair is None or not (by_tensor or asked.only(*comparison.PATCHES)):
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
        body = diff_text.as_json(session, request, result.checkpoints)
        body += in_conflict.as_json(session, request) if torn else []
        reports.as_json("diff", body)
        return int(asked.has("--exit-code") and bool(body))
    if by_tensor:
        diff_text.stat(result.checkpoints)
    else:
        diff_text.tell(session, request, result.checkpoints)
    untold = in_conflict.tell(session, request) if torn else []
    if form.tensor is not None and not (result.checkpoints or untold):
        console.note(f"no changed tensor is called {form.tensor}")
    code = int(asked.has("--exit-code") and bool(result.checkpoints or untold))
    hidden = (f":(exclude,top,literal){path}" for path in (*result.known, *untold))
    return _by_git(session, *asked.flags, *revisions, *files, *hidden) or code


def _is_diffstat(asked: Arguments) -> bool:
    """Return whether --stat was given without a width, and nothing that prints patches."""
    is_alone = asked.only("--stat", "--cached", "--staged", "--exit-code", "--color", "--no-color")
    return asked.has("--stat") and asked.value("--stat") is None and is_alone


def _is_plain(asked: Arguments) -> bool:
    return asked.only(*comparison.PATCHES) and not (asked.has("--cached") or asked.has("--staged"))


def _by_git(session: Session, *args: str) -> int:
    with session.journal.reading():
        return session.repo.git().in_directory(session.cwd).show("diff", *args)
