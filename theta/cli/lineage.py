"""``theta lineage``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from theta import _fs
from theta.cli import console, reports
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import lineage_graph
    from theta.porcelain.lineage import tracing
    from theta.porcelain.lineage.tracing import VersionNode
    from theta.porcelain.tensors import converting
    from theta.porcelain.workspace.session import Session
else:
    lineage_graph = Module("theta.cli.lineage_graph")
    tracing = Module("theta.porcelain.lineage.tracing")
    converting = Module("theta.porcelain.tensors.converting")

app = typer.Typer(add_completion=False)

_ID = 10


@app.command(context_settings=HELP)
def lineage(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[REV...] [PATH]", help="A checkpoint, and where to begin.")
    ] = None,
    everywhere: bool = typer.Option(False, "--all", help="Begin at all branches and tags."),
    as_json: bool = typer.Option(False, "--json", help="Print the versions as JSON."),
    svg: str = typer.Option("", "--svg", metavar="FILE", help="Draw the graph into this file."),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite an existing file."),
) -> int:
    """Show which version of a checkpoint came from which, and by what.

    Each line is a version: trained, low-rank (a merged LoRA), merged and by which strategy, averaged, cast to
    another dtype, trimmed, extended, converted. Trailers of commits tell of merges and means, and the
    tensors of everything else. Renamed files are followed.
    """
    session = open_session(worktree=False)
    revisions, path = _split(session, words or [])
    found = tracing.lineage(session, tracing.LineageRequest(path, revisions, everywhere))
    if as_json:
        nodes = [_plain(node) for node in found.nodes.values()]
        reports.as_json("lineage", {"path": found.path, "versions": nodes})
        return 0
    if svg:
        converting.check_places([Path.cwd() / svg], 0, force)
        _fs.write_atomic(Path.cwd() / svg, lineage_graph.svg(found).encode())
        console.note(f"{svg}: {len(found.nodes)} versions of {found.path}")
        return 0
    for line in lineage_graph.text(session, found):
        console.out(line)
    return 0


def _split(session: Session, words: list[str]) -> tuple[list[str], str]:
    """Return the revisions of a line, and the path at its end; "" when it has none."""
    if not words:
        return [], ""
    *others, last = words
    is_revision = not (Path.cwd() / last).exists() and session.repo.commit_of(last) is not None
    return (words, "") if is_revision else (others, last if session.repo.is_bare else session.from_root(last))


def _plain(node: VersionNode) -> dict[str, Any]:
    return {
        "commit": node.commit,
        "path": node.path,
        "deed": node.deed,
        "detail": node.detail,
        "origins": [{"commit": origin.commit, "path": origin.path} for origin in node.origins],
        "author": node.author.name,
        "time": node.author.time,
        "subject": node.subject,
        "names": list(node.names),
    }
