"""The history of checkpoints: which commit changed which tensor."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from theta.porcelain.committing import Summary, summarize
from theta.porcelain.session import Session
from theta.store.changes import Changes

_HIDE: Final = ":(exclude,top).theta"


@dataclass(frozen=True)
class Logged:
    """A commit and what it changed."""

    commit: str
    author: str
    date: str
    subject: str
    checkpoints: dict[str, Changes]
    files: int

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        found = {p: [[c.status, c.name] for c in item.tensors] for p, item in self.checkpoints.items()}
        faults = {path: item.fault for path, item in self.checkpoints.items() if item.fault}
        body = {"commit": self.commit, "author": self.author, "date": self.date, "subject": self.subject,
                "checkpoints": found, "files": self.files}  # fmt: skip
        return body | ({"malformed": faults} if faults else {})


def without_stores(args: list[str]) -> list[str]:
    """``args`` of a git command that shows files, with ``.theta/`` left out."""
    if "--" in args:
        at = args.index("--")
        paths = args[at + 1 :]
        return [*args[: at + 1], *(paths or [":(top)"]), _HIDE]
    if any(arg in ("-p", "-u", "--patch", "--name-only", "--name-status", "--numstat", "--raw", "--summary")
           or arg.startswith("--stat") for arg in args):  # fmt: skip
        return [*args, "--", ":(top)", _HIDE]
    return args


def commits(session: Session, cwd: Path, args: list[str]) -> list[str]:
    """The commits that ``git log ARGS`` would show."""
    return session.repo.git().in_directory(cwd).run("log", "--format=%H", *args).text.split()


def changed(session: Session, found: list[str], glob: str | None) -> Iterator[Logged]:
    """Each commit with what it changed; with ``glob`` only those that changed such a tensor."""
    session.expect_trees(with_parents(session, found))
    for oid in found:
        item = _logged(session, summarize(session, oid))
        if glob is not None:
            kept = {path: _matching(changes, glob) for path, changes in item.checkpoints.items()}
            item = replace(
                item, checkpoints={path: changes for path, changes in kept.items() if changes.tensors}
            )
            if not item.checkpoints:
                continue
        yield item


def with_parents(session: Session, commits: list[str]) -> list[str]:
    """``commits`` and the first parent of each."""
    firsts = (str(parent) for oid in commits for parent in session.repo.commit(oid).parent_ids[:1])
    return list(dict.fromkeys([*commits, *firsts]))


def _matching(found: Changes, glob: str) -> Changes:
    kept = tuple(c for c in found.tensors if fnmatchcase(c.name, glob) or fnmatchcase(c.old_name, glob))
    return replace(found, tensors=kept)


def _logged(session: Session, summary: Summary) -> Logged:
    commit = session.repo.commit(summary.commit)
    zone = datetime.timezone(datetime.timedelta(minutes=commit.author.offset))
    date = datetime.datetime.fromtimestamp(commit.author.time, zone).isoformat(" ")
    author = f"{commit.author.name} <{commit.author.email}>"
    return Logged(summary.commit, author, date, summary.subject, summary.checkpoints, summary.files)
