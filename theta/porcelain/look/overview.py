"""``theta status``: git's status of each file, and the changed tensors of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from theta.git import in_progress
from theta.git.repository import STORES
from theta.lazy import Module
from theta.porcelain.look import version_changes
from theta.porcelain.look.version_changes import Group, ModelChanges
from theta.porcelain.workspace import closures, coverage, worktree
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoints, is_shard
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.worktree import Found, State, skeleton_of
from theta.progress import Progress
from theta.store import changes
from theta.store.changes import Changes, Version

if TYPE_CHECKING:
    from theta.merging.states import Conflict
    from theta.porcelain.merge import answers, resolving
else:
    answers = Module("theta.porcelain.merge.answers")
    resolving = Module("theta.porcelain.merge.resolving")


@dataclass(frozen=True)
class Row:
    """A path with the two status letters of ``git status --short``."""

    path: str
    index: str
    worktree: str
    old_path: str = ""

    @property
    def unmerged(self) -> bool:
        """Whether the path is in conflict."""
        return "U" in self.index + self.worktree or (self.index + self.worktree) in ("AA", "DD")


@dataclass(frozen=True)
class Report:
    """The state of index and worktree.

    Attributes:
        branch: the headers of ``git status --porcelain=v2 --branch``.
        rows: all changed or untracked paths.
        staged: path -> changes from HEAD to the index.
        unstaged: path -> changes from the index to the file.
        conflicts: path -> tensors in conflict that have no answer yet.
        unfilled: checkpoints whose file still holds the manifest.
        pointers: checkpoints whose file is a Git LFS pointer.
        plain: tracked files that are in the index as plain bytes.
        head_agrees: ``.theta/`` in HEAD has all that the manifests name.
        operation: the operation in progress ("merge", "rebase", ...), or "".
    """

    branch: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    staged: dict[str, Changes] = field(default_factory=dict)
    unstaged: dict[str, Changes] = field(default_factory=dict)
    conflicts: dict[str, list[Conflict]] = field(default_factory=dict)
    unfilled: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    head_agrees: bool = True
    operation: str = ""

    @property
    def clean(self) -> bool:
        """Whether all rows are untracked files."""
        return all(row.index == "?" for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        rows = [
            {"path": row.path, "index": row.index, "worktree": row.worktree, "old_path": row.old_path}
            for row in self.rows
        ]
        tensors = {
            kind: {
                path: {"summary": item.summary(), "tensors": [[c.status, c.name] for c in item.tensors]}
                for path, item in found.items()
            }
            for kind, found in (("staged", self.staged), ("unstaged", self.unstaged))
        }
        conflicts = {path: [item.name for item in found] for path, found in self.conflicts.items()}
        return {
            "branch": self.branch,
            "rows": rows,
            "operation": self.operation,
            "conflicts": conflicts,
            **tensors,
        }


@dataclass(frozen=True)
class HeadMove:
    """HEAD after a command.

    Attributes:
        before: the commit before it; None without any.
        after: the commit now.
        branch: the branch that is checked out; "" if none is.
        operation: the operation that goes on ("merge", "rebase", ...), or "".
        conflicts: path -> tensors in conflict that have no answer; none of a file that is no checkpoint.
        checkpoints: path -> changes from ``before`` to ``after``.
    """

    before: str | None
    after: str | None
    branch: str
    operation: str
    conflicts: dict[str, list[str]]
    checkpoints: dict[str, Changes]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = {path: [[c.status, c.name] for c in item.tensors] for path, item in self.checkpoints.items()}
        return {
            "before": self.before,
            "after": self.after,
            "branch": self.branch,
            "operation": self.operation,
            "conflicts": self.conflicts,
            "checkpoints": found,
        }


def since(session: Session, before: str | None) -> HeadMove:
    """Return what became of HEAD since it was ``before``."""
    repo = session.repo
    after = repo.head()
    trees = [repo.tree_of(oid) if oid else None for oid in (before, after)]
    found = version_changes.between(session, trees[0], trees[1]) if trees[1] and before != after else {}
    open_tensors = resolving.conflicts(session) if session.index.conflicts else {}
    conflicts = {
        path: [one.name for one in answers.unanswered(session, open_tensors.get(path, []))]
        for path in repo.unmerged()
    }
    branch = "" if repo.is_detached else repo.branch
    return HeadMove(before, after, branch, in_progress.current(repo).name, conflicts, found)


def is_untouched(session: Session, found: dict[str, Found]) -> bool:
    """Return whether all checkpoints are as in HEAD, with ``found`` the files."""
    if any(item.state is not State.SAME or item.pointer for item in found.values()):
        return False
    as_in_head = closures.ids(session.index) == closures.ids(session.head)
    return as_in_head and not session.index.conflicts and closures.head_holds(session)


def report(
    session: Session,
    paths: list[str],
    progress: Progress | None = None,
    found: dict[str, Found] | None = None,
) -> Report:
    """Return the state of ``paths`` (pathspecs), or of everything if there are none.

    ``found`` are the files of all checkpoints, if they were examined already.
    """
    found = worktree.refresh(session, progress) if found is None else found
    modified = {path: item for path, item in found.items() if item.state is State.MODIFIED}
    excluded = [f":(exclude,top){STORES}", *(f":(exclude,top,literal){path}" for path in modified)]
    pathspec = [*(paths or [":(top)"]), *excluded]
    with session.journal.reading():
        fields = session.repo.git().changes("status", "--porcelain=v2", "--branch", "-z", "--", *pathspec)
    result = Report(
        head_agrees=closures.head_holds(session), operation=in_progress.current(session.repo).name
    )
    _parse(fields, result)
    _add_modified(session, modified, result)
    _add_details(session, found, result)
    result.rows.sort(key=lambda row: (row.index == "?", row.path))
    conflicts = resolving.conflicts(session) if session.index.conflicts else {}
    return replace(
        result,
        conflicts={path: answers.unanswered(session, tensors) for path, tensors in conflicts.items()},
        pointers=[path for path, item in found.items() if item.pointer],
        plain=_plain(session, found),
        unfilled=[path for path, item in found.items() if item.state is State.UNFILLED],
    )


def _plain(session: Session, found: dict[str, Found]) -> list[str]:
    """Return the tracked files that are in the index as plain bytes; theta would store them otherwise."""
    changed = (session.index[path].oid for path, item in found.items() if item.state is not State.SAME)
    return coverage.plain(session) if any(session.manifest_or_none(oid) is None for oid in changed) else []


def _parse(fields: list[str], result: Report) -> None:
    rows = iter(fields)
    for row in rows:
        kind = row[:1]
        if kind == "#":
            _, key, value = row.split(" ", 2)
            result.branch[key] = value
        elif kind == "1":
            parts = row.split(" ", 8)
            result.rows.append(Row(parts[8], *_letters(parts[1])))
        elif kind == "2":
            parts = row.split(" ", 9)
            result.rows.append(Row(parts[9], *_letters(parts[1]), next(rows)))
        elif kind == "u":
            parts = row.split(" ", 10)
            result.rows.append(Row(parts[10], *_letters(parts[1])))
        elif kind in "?!":
            result.rows.append(Row(row[2:], kind, kind))


def _letters(pair: str) -> tuple[str, str]:
    letters = pair.replace(".", " ")
    return letters[0], letters[1]


def _add_modified(session: Session, modified: dict[str, Found], result: Report) -> None:
    if not modified:
        return
    head = session.repo.head()
    tree = session.repo.tree_of(head) if head else None
    for path in modified:
        old = tree.get(path) if tree is not None else None
        letter = "A" if old is None else " " if old.id == session.index[path].oid else "M"
        result.rows.append(Row(path, letter, "M"))


def _add_details(session: Session, found: dict[str, Found], result: Report) -> None:
    head = session.head if any(row.index in "MAR" for row in result.rows) else EMPTY
    for row in result.rows:
        entry = session.index.get(row.path)
        if entry is None or row.unmerged:
            continue
        if row.index in "MAR":
            old = head.oid(row.old_path or row.path)
            result.staged[row.path] = version_changes.changes_of(session, old, entry.oid)
        item = found.get(row.path)
        if row.worktree == "M" and item is not None and item.scan is not None:
            result.unstaged[row.path] = compare_with_file(session, entry.oid, item)
    if any(is_shard(path) for row in result.rows for path in (row.path, row.old_path) if path):
        _add_models(session, found, result)


def _add_models(session: Session, found: dict[str, Found], result: Report) -> None:
    """Give all files of a sharded model the changes of the whole model."""
    rows = [row for row in result.rows if not row.unmerged]
    staged = session.index.readable
    for item in version_changes.changed(session, session.head, staged).values():
        if isinstance(item, ModelChanges):
            kept = (row for row in rows if row.index in "MADR" and {row.path, row.old_path} & {*item.paths})
            result.staged.update({row.path: item for row in kept})
    for group in version_changes.groups(staged, staged):
        changed = {path: result.unstaged[path] for path in group.paths if path in result.unstaged}
        model = _unstaged_model(session, group, staged, found) if changed else None
        if model is not None:
            result.unstaged.update(dict.fromkeys(changed, model))


def _unstaged_model(
    session: Session, group: Group, staged: Checkpoints, found: dict[str, Found]
) -> ModelChanges | None:
    after: dict[str, Version] = {}
    for path in group.paths:
        item = found.get(path)
        if item is not None and item.scan is not None:
            after[path] = version_of_file(session, staged[path].oid, item)
        elif item is not None and item.state is not State.MISSING:
            after |= version_changes.versions(session, [path], staged)
    return version_changes.compare(group, version_changes.versions(session, group.paths, staged), after)


def compare_with_file(session: Session, oid: str, found: Found) -> Changes:
    """Return the changes from manifest ``oid`` to the scanned file ``found``."""
    before, after = session.version(oid), version_of_file(session, oid, found)
    if found.scan and found.scan.note and before is not None and before.format != after.format:
        return Changes((), False, 0, fault=f"no checkpoint any more: {found.scan.note}")
    return changes.compare(before, after)


def version_of_file(session: Session, oid: str, found: Found) -> Version:
    """Return the version in the scanned file ``found``.

    Its container is that of manifest ``oid`` if both have the same skeleton.
    """
    assert found.scan is not None
    manifest = session.manifest_or_none(oid)
    kept = skeleton_of(session, manifest)
    same = manifest is not None and kept == found.scan.skeleton
    return changes.of_scan(found.scan, manifest.skeleton if same and manifest else "worktree")
