"""``theta show`` as text: checkpoints and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from theta.cli import console
from theta.lazy import Module
from theta.porcelain.look import diffing
from theta.store.changes import counted
from theta.units import human, shape_text

if TYPE_CHECKING:
    from theta.cli import screen, tables
    from theta.git.display.colours import Palette
    from theta.porcelain.look.adapter_updates import ModuleUpdate
    from theta.porcelain.look.diffing import Compared
    from theta.porcelain.look.showing import ShownCheckpoint, ShownTensor
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change
else:
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
