"""``theta diff``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import excluding, open_session
from theta.cli.foreign import markup

if TYPE_CHECKING:
    from theta.porcelain.diffing import Compared, Numbers, Sides
    from theta.porcelain.session import Session
    from theta.store.changes import Change

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def diff(
    context: typer.Context,
    cached: bool = typer.Option(False, "--cached", "--staged", help="what is staged, against HEAD or REV"),
    stats: bool = typer.Option(False, "--stats", help="norms, cosine and changed elements of each tensor"),
    tensor: str | None = typer.Option(None, "--tensor", help="only tensors matching GLOB"),
    as_json: bool = typer.Option(False, "--json", help="as JSON"),
    exit_code: bool = typer.Option(False, "--exit-code", help="exit with 1 if there are differences"),
) -> int:
    """Show differences: [--cached] [REV [REV]] [--] [PATH...].

    Checkpoints are compared tensor by tensor, by digest; --stats reads their values. Files are
    shown by git diff, whose options apply.
    """
    from theta.porcelain import diffing

    session = open_session(worktree=False)
    args = plain(context.args)
    flags = [arg for arg in args if arg.startswith("-") and arg != "--"]
    words = [arg for arg in args if arg not in flags]
    revisions, paths = diffing.split_arguments(session, words, Path.cwd())
    pair = diffing.sides(session, revisions, cached=cached)
    wanted = _wanted(session, pair, paths)
    with console.progress("comparing") as progress:
        found = diffing.compare(session, pair, wanted, progress)
    if stats:
        diffing.expect(session, found, tensor)
    if as_json:
        console.out(json.dumps({"theta.diff/v1": [_as_json(session, item, tensor, stats) for item in found]}))
        return int(exit_code and bool(found))
    for item in found:
        _show(session, item, tensor, stats)
    git = session.repo.git().in_directory(Path.cwd())
    hidden = [":(exclude,top).theta", *excluding(_checkpoints(session, pair))]
    options = [*(["--cached"] if cached else []), *(["--exit-code"] if exit_code else []), *flags]
    code = git.show("diff", *options, *revisions, "--", *(paths or [":(top)"]), *hidden)
    return code or int(exit_code and bool(found))


def _checkpoints(session: Session, pair: Sides) -> set[str]:
    from theta.porcelain import diffing

    return set(diffing.entries(session, pair.old)) | set(diffing.entries(session, pair.new or ""))


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

    from theta.porcelain import diffing

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

    from theta.porcelain import diffing

    table = Table(box=None, pad_edge=False, title=None, header_style="bold")
    for name in (
        "",
        "tensor",
        "shape",
        "dtype",
        *(("‖Δ‖/‖W‖", "cosine", "changed", "max|Δ|") if stats else ()),
    ):
        table.add_column(name, overflow="fold")
    kept = _kept(item, glob)
    for change in item.changes.tensors:
        if change in kept:
            numbers = diffing.numbers(session, item, change) if stats else None
            table.add_row(*_row(change), *(_cells(numbers) if stats else ()))
    console.out(f"{item.path}: {item.changes.summary()}")
    if item.changes.tensors and item.changes.container:
        console.out("the container changed too (header or metadata)")
    if table.row_count:
        console.show(table)
    console.out()


def _row(change: Change) -> tuple[str, str, str, str]:

    sides = [side for side in (change.old, change.new) if side is not None]
    shapes = list(dict.fromkeys(console.shape_text(side.shape) for side in sides))
    dtypes = list(dict.fromkeys(side.dtype for side in sides))
    colour = {"A": "green", "D": "red"}.get(change.status, "yellow")
    name = f"{change.old_name} → {change.name}" if change.old_name else change.name
    return f"[{colour}]{change.status}[/]", markup(name), " → ".join(shapes), " → ".join(dtypes)


def _cells(numbers: Numbers | None) -> tuple[str, ...]:
    if numbers is None:
        return ("", "", "", "")
    return (
        f"{numbers.relative:.3%}",
        f"{numbers.cosine:.6f}",
        f"{numbers.changed:.1%}",
        f"{numbers.largest:.3g}",
    )
