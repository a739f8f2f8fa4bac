"""``theta diff``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import open_session, uses_theta
from theta.cli.foreign import markup
from theta.errors import NotARepositoryError, UsageError
from theta.git.run import plain as outside
from theta.porcelain.look import comparison, diffing
from theta.porcelain.look.history import HIDE

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.look.comparison import TensorChanges
    from theta.porcelain.look.diffing import Numbers
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def diff(
    context: typer.Context,
    stats: bool = typer.Option(
        False, "--stats", help="Print norms, cosine and changed elements of each tensor."
    ),
    tensor: str | None = typer.Option(
        None, "--tensor", metavar="GLOB", help="Show only tensors matching GLOB."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the differences as JSON."),
) -> int:
    """Show differences: [--cached] [REV [REV]] [--] [PATH...] (git diff's options apply).

    Checkpoints are compared tensor by tensor, by digest; --stats reads their values. Files are
    shown by git diff.
    """
    asked = of_git(context)
    session = _session(asked)
    if session is None or not asked.known or asked.has("--no-index"):
        return outside(Path.cwd()).show("diff", *asked.given)
    if session.repo.is_bare and not asked.words:
        _ = session.repo.worktree
    git, form = session.repo.git().in_directory(session.cwd), Form(stats, tensor, as_json)
    revisions, paths = diffing.split(git, asked)
    of_files = any(":" in name for name in revisions if not name.startswith(":/"))
    if not form.asked and (of_files or not uses_theta(session)):
        return git.show("diff", *asked.given)
    return _diff(session, asked, form, revisions, paths)


@dataclass(frozen=True)
class Form:
    """What theta is to print: with numbers, of which tensors, as JSON."""

    stats: bool
    tensor: str | None
    as_json: bool

    @property
    def asked(self) -> bool:
        """Whether any of it was asked for."""
        return self.stats or self.as_json or self.tensor is not None


def _session(asked: Arguments) -> Session | None:
    """The session here; None outside of repositories, where git compares two files."""
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
            raise UsageError("--stats, --tensor and --json take two versions, and no other form of output")
        return git.show("diff", *asked.flags, *revisions, *files)
    request = comparison.DiffRequest(pair, paths, form.tensor, form.stats)
    with console.progress("comparing") as progress:
        result = comparison.diff(session, request, progress)
    code = int(asked.has("--exit-code") and bool(result.checkpoints))
    tables = (comparison.tensors(session, request, item) for item in result.checkpoints)
    if form.as_json:
        console.out(json.dumps({"theta.diff/v1": [table.as_json() for table in tables]}))
        return code
    for table in tables:
        _show(table, form.stats)
    hidden = (f":(exclude,top,literal){path}" for path in result.known)
    return git.show("diff", *asked.flags, *revisions, *files, *hidden) or code


def _show(found: TensorChanges, stats: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=None, header_style="bold")
    for name in ("", "tensor", "shape", "dtype"):
        table.add_column(name, overflow="fold")
    for name in ("‖Δ‖/‖W‖", "cosine", "changed", "max|Δ|") if stats else ():
        table.add_column(name, no_wrap=True, justify="right")
    changes, parts = found.compared.changes, list[str]()
    for change in found.tensors:
        numbers = found.numbers.get(change.name)
        table.add_row(*_row(change), *(_cells(numbers) if stats else ()))
        if numbers is not None and numbers.compared is not None:
            parts.append(f"{change.name}: {diffing.part(change, numbers.compared)} compared")
    console.out(f"{found.compared.path}: {changes.summary()}")
    if changes.tensors and changes.container:
        console.out("File header or metadata also changed.")
    if table.row_count:
        console.show(table)
    console.out(*parts, "")


def _row(change: Change) -> tuple[str, str, str, str]:
    sides = [side for side in (change.old, change.new) if side is not None]
    shapes = list(dict.fromkeys(console.shape_text(side.shape) for side in sides))
    dtypes = list(dict.fromkeys(side.dtype for side in sides))
    colour = {"A": "green", "D": "red"}.get(change.status, "yellow")
    name = f"{change.old_name} → {change.name}" if change.old_name else change.name
    shape = " → ".join(shapes)
    return f"[{colour}]{change.status}[/]", markup(name), shape, " → ".join(dtypes)


def _cells(numbers: Numbers | None) -> tuple[str, ...]:
    if numbers is None:
        return ("",) * 4
    apart = f"{numbers.relative:.3%}", f"{numbers.cosine:.6f}"
    return *apart, f"{numbers.changed:.1%}", f"{numbers.largest:.3g}"
