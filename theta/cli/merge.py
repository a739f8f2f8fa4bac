"""``theta merge``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console
from theta.cli.args import PASS, plain
from theta.cli.common import drive, open_session
from theta.errors import ExitCode, ThetaError, UsageError

if TYPE_CHECKING:
    from theta.merging.strategies import Policy, Strategy
    from theta.porcelain.merging import Merged
    from theta.porcelain.session import Session

app = typer.Typer(add_completion=False)

_NOISE = ("Automatic merge", "Auto-merging", "Squash commit -- not updating HEAD", "Merge made by")


@app.command(context_settings=PASS)
def merge(
    context: typer.Context,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "-X", "--strategy-option", help="for conflicts: ours, theirs, base, average[:alpha=0.5]"
        ),
    ] = None,
    go_on: bool = typer.Option(False, "--continue", help="settle what is left and conclude the merge"),
    abort: bool = typer.Option(False, "--abort", help="give the merge up; everything is as it was before"),
    no_commit: bool = typer.Option(False, "--no-commit", help="stop before the commit"),
    no_prompt: bool = typer.Option(False, "--no-prompt", help="leave conflicts, even on a terminal"),
) -> int:
    """Join histories: files as git merges them, checkpoints tensor by tensor.

    A tensor that one side changed is taken. One that both changed is settled by -X, or asked for
    on a terminal, or left as a conflict (exit code 1) that 'theta merge --continue' settles.
    alpha is the weight of our side. git merge's other options apply.
    """
    session = open_session()
    args = plain(context.args)
    if abort and go_on:
        raise UsageError("--continue and --abort do not go together")
    if abort:
        return drive(session, "merge", "--abort", *args, refresh=False)
    options = strategy or []
    chosen = _chosen(options)
    with session.exclusive():
        if go_on:
            return _go_on(session, _policy(session, chosen, no_prompt), no_commit)
        return _start(session, args, options, _policy(session, chosen, no_prompt), no_commit)


def _chosen(options: list[str]) -> Strategy | None:
    from theta.merging.strategies import parse

    ours = [option for option in options if not _is_gits(option)]
    if len(ours) > 1:
        raise UsageError("one strategy for tensors is enough", hint="theta merge -X average")
    return parse(ours[0]) if ours else None


def _is_gits(option: str) -> bool:
    """Options of git's own merge strategy that say nothing about tensors."""
    names = ("ignore", "renormalize", "no-renormalize", "find-renames", "no-renames", "subtree", "patience")
    return option.startswith((*names, "diff-algorithm", "rename-threshold", "histogram"))


def _policy(session: Session, chosen: Strategy | None, no_prompt: bool) -> Policy:
    if chosen is not None:
        return lambda conflict: chosen if chosen.applies(conflict) else None
    if no_prompt or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return lambda conflict: None
    from theta.cli.prompting import Prompt

    return Prompt(session).decide


def _start(session: Session, args: list[str], options: list[str], policy: Policy, no_commit: bool) -> int:
    from theta.porcelain import committing, guarding, settle

    settle.refresh(session)
    before = session.repo.head()
    theirs = _theirs(session, args)
    guarding.refuse_untracked(session, theirs, "merge")
    gits = [f"-X{option}" for option in options if _is_gits(option) or option in ("ours", "theirs")]
    quiet = [arg for arg in args if arg != "--edit"]
    done = session.repo.git().in_directory(Path.cwd()).run("merge", "--no-commit", *gits, *quiet, check=False)
    merging = (session.repo.gitdir / "MERGE_HEAD").exists()
    if not merging and "--squash" not in args:
        _echo(done.stdout, done.stderr, set())
        committing.finish(session, before)
        return done.code
    code = _settle(session, theirs, policy, (done.stdout, done.stderr))
    if code == 0 and merging and not no_commit and "--no-commit" not in args:
        return _conclude(session)
    return code


def _theirs(session: Session, args: list[str]) -> str:
    names = [arg for arg in args if not arg.startswith("-")]
    takes_value = {"-m", "-F", "-s", "--strategy", "--into-name", "--cleanup", "--file"}
    names = [
        name
        for name in names
        if args[max(0, args.index(name) - 1)] not in takes_value or args.index(name) == 0
    ]
    if not names:
        upstream = (
            session.repo.git().run("rev-parse", "-q", "--verify", "@{upstream}", check=False).text.strip()
        )
        if upstream:
            return upstream
        raise UsageError("nothing to merge: no revision and no upstream branch", hint="theta merge BRANCH")
    return session.repo.resolve(f"{names[-1]}^{{commit}}")


def _settle(
    session: Session, theirs: str, policy: Policy, said: tuple[bytes, bytes], *, go_on: bool = False
) -> int:
    from theta.porcelain import merging
    from theta.porcelain.session import Session

    fresh = Session.here(session.repo.worktree)
    with console.progress("merging") as progress:
        merged = merging.after_git_merge(fresh, theirs, policy, progress, go_on=go_on)
    _echo(*said, set(merged.resolved) | set(merged.conflicts))
    _report(merged)
    left = merging.unresolved(fresh)
    if not left:
        return 0
    _conflicts(fresh, merged)
    for path in left:
        console.out(f"CONFLICT: {path}")
    console.err(
        "hint: settle tensors with 'theta merge --continue -X ours|theirs|base|average', files with an editor"
    )
    console.err("hint: and 'theta add'; 'theta merge --abort' gives the merge up")
    return int(ExitCode.DIFFERENCES)


def _echo(stdout: bytes, stderr: bytes, checkpoints: set[str]) -> None:
    """Pass on what git said, but for what theta does otherwise."""
    for line in stdout.decode("utf-8", "replace").splitlines():
        about_ours = ".theta/" in line or any(line.endswith(f" in {path}") for path in checkpoints)
        if not line.startswith(_NOISE) and not about_ours:
            console.note(line)
    for line in stderr.decode("utf-8", "replace").splitlines():
        if "stopped before committing" not in line:
            console.err(line)


def _report(merged: Merged) -> None:
    for path, manifest in merged.resolved.items():
        decided = merged.decided.get(path, {})
        how = ", ".join(sorted(set(decided.values())))
        tail = f", {len(decided)} of them by {how}" if decided else ""
        console.note(f"{path}: merged {len(manifest.lines)} tensors{tail}")


def _conflicts(session: Session, merged: Merged) -> None:
    from rich.markup import escape
    from rich.table import Table

    for path, conflicts in merged.conflicts.items():
        table = Table(
            title=f"{path}: {len(conflicts)} in conflict", box=None, title_justify="left", pad_edge=False
        )
        for name in ("tensor", "what both sides did", "shape", "dtype"):
            table.add_column(name)
        for conflict in conflicts[:40]:
            side = conflict.ours or conflict.theirs
            kind = conflict.kind.value if side else "header or metadata changed"
            shape = console.shape_text(side.shape) if side else ""
            table.add_row(escape(conflict.name), kind, shape, side.dtype if side else "")
        console.show(table)
        if len(conflicts) > 40:
            console.out(f"... and {len(conflicts) - 40} more")


def _go_on(session: Session, policy: Policy, no_commit: bool) -> int:
    merge_head = session.repo.gitdir / "MERGE_HEAD"
    heads = [
        name
        for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
        if (session.repo.gitdir / name).exists()
    ]
    if not heads:
        raise ThetaError("there is no merge in progress (MERGE_HEAD missing)")
    theirs = (session.repo.gitdir / heads[0]).read_text().split()[0]
    code = _settle(session, theirs, policy, (b"", b""), go_on=True)
    if code or no_commit:
        return code
    if not merge_head.exists():
        console.note("settled; continue with git")
        return 0
    return _conclude(session)


def _conclude(session: Session) -> int:
    from theta.cli.commit import report_summary
    from theta.porcelain import committing

    before = session.repo.head()
    committing.check_identity(session)
    code = session.repo.git().show("commit", "--no-edit", "--quiet")
    summary = committing.finish(session, before)
    if code == 0 and summary is not None:
        report_summary(summary, as_json=False)
    return code
