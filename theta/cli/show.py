"""``theta show``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from theta.cli import console
from theta.cli.args import PASS, of_git
from theta.cli.common import open_session, uses_theta
from theta.cli.foreign import markup
from theta.errors import NotFoundError, UsageError, concerning

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.look.describing import Description
    from theta.porcelain.look.diffing import Compared
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Change
    from theta.store.format.manifest import Manifest

app = typer.Typer(add_completion=False)


@app.command(context_settings=PASS)
def show(
    context: typer.Context,
    codecs: bool = typer.Option(False, "--codecs", help="Tell how the tensors of REV:PATH are stored."),
    as_json: bool = typer.Option(False, "--json", help="Print what --codecs tells as JSON."),
) -> int:
    """Show a commit, a checkpoint (REV:PATH) or a tensor (REV:PATH#TENSOR) (git show's options apply)."""
    from theta.porcelain.look import history

    session = open_session(worktree=False)
    asked = of_git(context)
    if codecs or as_json:
        return _codecs(session, asked, as_json=as_json)
    git = session.repo.git().in_directory(Path.cwd())
    if not asked.words and session.repo.head() is None:
        raise NotFoundError("your current branch does not have any commits yet")
    if asked.known and not asked.options and asked.paths is None and len(asked.operands) < 2:
        name = asked.operands[0] if asked.operands else "HEAD"
        shown = _one(session, git, name) if uses_theta(session) or "#" in name else None
        if shown is not None:
            return shown
    args = history.without_stores(git, "show", asked) if uses_theta(session) else asked.given
    return git.show("show", *args)


def _one(session: Session, git: Git, name: str) -> int | None:
    """Show one checkpoint, tensor or commit by tensor; None where git tells all there is to tell."""
    if ":" in name and not name.startswith(":"):
        return _object(session, name)
    done = git.run("rev-parse", "-q", "--verify", "--end-of-options", f"{name}^{{commit}}", check=False)
    return _commit(session, git, name, done.text.strip()) if done.code == 0 else None


def _commit(session: Session, git: Git, name: str, oid: str) -> int | None:
    """What commit ``oid`` is, what it changed in checkpoints, and the patches of other files.

    None where it changed no checkpoint.
    """
    from theta.porcelain.look import diffing
    from theta.porcelain.look.history import HIDE

    if not (found := diffing.of_commit(session, oid)):
        return None
    if code := git.show("show", "--no-patch", name):
        return code
    console.out()
    for item in found:
        console.out(f"{item.path}: {item.changes.summary()}")
        for change in item.changes.tensors:
            console.out(f"  {change.status} {change.name}{_resized(session, item, change)}")
    hidden = [f":(exclude,top,literal){path}" for item in found for path in item.paths]
    return git.show("show", "--format=", oid, "--", ":(top)", HIDE, *hidden)


def _resized(session: Session, item: Compared, change: Change) -> str:
    """Both shapes or dtypes of a tensor where they differ, and how far the rows in both are apart."""
    from theta.porcelain.look import diffing

    old, new = change.old, change.new
    if change.status == "T" and old is not None and new is not None:
        return f"  {old.dtype} → {new.dtype}"
    if change.status != "S" or old is None or new is None:
        return ""
    shapes = f"  {console.shape_text(old.shape)} → {console.shape_text(new.shape)}"
    numbers = diffing.numbers(session, item, change)
    if numbers is None:
        return shapes
    apart = f"‖Δ‖/‖W‖ {numbers.relative:.3%}, cosine {numbers.cosine:.6f}, {numbers.changed:.1%} changed"
    return f"{shapes}, {diffing.part(change, numbers.compared or ())}: {apart}"


def _codecs(session: Session, asked: Arguments, *, as_json: bool) -> int:
    """A table of the tensors of one checkpoint: codecs, stored bytes, ratio."""
    from theta.porcelain.look import describing
    from theta.porcelain.workspace import sharded_models

    args = asked.words
    if len(args) != 1 or ":" not in args[0] or asked.options:
        raise UsageError("--codecs is for one REV:PATH or REV:PATH#TENSOR")
    revision, _, rest = args[0].partition(":")
    path, _, tensor = rest.partition("#")
    entry = session.repo.tree_of(revision or "HEAD").get(path)
    with concerning(f"{revision or 'HEAD'}:{path}"):
        one = session.manifest_or_none(entry.id) if entry is not None else None
    shards = sharded_models.shards_at(session, revision or "HEAD", path) if entry is None else {}
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
        words = heading in ("tensor", "codecs")
        table.add_column(heading, overflow="fold", justify="left" if words else "right", no_wrap=not words)
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
    if _is_root(session, revision or "HEAD", name):
        return _root(session, name)
    entry = session.repo.tree_of(revision or "HEAD").get(path)
    if entry is not None and (error := session.malformed(entry.id)) is not None:
        error.concern(f"{revision or 'HEAD'}:{path}")
        raise error
    manifest = session.manifest_or_none(entry.id) if entry is not None else None
    if manifest is None:
        return _model(session, revision or "HEAD", path, tensor) if entry is None else None
    if tensor:
        with concerning(f"{revision or 'HEAD'}:{path}"):
            return _tensor(session, manifest, tensor)
    console.out(f"{path}: {manifest.format}, {len(manifest.lines)} tensors, {console.human(manifest.nbytes)}")
    for line in manifest.lines:
        console.out(f"  {line.name}  {line.dtype} {list(line.shape)}  {console.human(line.nbytes)}")
    return 0


def _is_root(session: Session, revision: str, name: str) -> bool:
    """Whether ``REV:`` or ``REV:./`` is all that ``revision`` holds."""
    git = session.repo.git().in_directory(Path.cwd())
    done = git.run("rev-parse", "-q", "--verify", "--end-of-options", name, check=False)
    return done.code == 0 and done.text.strip() == str(session.repo.tree_of(revision).id)


def _root(session: Session, name: str) -> int:
    """The files and folders of a commit as git lists them, without ``.theta/``."""
    from theta.git.repository import STORES

    listed = session.repo.git().in_directory(Path.cwd()).run("show", name).text.splitlines()
    console.out(*(line for line in listed if line != f"{STORES}/"))
    return 0


def _model(session: Session, revision: str, path: str, tensor: str) -> int | None:
    """A sharded model under the name that it would have in one file."""
    from theta.porcelain.workspace import sharded_models

    shards = sharded_models.shards_at(session, revision, path)
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
    from theta.store.changes import counted
    from theta.store.read.tensor_records import record_of

    session.objects.expect({line.tree: line.nbytes})
    record = record_of(session.objects, line)
    stored = sum(len(session.objects.chunk(oid)) for oid in record.files.values())
    console.out(f"{name}: {line.dtype} {list(line.shape)}, {console.human(line.nbytes)}")
    console.out(f"  sha256:{line.digest}", f"  tree {line.tree}")
    codecs = ", ".join(layer.codec for layer in record.layers)
    console.out(f"  {counted(len(record.chunks), 'chunk')}, {codecs}, {console.human(stored)} stored")
    return 0
