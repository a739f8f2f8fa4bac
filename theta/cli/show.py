"""``theta show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import open_session
from theta.errors import NotFoundError

if TYPE_CHECKING:
    from theta.porcelain.session import Session
    from theta.store.manifest import Manifest

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def show(context: typer.Context) -> int:
    """Show a commit, a checkpoint (REV:PATH) or a tensor (REV:PATH#TENSOR)."""
    from theta.porcelain import history

    session = open_session(worktree=False)
    args = plain(context.args)
    names = [arg for arg in args if not arg.startswith("-")] or ["HEAD"]
    git = session.repo.git().in_directory(Path.cwd())
    if names == ["HEAD"] and session.repo.head() is None:
        raise NotFoundError("your current branch does not have any commits yet")
    if ":" in names[0]:
        shown = _object(session, names[0])
        return git.show("show", *args) if shown is None else shown
    code = git.show("show", "--no-patch", *[arg for arg in args if arg != "--"])
    if code:
        return code
    from theta.porcelain.committing import summarize

    oid = (
        session.repo.git()
        .run("rev-parse", "-q", "--verify", f"{names[0]}^{{commit}}", check=False)
        .text.strip()
    )
    if oid:
        console.out()
        for path, changes in summarize(session, oid).checkpoints.items():
            console.out(f"{path}: {changes.summary()}")
            for change in changes.tensors:
                console.out(f"  {change.status} {change.name}")
        hidden = [f":(exclude,top,literal){path}" for path in summarize(session, oid).checkpoints]
        return git.show(*history.without_stores(["show", "--format=", oid, "--", ":(top)", *hidden]))
    return 0


def _object(session: Session, name: str) -> int | None:
    revision, _, rest = name.partition(":")
    path, _, tensor = rest.partition("#")
    entry = session.repo.entry(session.repo.tree_of(revision or "HEAD"), path)
    manifest = session.manifest_or_none(str(entry.id)) if entry is not None else None
    if manifest is None:
        return None
    if tensor:
        return _tensor(session, manifest, tensor)
    console.out(f"{path}: {manifest.format}, {len(manifest.lines)} tensors, {console.human(manifest.nbytes)}")
    for line in manifest.lines:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {console.human(line.nbytes)}")
    return 0


def _tensor(session: Session, manifest: Manifest, name: str) -> int:
    line = manifest.by_name.get(name)
    if line is None:
        raise NotFoundError(f"there is no tensor {name}")
    from theta.store.restore import Restorer

    record = Restorer(session.objects).record(line)
    stored = sum(len(session.objects.chunk(oid)) for oid in record.files.values())
    console.out(f"{name}: {line.dtype} {list(line.shape)}, {console.human(line.nbytes)}")
    console.out(f"  sha256:{line.digest}\n  tree {line.tree}")
    codecs = ", ".join(layer.codec for layer in record.layers)
    console.out(f"  {len(record.chunks)} chunk(s), {codecs}, {console.human(stored)} stored")
    return 0
