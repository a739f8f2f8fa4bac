"""The summary of a commit: changed tensors of each checkpoint, the number of other changed files."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theta.git.object_values import Commit, Tree, differing
from theta.git.repository import STORES
from theta.porcelain.workspace import sharded_models
from theta.porcelain.workspace.checkpoints import EMPTY
from theta.porcelain.workspace.session import Session
from theta.store.changes import Changes


@dataclass(frozen=True)
class Summary:
    """The changes of a commit.

    Attributes:
        commit: id of the commit.
        author: name and mail address.
        date: author date in ISO 8601, with the author's time zone.
        branch: the branch that is checked out, or "detached HEAD".
        subject: first line of the message.
        root: the commit has no parent.
        checkpoints: path -> changes against the first parent.
        files: number of other files that changed.
        merge: the commit has several parents.
        new_files: paths that the first parent does not have.
    """

    commit: str
    author: str
    date: str
    branch: str
    subject: str
    root: bool
    checkpoints: dict[str, Changes]
    files: int
    merge: bool = False
    new_files: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        found = {p: [[c.status, c.name] for c in item.tensors] for p, item in self.checkpoints.items()}
        faults = {path: item.fault for path, item in self.checkpoints.items() if item.fault}
        body = {"commit": self.commit, "author": self.author, "date": self.date, "subject": self.subject,
                "checkpoints": found, "files": self.files}  # fmt: skip
        renamed = {path: item.old_path for path, item in self.checkpoints.items() if item.old_path}
        more = {"malformed": faults, "renamed": renamed}
        return body | {key: value for key, value in more.items() if value}


def headline(session: Session, found: Summary) -> list[str]:
    """Return the lines that ``git commit`` prints about a new commit, without its checkpoints."""
    git = session.repo.git()
    fields = ("%h", "%s", "%an <%ae>", "%cn <%ce>", "%ad", "%cd")
    done = git.compared("show", "-s", f"--format={'%x00'.join(fields)}", found.commit)
    oid, subject, author, committer, written, committed = done.text.rstrip("\n").split("\0")
    root = " (root-commit)" if found.root else ""
    lines = [f"[{found.branch}{root} {oid}] {subject}"]
    lines += [f" Author: {author}"] if author != committer else []
    lines += [f" Date: {written}"] if written != committed else []
    if found.files and not found.merge:
        hidden = [f":(exclude,top,literal){path}" for path in sharded_models.paths_of(found.checkpoints)]
        what = ("--format=", "--shortstat", "--summary", found.commit, "--", ":(top)")
        lines += git.compared("show", *what, ":(exclude,top).theta", *hidden).text.splitlines()
    return lines


def moved(session: Session, old: str, new: str) -> list[str]:
    """Return the lines about a fast-forward: changes of checkpoints, and git's diffstat of other files."""
    found = between(session, session.repo.tree_of(old), session.repo.tree_of(new))
    hidden = [f":(exclude,top,literal){path}" for path in sharded_models.paths_of(found)]
    files = ("--", ":(top)", ":(exclude,top).theta", *hidden)
    told = session.repo.git().compared("diff", "--stat", "--summary", old, new, *files).text.splitlines()
    return [f" {item.told(path)}" for path, item in found.items()] + told


def summarize(session: Session, oid: str, paths: Sequence[str] = ()) -> Summary:
    """Return the changes of commit ``oid`` against its first parent.

    ``paths`` are pathspecs from the current directory that limit the files.
    """
    commit = session.repo.commit(oid)
    session.expect_trees([oid, *commit.parents[:1]])
    old = session.repo.tree_of(commit.parents[0]) if commit.parents else None
    new = session.repo.tree_of(oid)
    found = between(session, old, new)
    letters = _letters(session, oid, paths) if paths else dict(differing(old, new, STORES))
    if paths:
        named = letters.keys()
        found = {
            path: item for path, item in found.items() if named & {*sharded_models.paths_of({path: item})}
        }
    added = tuple(path for path, letter in letters.items() if letter == "A")
    files = len(letters.keys() - set(sharded_models.paths_of(found)))
    branch = "detached HEAD" if session.repo.is_detached else session.repo.branch
    subject = commit.message.strip().splitlines()[0] if commit.message.strip() else ""
    parents = len(commit.parents)
    return Summary(oid, *_author(commit), branch, subject, not parents, found, files, parents > 1, added)


def of_new(session: Session, before: str | None) -> Summary | None:
    """Return the summary of HEAD; None when HEAD is still at ``before``."""
    fresh = session.again()
    head = fresh.repo.head()
    return None if head is None or head == before else summarize(fresh, head)


def _author(commit: Commit) -> tuple[str, str]:
    """Return the author and the author date of ``commit``."""
    zone = datetime.timezone(datetime.timedelta(minutes=commit.author.zone))
    date = datetime.datetime.fromtimestamp(commit.author.time, zone).isoformat(" ")
    return f"{commit.author.name} <{commit.author.email}>", date


def _letters(session: Session, oid: str, paths: Sequence[str]) -> dict[str, str]:
    """Return path -> A, D, M or T for the files at ``paths`` that commit ``oid`` changed."""
    how = ("--root", "--no-commit-id", "--name-status", "--no-renames", "-r", "-z", "-m", "--first-parent")
    git = session.repo.git().in_directory(session.cwd)
    fields = git.changes("diff-tree", *how, oid, "--", *paths, ":(exclude,top).theta")
    return dict(zip(fields[1::2], fields[0::2], strict=True))


def between(session: Session, old: Tree | None, new: Tree) -> dict[str, Changes]:
    """Return path -> changes for each checkpoint or sharded model that differs between two trees."""
    before = session.of_tree(old) if old is not None else EMPTY
    after = session.of_tree(new)
    found = sharded_models.changed(session, before, after)
    gone = {path for path, item in found.items() if item.removed and path in before}
    come = {path for path, item in found.items() if item.created and path in after}
    if old is not None and gone and come:
        for was, path in _renamed(session, old, new):
            if was in gone and path in come:
                del found[was]
                found[path] = replace(
                    sharded_models.changes_of(session, before.oid(was), after.oid(path)), old_path=was
                )
    return found


def _renamed(session: Session, old: Tree, new: Tree) -> Iterator[tuple[str, str]]:
    """Return the old and the new path of each file that git detects as renamed, by its manifest."""
    args = ("-r", "-z", "--find-renames", "--diff-filter=R", "--name-status", old.id, new.id)
    fields = session.repo.git().changes("diff-tree", *args, "--", ":(top)", ":(exclude,top).theta")
    return zip(fields[1::3], fields[2::3], strict=True)
