"""The output of ``theta merge --dry-run`` and ``--replay``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from theta.cli import console, report_files, reports
from theta.errors import ExitCode, UsageError
from theta.git.quoting import visible
from theta.lazy import Module
from theta.store.changes import counted
from theta.units import human

if TYPE_CHECKING:
    from theta.cli import name_folding, screen
    from theta.merging.engine import RehearsedTensor
    from theta.porcelain.commands.merge_request import MergeResult
    from theta.porcelain.merge.replay import Replayed
    from theta.porcelain.workspace.session import Session
else:
    name_folding = Module("theta.cli.name_folding")
    screen = Module("theta.cli.screen")

SHOWN: Final = 60
_UNTOUCHED: Final = "same"


@dataclass(frozen=True)
class RehearsedForm:
    """A table, JSON, a page or Markdown."""

    as_json: bool = False
    html: str | None = None
    md: bool = False


def form(as_json: bool, html: str | None, md: bool, dry_run: bool) -> RehearsedForm:
    """Return the form; raises :class:`UsageError` for two of them, and for one without --dry-run."""
    given = {"--json": as_json, "--html": html is not None, "--md": md}
    chosen = next((name for name, is_given in given.items() if is_given), "")
    if chosen and not dry_run:
        raise UsageError(f"{chosen} goes with --dry-run", hint=f"theta merge --dry-run {chosen} ...")
    report_files.check(html, md, as_json)
    return RehearsedForm(as_json, html, md)


def tell_rehearsed(session: Session, names: Sequence[str], result: MergeResult, shown: RehearsedForm) -> int:
    """Tell what a merge of ``names`` would do to each tensor, and what it would store."""
    if shown.html is not None or shown.md:
        report_files.merge(session, names, result, report_files.Drawing(shown.html, shown.as_json))
        return result.code
    if shown.as_json:
        reports.as_json("merge", _as_json(result))
        return result.code
    if result.is_up_to_date:
        console.out(*result.said.out)
        return result.code
    console.out(f"merge base: {result.base[:12] if result.base else 'none'}")
    if result.forward:
        console.out(f"would fast-forward to {result.forward[:12]}: no merge, no commit of its own")
    for path, rows in result.rows.items():
        _table(console.here(path), rows)
    for path in result.texts:
        console.out(f"to be written: {console.here(path)}")
    for path in _open(result):
        console.out(f"CONFLICT: {console.here(path)}")
    return result.code


def _open(result: MergeResult) -> list[str]:
    return sorted(set(result.settlement.unmerged))


def _table(path: str, rows: Sequence[RehearsedTensor]) -> None:
    from rich.table import Table

    touched = [row for row in rows if row.state != _UNTOUCHED]
    table = Table(title=screen.markup(path), box=None, title_justify="left", pad_edge=False)
    for name in ("tensor", "taken", "by", "size", "new in the repository"):
        number = name in ("size", "new in the repository")
        table.add_column(name, overflow="fold", justify="right" if number else "left", no_wrap=number)
    for row in touched[:SHOWN]:
        sizes = (human(row.nbytes), human(row.stored) if row.stored else "")
        tensor = name_folding.FoldedName(visible(row.name))
        table.add_row(tensor, row.state, screen.markup(row.strategy), *sizes)
    if touched:
        screen.show(table)
    else:
        console.out(path)
    if len(touched) > SHOWN:
        console.out(f"... and {len(touched) - SHOWN} more")
    counts = Counter(row.state for row in rows)
    stored = sum(row.stored for row in rows)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    console.out(f"{len(rows)} tensors: {told}; {human(stored)} to store")


def _as_json(result: MergeResult) -> dict[str, object]:
    keys = ("name", "state", "strategy", "nbytes", "stored")
    tables = {
        path: [{key: getattr(row, key) for key in keys} for row in rows] for path, rows in result.rows.items()
    }
    return {
        "base": result.base,
        "checkpoints": tables,
        "texts": list(result.texts),
        "conflicts": _open(result),
        "up_to_date": result.is_up_to_date,
        "fast_forward": result.forward or None,
    }


def tell_again(done: Replayed, *, as_json: bool = False) -> int:
    """Tell whether a merge that was done again gave the same bytes; return the exit code."""
    if as_json:
        told = {"replayed": done.commit, "same": done.same}
        paths = {"differing": list(done.differing), "by_hand": list(done.by_hand)}
        reports.as_json("merge", told | paths)
        return 0 if done.same else int(ExitCode.DIFFERENCES)
    oid = done.commit[:12]
    for path in done.by_hand:
        console.note(f"{path}: settled by hand in {oid}; taken from there")
    if done.same:
        rest = f", but for {counted(len(done.by_hand), 'file')} settled by hand" if done.by_hand else ""
        console.out(f"{oid} again: the same tree {done.tree}{rest}")
        return 0
    for path in done.differing:
        console.out(f"{path}: not what {oid} has")
    return int(ExitCode.DIFFERENCES)
