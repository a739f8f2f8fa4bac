"""``theta show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from theta.cli import console
from theta.cli.args import Given
from theta.cli.common import open_session, uses_theta
from theta.cli.passing import Passing
from theta.errors import NotFoundError, UsageError
from theta.lazy import Module
from theta.porcelain.look import diffing, history, showing
from theta.porcelain.look.history import HIDE
from theta.porcelain.look.showing import ShownCheckpoint, ShownFiles, ShownTensor
from theta.store.changes import counted
from theta.units import human, shape_text

if TYPE_CHECKING:
    import typer

    from theta.cli import tables
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.look.diffing import Compared
    from theta.porcelain.look.showing import ShownCheckpoint, ShownCommit, ShownFiles, ShownTensor
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change

    Shown = ShownCommit | ShownFiles | ShownCheckpoint | ShownTensor
else:
    tables = Module("theta.cli.tables")
    typer = Module("typer")

app = Passing(
    (
        "--codecs",
        "--json",
    )
)


@app.command
def show(
    given: Given,
    codecs: Annotated[
        bool, typer.Option("--codecs", help="Tell how the tensors of REV:PATH are stored.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what --codecs tells as JSON.")] = False,
) -> int:
    """Show a commit, a checkpoint (REV:PATH) or a tensor (REV:PATH#TENSOR) (git show's options apply)."""
    session = open_session(worktree=False)
    asked = given.of_git()
    if codecs or as_json:
        return _codecs(session, asked, as_json=as_json)
    git = session.repo.git().in_directory(session.cwd)
    if not asked.words and session.repo.head() is None:
        raise NotFoundError("your current branch does not have any commits yet")
    if asked.known and not asked.options and asked.paths is None and len(asked.operands) < 2:
        name = asked.operands[0] if asked.operands else "HEAD"
        shown = showing.find(session, name) if uses_theta(session) or "#" in name else None
        if shown is not None:
            return _tell(session, git, name, shown)
    args = history.without_stores(git, "show", asked) if uses_theta(session) else asked.given
    return git.show("show", *args)


def _tell(session: Session, git: Git, name: str, shown: Shown) -> int:
    match shown:
        case ShownFiles():
            console.out(*shown.lines)
        case ShownCheckpoint():
            _checkpoint(shown)
        case ShownTensor():
            _tensor(shown)
        case _:
            return _commit(session, git, name, shown)
    return 0


def _commit(session: Session, git: Git, name: str, shown: ShownCommit) -> int:
    """Print a commit, its changes of checkpoints, and the patches of other files."""
    if code := git.show("show", "--no-patch", name):
        return code
    console.out()
    for item in shown.changed:
        console.out(f"{item.path}: {item.changes.summary()}")
        for change in item.changes.tensors:
            console.out(f"  {change.status} {change.name}{_resized(session, item, change)}")
    hidden = [f":(exclude,top,literal){path}" for item in shown.changed for path in item.paths]
    return git.show("show", "--format=", shown.oid, "--", ":(top)", HIDE, *hidden)


def _resized(session: Session, item: Compared, change: Change) -> str:
    """Return both shapes or dtypes of a tensor that differ, and how far the rows in both are apart."""
    old, new = change.old, change.new
    if change.status == "T" and old is not None and new is not None:
        return f"  {old.dtype} → {new.dtype}"
    if change.status != "S" or old is None or new is None:
        return ""
    shapes = f"  {shape_text(old.shape)} → {shape_text(new.shape)}"
    numbers = diffing.numbers(session, item, change)
    if numbers is None:
        return shapes
    apart = f"‖Δ‖/‖W‖ {numbers.relative:.3%}, cosine {numbers.cosine:.6f}, {numbers.changed:.1%} changed"
    return f"{shapes}, {diffing.part(change, numbers.compared or ())}: {apart}"


def _codecs(session: Session, asked: Arguments, *, as_json: bool) -> int:
    """Print a table of the tensors of one checkpoint: codecs, stored bytes, ratio."""
    args = asked.words
    if len(args) != 1 or ":" not in args[0] or asked.options:
        raise UsageError("--codecs is for one REV:PATH or REV:PATH#TENSOR")
    found = showing.codecs(session, args[0])
    if as_json:
        console.out(json.dumps({"theta.codecs/v1": [item.as_json() for item in found]}))
    else:
        tables.codecs(found)
    return 0


def _checkpoint(shown: ShownCheckpoint) -> None:
    size = human(shown.nbytes)
    console.out(f"{shown.path}: {shown.form}, {len(shown.tensors)} tensors, {size}")
    for line in shown.tensors:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {human(line.nbytes)}")


def _tensor(shown: ShownTensor) -> None:
    line = shown.line
    console.out(f"{line.name}: {line.dtype} {list(line.shape)}, {human(line.nbytes)}")
    console.out(f"  sha256:{line.digest}", f"  tree {line.tree}")
    codecs, stored = ", ".join(shown.codecs), human(shown.stored)
    console.out(f"  {counted(shown.chunks, 'chunk')}, {codecs}, {stored} stored")
