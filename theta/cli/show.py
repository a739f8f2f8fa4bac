"""``theta show``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import open_session
from theta.cli.foreign import markup
from theta.errors import NotFoundError, UsageError, concerning

if TYPE_CHECKING:
    from theta.porcelain.describing import Description
    from theta.porcelain.session import Session
    from theta.store.manifest import Manifest

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def show(
    context: typer.Context,
    codecs: bool = typer.Option(False, "--codecs", help="how the tensors of REV:PATH are stored"),
    as_json: bool = typer.Option(False, "--json", help="with --codecs: as JSON"),
) -> int:
    """Show a commit, a checkpoint (REV:PATH) or a tensor (REV:PATH#TENSOR)."""
    from theta.porcelain import history

    session = open_session(worktree=False)
    if codecs or as_json:
        return _codecs(session, plain(context.args), as_json=as_json)
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
        from theta.porcelain import sharding

        found = summarize(session, oid).checkpoints
        for path, changes in found.items():
            console.out(f"{path}: {changes.summary()}")
            for change in changes.tensors:
                console.out(f"  {change.status} {change.name}")
        hidden = [f":(exclude,top,literal){path}" for path in sharding.paths_of(found)]
        return git.show(*history.without_stores(["show", "--format=", oid, "--", ":(top)", *hidden]))
    return 0


def _codecs(session: Session, args: list[str], *, as_json: bool) -> int:
    """A table of the tensors of one checkpoint: codecs, stored bytes, ratio."""
    from theta.porcelain import describing, sharding

    if len(args) != 1 or ":" not in args[0]:
        raise UsageError("--codecs is for one REV:PATH or REV:PATH#TENSOR")
    revision, _, rest = args[0].partition(":")
    path, _, tensor = rest.partition("#")
    entry = session.repo.entry(session.repo.tree_of(revision or "HEAD"), path)
    with concerning(f"{revision or 'HEAD'}:{path}"):
        one = session.manifest_or_none(str(entry.id)) if entry is not None else None
    shards = sharding.shards_at(session, revision or "HEAD", path) if entry is None else {}
    manifests = [one] if one is not None else list(shards.values())
    with concerning(f"{revision or 'HEAD'}:{path}"):
        found = [item for manifest in manifests for item in describing.describe(session, manifest, tensor)]
    if not found and (tensor or not manifests):
        raise NotFoundError(f"there is no {'tensor ' + tensor if manifests else 'checkpoint ' + path}")
    if as_json:
        console.out(json.dumps({"theta.codecs/v1": [item.as_json() for item in found]}))
    else:
        _table(found)
    return 0


def _table(found: Sequence[Description]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("tensor", "codecs", "raw", "stored", "ratio"):
        table.add_column(heading, justify="left" if heading in ("tensor", "codecs") else "right")
    for item in found:
        sizes = console.human(item.line.nbytes), console.human(item.stored), f"{item.ratio:.4f}"
        table.add_row(markup(item.line.name), item.chain or "-", *sizes)
    raw, stored = sum(item.line.nbytes for item in found), sum(item.stored for item in found)
    total = console.human(raw), console.human(stored), f"{stored / max(raw, 1):.4f}"
    table.add_row(f"{len(found)} tensors", "", *total, style="bold")
    console.show(table)


def _object(session: Session, name: str) -> int | None:
    revision, _, rest = name.partition(":")
    path, _, tensor = rest.partition("#")
    entry = session.repo.entry(session.repo.tree_of(revision or "HEAD"), path)
    if entry is not None and (error := session.malformed(str(entry.id))) is not None:
        error.concern(f"{revision or 'HEAD'}:{path}")
        raise error
    manifest = session.manifest_or_none(str(entry.id)) if entry is not None else None
    if manifest is None:
        return _model(session, revision or "HEAD", path, tensor) if entry is None else None
    if tensor:
        with concerning(f"{revision or 'HEAD'}:{path}"):
            return _tensor(session, manifest, tensor)
    console.out(f"{path}: {manifest.format}, {len(manifest.lines)} tensors, {console.human(manifest.nbytes)}")
    for line in manifest.lines:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {console.human(line.nbytes)}")
    return 0


def _model(session: Session, revision: str, path: str, tensor: str) -> int | None:
    """A sharded model under the name that it would have in one file."""
    from theta.porcelain import sharding

    shards = sharding.shards_at(session, revision, path)
    lines = sorted(
        (line for manifest in shards.values() for line in manifest.lines), key=lambda one: one.name
    )
    if not lines:
        return None
    if tensor:
        holder = next((m for m in shards.values() if tensor in m.by_name), next(iter(shards.values())))
        return _tensor(session, holder, tensor)
    size = console.human(sum(line.nbytes for line in lines))
    console.out(f"{path}: {len(shards)} files, {len(lines)} tensors, {size}")
    for line in lines:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {console.human(line.nbytes)}")
    return 0


def _tensor(session: Session, manifest: Manifest, name: str) -> int:
    line = manifest.by_name.get(name)
    if line is None:
        raise NotFoundError(f"there is no tensor {name}")
    from theta.store.restore import Restorer

    session.objects.expect({line.tree: line.nbytes})
    record = Restorer(session.objects).record(line)
    stored = sum(len(session.objects.chunk(oid)) for oid in record.files.values())
    console.out(f"{name}: {line.dtype} {list(line.shape)}, {console.human(line.nbytes)}")
    console.out(f"  sha256:{line.digest}", f"  tree {line.tree}")
    codecs = ", ".join(layer.codec for layer in record.layers)
    console.out(f"  {len(record.chunks)} chunk(s), {codecs}, {console.human(stored)} stored")
    return 0
