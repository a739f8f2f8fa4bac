"""``theta build-moe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, reports
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.lineage import moe_building
else:
    moe_building = Module("theta.porcelain.lineage.moe_building")

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def build_moe(
    experts: Annotated[
        list[str] | None, typer.Argument(metavar="REV", help="The models of the experts, in order.")
    ] = None,
    base: str = typer.Option("HEAD", "--base", metavar="REV", help="Embeddings, attention and norms."),
    path: str = typer.Option("", "--path", help="The checkpoint; by default the only one."),
    kind: str = typer.Option(
        "", "--kind", help="mixtral, qwen2_moe or qwen3_moe; by default as fits the base."
    ),
    shared: str = typer.Option("", "--shared", metavar="REV", help="The shared expert of qwen2_moe."),
    gates: str = typer.Option(
        "random", "--gates", metavar="FILE|REV:PATH", help="A vector for each expert and layer, or random."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="The seed of random gates."),
    chosen: int = typer.Option(2, "--experts-per-token", min=1, help="How many experts work on a token."),
    out: str = typer.Option(
        "", "--output", "-o", metavar="FILE", help="Write it, and config.json beside it."
    ),
    commit: bool = typer.Option(False, "--commit", help="Commit it on top of HEAD."),
    message: str = typer.Option("", "--message", "-m", help="The message of the commit."),
    replay: str = typer.Option("", "--replay", metavar="REV", help="Build a committed one again; compare."),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite existing files."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> int:
    """Build a mixture of experts: the MLPs of several versions become experts of one model.

    Embeddings, attention and norms are those of --base. Gates are random, or point where the hidden states
    of each expert's prompts do: one tensor [experts, layers, width], scaled to length 1. Experts are stored
    once, since they are the tensors of their versions. config.json is made from that of the base.
    """
    if replay:
        return _again(replay, as_json)
    if not experts or not (out or commit):
        raise UsageError("name experts, and where the model goes", hint="theta build-moe code maths --commit")
    session = open_session()
    request = moe_building.MoeRequest(experts, base, path, kind, shared, gates, seed, chosen)
    found = moe_building.plan(session, request)
    if out:
        moe_building.write(session, found, Path.cwd() / out, force=force)
    new = moe_building.commit(session, found, message) if commit else ""
    if as_json:
        body = {"path": found.path, "kind": found.mixture.kind.name, "experts": experts}
        reports.as_json("build-moe", {**body, "commit": new or None, "file": out or None})
        return 0
    console.note(f"{found.path}: {found.mixture.kind.name} of {len(experts)} experts")
    if new:
        console.note(f"{new[:12]} is on {session.repo.branch}")
    return 0


def _again(revision: str, as_json: bool) -> int:
    session = open_session()
    same = moe_building.again(session, session.repo.resolve(f"{revision}^{{commit}}"))
    if same is None:
        raise UsageError(f"{revision} built none", hint="theta build-moe --replay takes a commit of --commit")
    if as_json:
        reports.as_json("build-moe", {"replayed": revision, "same": same})
        return int(not same)
    console.out(f"{revision} again: {'the same model' if same else 'another model'}")
    return int(not same)
