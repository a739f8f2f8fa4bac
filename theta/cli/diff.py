"""``theta diff``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import excluding, open_session, uses_theta
from theta.cli.foreign import markup
from theta.errors import NotARepositoryError, UsageError

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.look.diffing import Compared, Numbers, Sides
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change

app = typer.Typer(add_completion=False)


_OURS: Final = (
    *("--cached", "--staged", "--exit-code", "--patch", "-u", "--unified", "--function-context", "--color"),
    *("--no-color", "--word-diff", "--word-diff-regex", "--color-words", "--color-moved", "--color-moved-ws"),
    *("--ignore-all-space", "--ignore-space-change", "--ignore-space-at-eol", "--ignore-cr-at-eol"),
    *("--ignore-blank-lines", "--ignore-matching-lines", "--minimal", "--patience", "--histogram"),
    *("--diff-algorithm", "--indent-heuristic", "--inter-hunk-context", "--text", "--textconv", "--ext-diff"),
    *("--src-prefix", "--dst-prefix", "--no-prefix", "--line-prefix", "--full-index", "--binary"),
)
"""Options with which git prints patches: tables of tensors stand before them."""


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
    from theta.git.run import plain as outside
    from theta.porcelain.look import diffing

    asked = of_git(context)
    session = _session(asked)
    if session is None or not asked.known or asked.has("--no-index"):
        return outside(Path.cwd()).show("diff", *asked.given)
    if session.repo.is_bare and not asked.words:
        _ = session.repo.worktree
    diffing.split(session.repo.git().in_directory(Path.cwd()), asked)
    ours = stats or as_json or tensor is not None
    if not ours and not uses_theta(session):
        return session.repo.git().in_directory(Path.cwd()).show("diff", *asked.given)
    return _diff(session, asked, Form(stats, tensor, as_json, ours))


@dataclass(frozen=True)
class Form:
    """What theta is to print: with numbers, of which tensors, as JSON; ``asked`` if any was asked for."""

    stats: bool
    tensor: str | None
    as_json: bool
    asked: bool


def _session(asked: Arguments) -> Session | None:
    """The session here; None outside of repositories, where git compares two files."""
    try:
        return open_session(worktree=False)
    except NotARepositoryError:
        if len(asked.words) == 2:
            return None
        raise


def _diff(session: Session, asked: Arguments, form: Form) -> int:
    from theta.porcelain.look import diffing
    from theta.porcelain.look.history import HIDE

    git = session.repo.git().in_directory(Path.cwd())
    revisions, paths = diffing.split(git, asked)
    if not form.asked and any(":" in name for name in revisions if not name.startswith(":/")):
        return git.show("diff", *asked.given)
    pair = diffing.sides(git, revisions, cached=asked.has("--cached") or asked.has("--staged"))
    files = ["--", *(paths or [":(top)"]), HIDE]
    if pair is None or not asked.only(*_OURS):
        if form.asked:
            raise UsageError("--stats, --tensor and --json take two versions, and no other form of output")
        return git.show("diff", *asked.flags, *revisions, *files)
    with console.progress("comparing") as progress:
        found = diffing.compare(session, pair, _wanted(session, pair, paths), progress)
    if form.stats:
        diffing.expect(session, found, form.tensor)
    code = int(asked.has("--exit-code") and bool(found))
    if form.as_json:
        rows = [_as_json(session, item, form.tensor, form.stats) for item in found]
        console.out(json.dumps({"theta.diff/v1": rows}))
        return code
    for item in found:
        _show(session, item, form.tensor, form.stats)
    hidden = excluding(_checkpoints(session, pair))
    return git.show("diff", *asked.flags, *revisions, *files, *hidden) or code


def _checkpoints(session: Session, pair: Sides) -> set[str]:
    from theta.porcelain.look import diffing

    return {*diffing.on_side(session, pair.old), *diffing.on_side(session, pair.new or "")}


def _wanted(session: Session, pair: Sides, paths: list[str]) -> set[str] | None:
    if not paths:
        return None
    names = _checkpoints(session, pair)
    from theta.cli.common import from_root

    roots = [from_root(session, path) for path in paths]
    return {name for name in names for root in roots if root in (".", name) or name.startswith(root + "/")}


def _kept(item: Compared, glob: str | None) -> list[Change]:
    from fnmatch import fnmatchcase

    return [change for change in item.changes.tensors if glob is None or fnmatchcase(change.name, glob)]


def _as_json(session: Session, item: Compared, glob: str | None, stats: bool) -> dict[str, object]:
    from dataclasses import asdict

    from theta.porcelain.look import diffing

    rows = []
    for change in item.changes.tensors:
        if change not in _kept(item, glob):
            continue
        row = asdict(change)
        if stats and (numbers := diffing.numbers(session, item, change)) is not None:
            row["stats"] = asdict(numbers)
        rows.append(row)
    return {
        "path": item.path,
        "files": list(item.paths),
        "container": item.changes.container,
        "unchanged": item.changes.unchanged,
        "tensors": rows,
    }


def _show(session: Session, item: Compared, glob: str | None, stats: bool) -> None:
    from rich.table import Table

    from theta.porcelain.look import diffing

    table = Table(box=None, pad_edge=False, title=None, header_style="bold")
    for name in ("", "tensor", "shape", "dtype"):
        table.add_column(name, overflow="fold")
    for name in ("‖Δ‖/‖W‖", "cosine", "changed", "max|Δ|") if stats else ():
        table.add_column(name, no_wrap=True, justify="right")
    kept, parts = _kept(item, glob), list[str]()
    for change in item.changes.tensors:
        if change in kept:
            numbers = diffing.numbers(session, item, change) if stats else None
            table.add_row(*_row(change), *(_cells(numbers) if stats else ()))
            if numbers is not None and numbers.compared is not None:
                parts.append(f"{change.name}: {diffing.part(change, numbers.compared)} compared")
    console.out(f"{item.path}: {item.changes.summary()}")
    if item.changes.tensors and item.changes.container:
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
        return ("", "", "", "")
    return (
        f"{numbers.relative:.3%}",
        f"{numbers.cosine:.6f}",
        f"{numbers.changed:.1%}",
        f"{numbers.largest:.3g}",
    )
