"""Reports with pictures as files: ``--html FILE`` and ``--md``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs
from theta.cli import console, reports, terminal
from theta.errors import NotFoundError, UsageError, WouldOverwriteError
from theta.git.quoting import split_lines
from theta.lazy import Module
from theta.units import human

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.pages import document, markdown
    from theta.porcelain.commands.histories import LogResult
    from theta.porcelain.commands.merge_request import MergeResult
    from theta.porcelain.look.comparison import DiffRequest
    from theta.porcelain.studies import diff_study, log_study, merge_study, version_study
    from theta.porcelain.studies.pages_data import PageData
    from theta.porcelain.workspace.session import Session
else:
    diff_study = Module("theta.porcelain.studies.diff_study")
    log_study = Module("theta.porcelain.studies.log_study")
    merge_study = Module("theta.porcelain.studies.merge_study")
    version_study = Module("theta.porcelain.studies.version_study")
    document = Module("theta.pages.document")
    markdown = Module("theta.pages.markdown")

_READ: Final = 4096


@dataclass(frozen=True)
class Drawing:
    """A page for the file ``html``, None for Markdown; ``as_json`` prints the data of the page too."""

    html: str | None
    as_json: bool = False


def check(html: str | None, md: bool, as_json: bool, other: bool = False) -> None:
    """Raise a theta error if several forms are asked for, or if the page cannot be written.

    A page in a file and its data as JSON go together.
    """
    printed = (html == "-", md, as_json, other)
    if sum(printed) > 1 or (html is not None and (md or other)):
        raise UsageError("--html, --md and --json are different forms of one report: ask for one")
    if html is not None and html != "-":
        refuse(html, document.MARK)


def refuse(name: str, *marks: str) -> None:
    """Raise a theta error if ``name`` cannot be written: a file without one of ``marks`` is not ours."""
    place = Path.cwd() / name
    if not place.parent.is_dir():
        raise NotFoundError(f"there is no folder {place.parent}")
    if os.path.lexists(place) and not _has_mark(place, marks):
        raise WouldOverwriteError(f"{name} is there already", hint="only reports by theta are written over")


def _has_mark(place: Path, marks: Sequence[str]) -> bool:
    """Return whether ``place`` is a file with one of ``marks`` near its beginning."""
    if not place.is_file():
        return False
    with place.open("rb") as file:
        head = file.read(_READ)
    return any(mark.encode() in head for mark in marks)


def diff(session: Session, request: DiffRequest, form: Drawing) -> int:
    """Draw a diff."""
    with terminal.progress("comparing") as progress:
        data = diff_study.study(session, request, progress)
    return _tell(data, form)


def show(session: Session, asked: Arguments, form: Drawing, against: str | None, glob: str | None) -> int:
    """Draw a commit, or a checkpoint of one."""
    name, *others = asked.words or ["HEAD"]
    if others or asked.options:
        raise UsageError("a page is of one commit or one REV:PATH")
    if ":" in name and against is not None:
        raise UsageError("--against is for a commit")
    with terminal.progress("comparing"):
        if ":" in name:
            return _tell(version_study.of_checkpoint(session, name, glob), form)
        return _tell(version_study.of_commit(session, name, against, glob), form)


def log(session: Session, found: LogResult, form: Drawing) -> int:
    """Draw a history."""
    return _tell(log_study.study(session, found.commits), form)


def merge(session: Session, names: Sequence[str], result: MergeResult, form: Drawing) -> int:
    """Draw a merge of ``names`` that was rehearsed."""
    commits = [result.base, result.before, *map(session.repo.resolve, names or ["@{upstream}"])]
    with terminal.progress("comparing"):
        data = merge_study.study(session, commits, result.rows, sorted(set(result.settlement.unmerged)))
    return _tell(data, form)


def _tell(data: PageData, form: Drawing) -> int:
    """Write the page to its file, or to standard output for ``-``; print Markdown or the data."""
    plain = data.as_json()
    if form.html == "-":
        console.out(*split_lines(document.html(plain)))
    elif form.html is not None:
        content = document.html(plain).encode()
        _fs.write_atomic(Path.cwd() / form.html, content)
        if not form.as_json:
            console.note(f"{form.html}: {data.title}, {human(len(content))}")
    if form.as_json:
        reports.as_json("page", plain)
    elif form.html is None:
        console.out(*split_lines(markdown.markdown(plain)))
    return 0
