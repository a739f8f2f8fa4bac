"""``theta check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta import _fs
from theta._version import __version__
from theta.cli import console, report_files, reports, terminal
from theta.cli.args import HELP
from theta.errors import ExitCode, NotARepositoryError
from theta.lazy import Module
from theta.porcelain.check import check_rules, gate
from theta.porcelain.check.findings import RULES
from theta.porcelain.workspace.session import Session
from theta.store.changes import counted
from theta.units import human

if TYPE_CHECKING:
    from theta.pages import findings_files
    from theta.porcelain.check.gate import CheckResult
else:
    findings_files = Module("theta.pages.findings_files")

app = typer.Typer(add_completion=False)
_SHOWN = 200


@app.command(context_settings={**HELP, "allow_extra_args": True})
def check(
    context: typer.Context,
    against: str | None = typer.Option(None, "--against", metavar="REV", help="Compare with this version."),
    frozen: Annotated[
        list[str] | None, typer.Option("--frozen", metavar="GLOB", help="Tensors that may not change.")
    ] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--max-change", metavar="GLOB=N", help="Largest relative change, as 'lm_head*=0.01'."),
    ] = None,
    size: str | None = typer.Option(
        None, "--max-size", metavar="SIZE", help="Most bytes that a commit may store anew, such as 100MB."
    ),
    ignored: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", metavar="RULE[=GLOB]", help="Leave out a rule, for matching tensors or files."
        ),
    ] = None,
    sarif: str | None = typer.Option(
        None, "--sarif", metavar="FILE", help="Write the findings as SARIF too."
    ),
    junit: str | None = typer.Option(None, "--junit", metavar="FILE", help="Write them as JUnit's XML too."),
    list_rules: bool = typer.Option(False, "--rules", help="List the rules, and check nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> int:
    """Check checkpoints by rules: [REV | FILE...]. Ends with 1 if any is broken.

    Without names, the tracked checkpoints of the worktree are checked; the version before is that of HEAD,
    and that of the first parent for a revision. The table [check] of .theta.toml has rules too.
    """
    if list_rules:
        console.out(*(f"{name:<12}{text}" for name, text in RULES.items()))
        return 0
    rules = check_rules.of_words(frozen or (), budgets or (), size, ignored or ())
    names = context.args
    for file in filter(None, (sarif, junit)):
        report_files.refuse(file, *findings_files.MARKS)
    with terminal.progress("checking") as progress:
        found = gate.check(_session(), gate.CheckRequest(names, against, rules), Path.cwd(), progress)
    _write(found, sarif, junit)
    if as_json:
        reports.as_json("check", _plain(found) | {"tensors": found.tensors, "bytes": found.nbytes})
    else:
        _show(found)
    return int(ExitCode.DIFFERENCES if found.findings else ExitCode.OK)


def _session() -> Session | None:
    try:
        return Session.here(Path.cwd())
    except NotARepositoryError:
        return None


def _plain(found: CheckResult) -> dict[str, object]:
    return {"findings": [one.as_json() for one in found.findings], "paths": list(found.paths)}


def _write(found: CheckResult, sarif: str | None, junit: str | None) -> None:
    findings = [one.as_json() for one in found.findings]
    if sarif is not None:
        text = findings_files.sarif(findings, RULES, __version__, found.files)
        _fs.write_atomic(Path.cwd() / sarif, text.encode())
    if junit is not None:
        _fs.write_atomic(Path.cwd() / junit, findings_files.junit(findings, found.paths, RULES).encode())


def _show(found: CheckResult) -> None:
    for one in found.findings[:_SHOWN]:
        place = ": ".join(filter(None, (one.path, one.tensor)))
        console.out(f"{one.rule:<10} {place}: {one.message}" if place else f"{one.rule:<10} {one.message}")
    if len(found.findings) > _SHOWN:
        console.out(f"... and {len(found.findings) - _SHOWN} more")
    for note in found.notes:
        console.warn(note)
    told = counted(len(found.findings), "finding")
    checked = f"{counted(len(found.paths), 'checkpoint')}, {counted(found.tensors, 'tensor')}"
    console.note(f"{checked}, {human(found.nbytes)} checked: {told}")
