"""``theta extract-lora``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module
from theta.merging.adapters.extraction import LoraAdapter
from theta.porcelain.tensors import lora
from theta.units import human

if TYPE_CHECKING:
    from theta.porcelain.lineage import extracting
else:
    extracting = Module("theta.porcelain.lineage.extracting")

app = typer.Typer(add_completion=False)


@app.command(context_settings=HELP)
def extract_lora(
    ends: Annotated[
        str, typer.Argument(metavar="BASE..TUNED", help="The base and the fine-tuned revision.")
    ] = "",
    path: Annotated[str | None, typer.Argument(help="The checkpoint; needed if there are several.")] = None,
    rank: int = typer.Option(0, "--rank", "-r", metavar="N", help="The largest rank of a module."),
    out: str = typer.Option("", "--output", "-o", metavar="DIR", help="Directory to write the adapter to."),
    commit: bool = typer.Option(False, "--commit", help="Commit it on top of HEAD; DIR is in the worktree."),
    message: str = typer.Option("", "--message", "-m", help="The message of the commit."),
    replay: str = typer.Option("", "--replay", metavar="REV", help="Extract a committed one again; compare."),
    epsilon: float = typer.Option(
        0.0, help="Leave out singular values up to this share of the largest (default 0)."
    ),
    whole: Annotated[
        list[str] | None,
        typer.Option("--whole", metavar="MODULE", help="Save a module in full, such as embeddings or heads."),
    ] = None,
    base_model: str = typer.Option("", metavar="NAME", help="Name or folder of the base, for PEFT to load."),
    task_type: str = typer.Option(
        "", metavar="TASK", help="PEFT's name of the task; by default what config.json says."
    ),
    force: bool = typer.Option(False, "--force", "-f", help="Overwrite an existing adapter."),
    as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> int:
    """Write the difference of two revisions as a LoRA adapter that PEFT loads.

    Each matrix that changed becomes two factors of at most --rank; embeddings, heads,
    biases and everything that is no matrix are saved in full. DIR gets adapter_model.safetensors and
    adapter_config.json; the largest difference that remains to the fine-tune is printed. Experts become
    factors of parameters (target_parameters, for transformers 5). What no adapter can hold (codes of
    quantised weights, ...) is refused by name.
    """
    if replay:
        return _again(replay, as_json)
    if not rank or not out:
        raise UsageError("give --rank and --output", hint="theta extract-lora v1..v2 --rank 16 -o adapter")
    session = open_session(worktree=commit)
    base, tuned = lora.revisions(ends)
    paths = [lora.the_checkpoint(session, revision) for revision in (base, tuned)] if path is None else []
    first, second = paths or (path or "", path or "")
    with terminal.progress("extracting") as progress:
        wanted = lora.AdapterWanted(rank, epsilon, whole or None, base_model, task_type)
        found, unsaid = lora.adapter(session, (base, tuned), (first, second), wanted, progress)
        if not commit:
            lora.write(found, Path(out), force=force)
    new = ""
    if commit:
        asked = extracting.pinned(session, (base, tuned), (first, second), wanted, Path(out))
        new = extracting.commit(session, found, asked, message)
    if as_json:
        reports.as_json("extract-lora", {**_plain(found, out, unsaid), "commit": new or None})
        return 0
    size = human(sum(array.nbytes for array in found.tensors.values()))
    biases = f", {len(found.biases)} biases" if found.biases else ""
    biases += f", {len(found.parameters)} parameters of experts" if found.parameters else ""
    console.note(f"{out}: {len(found.ranks)} modules in low rank, {len(found.saved)} in full{biases}, {size}")
    where = f" ({found.worst})" if found.worst else ""
    console.note(f"the adapter reproduces the tuned model to max |d| = {found.error:.2g}{where}")
    if new:
        console.note(f"{new[:12]} is on {session.repo.branch}")
    for name, reason in found.left_out.items():
        console.warn(f"{name} is left out: {reason}")
    if unsaid:
        console.warn(unsaid)
    for rows in sorted(set(found.rows.values())):
        resize = f"base_model.resize_token_embeddings({rows})"
        console.warn(f"the vocabulary has another size than the base's: before PEFT loads this, {resize}")
    return 0


def _again(revision: str, as_json: bool) -> int:
    session = open_session(worktree=False)
    same = extracting.again(session, session.repo.resolve(f"{revision}^{{commit}}"))
    if same is None:
        raise UsageError(
            f"{revision} extracted none", hint="theta extract-lora --replay takes a commit of --commit"
        )
    if as_json:
        reports.as_json("extract-lora", {"replayed": revision, "same": same})
        return int(not same)
    console.out(f"{revision} again: {'the same adapter' if same else 'another adapter'}")
    return int(not same)


def _plain(found: LoraAdapter, out: str, unsaid: str) -> dict[str, object]:
    """Return the adapter as plain data."""
    return {
        "path": out,
        "ranks": dict(found.ranks),
        "whole": sorted(found.saved),
        "biases": sorted(found.biases),
        "parameters": sorted(found.parameters),
        "bytes": sum(array.nbytes for array in found.tensors.values()),
        "error": found.error,
        "worst": found.worst,
        "left_out": dict(found.left_out),
        "notes": [unsaid] if unsaid else [],
    }
