"""``theta show`` as text: checkpoints and tensors; and commits, for ``theta log -p`` too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from theta.cli import console
from theta.git.quoting import visible
from theta.lazy import Module
from theta.porcelain.look import diffing, history, showing, version_changes
from theta.porcelain.look.history import FORM, HIDE
from theta.porcelain.look.showing import ShownCommit
from theta.store.changes import counted
from theta.units import human, shape_text

if TYPE_CHECKING:
    from theta.cli import diff_text, screen, tables
    from theta.git.display.colours import Palette
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.look.adapter_updates import ModuleUpdate
    from theta.porcelain.look.diffing import Compared
    from theta.porcelain.look.showing import ShownCheckpoint, ShownTensor
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change
else:
    diff_text = Module("theta.cli.diff_text")
    screen = Module("theta.cli.screen")
    tables = Module("theta.cli.tables")


def resized(session: Session, item: Compared, change: Change) -> str:
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


def checkpoint(shown: ShownCheckpoint) -> None:
    """Print the tensors of a checkpoint."""
    size = human(shown.nbytes)
    console.out(f"{shown.path}: {shown.form}, {len(shown.tensors)} tensors, {size}")
    for line in shown.tensors:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {human(line.nbytes)}")
    modules(shown.modules)


def modules(found: Sequence[ModuleUpdate], palette: Palette | None = None) -> None:
    """Print the updates of an adapter."""
    if found:
        screen.show(tables.modules(found), palette)


def tensor(shown: ShownTensor) -> None:
    """Print how a tensor is stored."""
    line = shown.line
    console.out(f"{line.name}: {line.dtype} {list(line.shape)}, {human(line.nbytes)}")
    console.out(f"  sha256:{line.digest}", f"  tree {line.tree}")
    codecs, stored = ", ".join(shown.codecs), human(shown.stored)
    console.out(f"  {counted(shown.chunks, 'chunk')}, {codecs}, {stored} stored")


def stat(shown: ShownCommit) -> list[str]:
    """Print how many tensors of each checkpoint changed; return the pathspecs that leave them out."""
    diff_text.stat(shown.changed)
    return _without(shown)


def _without(shown: ShownCommit) -> list[str]:
    return [f":(exclude,top,literal){path}" for item in shown.changed for path in item.paths]


def changed(session: Session, shown: ShownCommit) -> list[str]:
    """Print the changes of checkpoints in a commit; return the pathspecs that leave them out."""
    palette = console.palette("diff")
    for item in shown.changed:
        console.out(f"{item.path}: {item.changes.summary()}")
        updates = shown.modules.get(item.path, ())
        products = {one.module for one in updates}
        for change in item.changes.tensors:
            if diffing.module_of(change.name) in products:
                continue
            letter = palette.letter(change.status)
            console.out(f"  {letter} {visible(change.name)}{resized(session, item, change)}", painted=True)
        modules(updates, palette)
    return _without(shown)


def patches(session: Session, git: Git, asked: Arguments) -> int:
    """Print what ``git log -p`` prints, with the changes of checkpoints by tensor or module."""
    _, paths = diffing.split(git, asked)
    flags = [option.word for option in asked.options if option.name in FORM]
    spaced = history.is_spaced(asked)
    for number, oid in enumerate(history.commits(git, asked.without({"--patch", *FORM}))):
        if spaced and number:
            console.out()
        if code := git.show("log", "--no-walk", "--no-patch", *flags, oid):
            return code
        shown = showing.commit(session, oid)
        hidden = _changed_at(session, shown, paths)
        if not showing.touches_files(session, shown):
            continue
        files = ("--", *(paths or [":(top)"]), HIDE, *hidden)
        if code := git.show("log", "--no-walk", "--patch", "--format=", oid, *files):
            return code
    return 0


def _changed_at(session: Session, shown: ShownCommit, paths: Sequence[str]) -> list[str]:
    """Print the changes of the checkpoints at ``paths`` in one commit; return what leaves them out."""
    if not shown.changed:
        return []
    wanted = version_changes.summarize(session, shown.oid, paths).checkpoints if paths else None
    chosen = tuple(one for one in shown.changed if wanted is None or one.path in wanted)
    console.out()
    return changed(session, replace(shown, changed=chosen))
