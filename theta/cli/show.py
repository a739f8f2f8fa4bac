"""``theta show``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from theta.cli import console, report_files, reports, show_text
from theta.cli.args import Given
from theta.cli.common import open_session
from theta.cli.passing import Passing
from theta.cli.run_words import shows_checkpoints
from theta.errors import NotFoundError, UsageError
from theta.lazy import Module
from theta.porcelain.look import history, showing, version_changes
from theta.porcelain.look.history import HIDE
from theta.porcelain.look.showing import ShownCheckpoint, ShownFiles, ShownTensor

if TYPE_CHECKING:
    import typer

    from theta.cli import tables
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.look.showing import ShownCheckpoint, ShownCommit, ShownFiles, ShownTensor
    from theta.porcelain.workspace.session import Session

    Shown = ShownCommit | ShownFiles | ShownCheckpoint | ShownTensor
else:
    tables = Module("theta.cli.tables")
    typer = Module("typer")

_COLOURS: Final = ("--color", "--no-color")
app = Passing(
    (
        "--codecs",
        "--json",
        "--html=",
        "--md",
        "--against=",
        "--tensor=",
    )
)


@app.command
def show(
    given: Given,
    codecs: Annotated[
        bool, typer.Option("--codecs", help="Tell how the tensors of REV:PATH are stored.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a commit, or what --codecs tells, as JSON.")
    ] = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Draw it on a page of its own.")
    ] = None,
    md: Annotated[bool, typer.Option("--md", help="Print it as Markdown, for a review.")] = False,
    against: Annotated[
        str | None, typer.Option("--against", metavar="REV", help="On the page: compare with this commit.")
    ] = None,
    tensor: Annotated[
        str | None, typer.Option("--tensor", metavar="GLOB", help="On the page: only tensors matching GLOB.")
    ] = None,
) -> int:
    """Show a commit, a checkpoint (REV:PATH) or a tensor (REV:PATH#TENSOR) (git show's options apply).

    A checkpoint is shown with the names, dtypes, shapes and sizes of its tensors.
    --stat counts the changed tensors of each, --codecs tells how each tensor is stored.
    """
    session = open_session(worktree=False)
    asked = given.of_git()
    if html is not None or md:
        report_files.check(html, md, as_json, codecs)
        drawing = report_files.Drawing(html, as_json)
        return report_files.show(session, asked, drawing, against, tensor)
    if against is not None or tensor is not None:
        raise UsageError("--against and --tensor go with --html or --md")
    console.colour = asked.colours() or console.colour
    if as_json and not codecs and not any(":" in word for word in asked.words):
        return _commit_as_json(session, asked)
    if codecs or as_json:
        return _codecs(session, asked, as_json=as_json)
    git = session.repo.git().in_directory(session.cwd)
    if not asked.words and session.repo.head() is None:
        raise NotFoundError("your current branch does not have any commits yet")
    is_plain = asked.only(*_COLOURS, "--stat") and asked.value("--stat") is None and asked.paths is None
    if asked.known and is_plain and len(asked.operands) < 2:
        name = asked.operands[0] if asked.operands else "HEAD"
        shown = showing.find(session, name) if shows_checkpoints(session) or "#" in name else None
        if shown is not None:
            return _tell(session, git, name, shown, asked.flags)
    args = history.without_stores(git, "show", asked) if shows_checkpoints(session) else asked.given
    return git.show("show", *args)


def _tell(session: Session, git: Git, name: str, shown: Shown, flags: Sequence[str]) -> int:
    match shown:
        case ShownFiles():
            console.out(*shown.lines)
        case ShownCheckpoint():
            show_text.checkpoint(shown)
        case ShownTensor():
            show_text.tensor(shown)
        case _:
            return _commit(session, git, name, shown, flags)
    return 0


def _commit(session: Session, git: Git, name: str, shown: ShownCommit, flags: Sequence[str]) -> int:
    """Print a commit, its changes of checkpoints, and the patches or the diffstat of other files."""
    if code := git.show("show", *flags, "--no-patch", name):
        return code
    console.out()
    hidden = show_text.stat(shown) if "--stat" in flags else show_text.changed(session, shown)
    return git.show("show", *flags, "--format=", shown.oid, "--", ":(top)", HIDE, *hidden)


def _commit_as_json(session: Session, asked: Arguments) -> int:
    """Print the changes of one commit."""
    name, *others = asked.words or ["HEAD"]
    if others or asked.options:
        raise UsageError("--json is for one commit, REV:PATH or REV:PATH#TENSOR")
    oid = session.repo.commit_of(name)
    if oid is None:
        raise NotFoundError(f"there is no commit {name}")
    reports.as_json("show", version_changes.summarize(session, oid).as_json())
    return 0


def _codecs(session: Session, asked: Arguments, *, as_json: bool) -> int:
    """Print a table of the tensors of one checkpoint: codecs, stored bytes, ratio."""
    args = asked.words
    if len(args) != 1 or ":" not in args[0] or asked.options:
        raise UsageError("--codecs is for one REV:PATH or REV:PATH#TENSOR")
    found = showing.codecs(session, args[0])
    if as_json:
        reports.as_json("codecs", [item.as_json() for item in found])
    else:
        tables.codecs(found)
    return 0
