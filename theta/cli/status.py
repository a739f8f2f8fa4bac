"""``theta status``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from theta.cli import console, reports, terminal
from theta.cli.args import Given
from theta.cli.common import NO_NOTICE, open_session, uses_theta
from theta.cli.passing import Passing
from theta.cli.status_text import told_at_length
from theta.git.quoting import quoted, split_lines, visible
from theta.lazy import Module
from theta.porcelain.look.history import HIDE

if TYPE_CHECKING:
    import typer

    from theta.git import in_progress, lfs
    from theta.git.display.colours import Palette
    from theta.git.options import Arguments
    from theta.porcelain.drive import running
    from theta.porcelain.look import overview as state
    from theta.porcelain.look.overview import Report, Row
    from theta.porcelain.workspace import coverage, worktree
    from theta.porcelain.workspace.session import Session
else:
    worktree = Module("theta.porcelain.workspace.worktree")
    coverage = Module("theta.porcelain.workspace.coverage")
    in_progress = Module("theta.git.in_progress")
    lfs = Module("theta.git.lfs")
    running = Module("theta.porcelain.drive.running")
    state = Module("theta.porcelain.look.overview")
    typer = Module("typer")

app = Passing(("--json",))


@app.command
def status(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> int:
    """Show what changed: files as git shows them, checkpoints by tensor (git status's options apply).

    A checkpoint is read only if its file changed since theta last saw it.
    """
    session = open_session()
    asked = given.of_git()
    found = None
    if not as_json and asked.known and uses_theta(session):
        with terminal.progress("comparing") as progress:
            found = worktree.refresh(session, progress)
        if state.is_untouched(session, found):
            return _show(session, *NO_NOTICE, "status", *asked.given)
    if not as_json and (found is None or not _is_ours(asked)):
        return _by_git(session, asked)
    with terminal.progress("comparing") as progress:
        report = state.report(session, asked.words, progress, found)
    if as_json:
        reports.as_json("status", report.as_json())
    elif asked.options:
        _rows(session, report, relative=asked.has("--short"))
    else:
        seen = _seen(session)
        untracked = [seen(row.path) for row in report.rows if row.index == "?"]
        head = in_progress.told(session.repo, "theta") if report.operation else []
        told_at_length(report, head, _in_columns(session, untracked), seen)
        _remarks(session, report)
    return 0


def _is_ours(asked: Arguments) -> bool:
    if asked.only("--porcelain"):
        return asked.value("--porcelain") in (None, "1", "v1")
    return asked.only("--short")


def _by_git(session: Session, asked: Arguments) -> int:
    """Let git print its status, without files below ``.theta/`` and the notice of sparse checkouts."""
    if asked.known and uses_theta(session):
        rest = (*asked.flags, "--", *(asked.words or [":(top)"]), HIDE)
        return _show(session, *NO_NOTICE, "status", *rest)
    return _show(session, "status", *asked.given)


def _show(session: Session, *args: str) -> int:
    with session.journal.reading():
        code = session.repo.git(extra={}).in_directory(session.cwd).show(*args)
        running.unlock(session, code)
    return code


def _rows(session: Session, report: Report, *, relative: bool) -> None:
    """Print the rows of git status --short or --porcelain: the same letters, order and quotes."""
    octal, short = session.repo.setting("core.quotePath"), relative
    seen = _seen(session) if relative else str
    palette = console.palette("status")
    for row in report.rows:
        names = [seen(name) for name in (row.old_path, row.path) if name]
        text = " -> ".join(quoted(name, blanks=True, octal=octal) for name in names)
        console.out(f"{_letters(row, palette if short else None)} {text}", painted=True)


def _remarks(session: Session, report: Report) -> None:
    for path in report.unfilled:
        here, word = session.place(path), session.word(path)
        console.out(f"{here} is still a manifest; 'theta restore {word}' writes the checkpoint")
    for path in report.pointers:
        console.out(f"{session.place(path)} is a Git LFS pointer, not the file itself; {lfs.FETCH}")
    if report.plain:
        console.out(coverage.plain_line(session, report.plain))
    if not report.head_agrees:
        console.out(
            "HEAD lacks tensors of its checkpoints; a commit brings them, 'theta fsck --mend' mends HEAD"
        )
    if not report.rows:
        console.out("nothing to commit, working tree clean")


def _seen(session: Session) -> Callable[[str], str]:
    """Return what spells a path as git's status does: from the current directory, unless that is unwanted."""
    return session.place if session.repo.setting("status.relativePaths") else str


def _in_columns(session: Session, names: list[str]) -> list[str]:
    """Return lines of names, in columns where ``column.status`` or ``column.ui`` asks git for them."""
    config = session.repo.config
    words = f"{config.get('column.ui') or ''} {config.get('column.status') or ''}".replace(",", " ").split()
    when = next((word for word in reversed(words) if word in ("always", "never", "auto")), "always")
    if not names or not words or when == "never" or (when == "auto" and not console.on_screen()):
        return names
    mode = ",".join(["always", *(word for word in words if word not in ("always", "never", "auto"))])
    width = shutil.get_terminal_size().columns - 1
    line = ("column", f"--mode={mode}", "--indent=\t", "--padding=1", f"--width={width}")
    text = session.repo.git().run(*line, stdin=os.fsencode("\n".join(visible(name) for name in names))).text
    return [row.removeprefix("\t") for row in split_lines(text)]


def _letters(row: Row, palette: Palette | None) -> str:
    """Return both letters of a row; git colours those of the short format."""
    if palette is None:
        return row.index + row.worktree
    if row.unmerged or row.index == "?":
        return palette.paint("unmerged" if row.unmerged else "untracked", row.index + row.worktree)
    slots = (("added", row.index), ("changed", row.worktree))
    return "".join(palette.paint(slot, letter) if letter != " " else " " for slot, letter in slots)
