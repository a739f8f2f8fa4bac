"""The differences between two versions: of each checkpoint, of sharded models, and the summary of a commit.

The shards of a model, such as ``model-00001-of-00003.safetensors``, are compared as one: a resharded model
has the same tensors in other files, and no tensor changes.  They have one stem and are in one directory.  A
model in a single file has the name without numbers, and so has its index (``model.safetensors.index.json``).
If two shards have different tensors of the same name, each file is compared as a checkpoint of its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from theta.git.object_values import Commit, Tree, differing
from theta.git.quoting import split_lines
from theta.git.repository import STORES
from theta.porcelain.workspace.checkpoints import EMPTY, Checkpoints, by_model
from theta.porcelain.workspace.session import Session
from theta.store import changes
from theta.store.changes import Changes, Version


@dataclass(frozen=True)
class ModelChanges(Changes):
    """The changes of a sharded model; ``before`` and ``after`` count its files, ``paths`` are all of them."""

    paths: tuple[str, ...] = ()
    before: int = 0
    after: int = 0

    def summary(self) -> str:
        """Return one line with the changes and the number of files."""
        text = super().summary()
        if self.before == self.after or self.created or self.removed:
            return f"{text} ({changes.counted(self.after or self.before, 'file')})"
        return f"{text} ({self.before} -> {self.after} files)"


@dataclass(frozen=True)
class Group:
    """A model with several files in two versions together; ``before`` and ``after`` are their paths."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of both versions."""
        return tuple(sorted({*self.before, *self.after}))


def groups(before: Iterable[str], after: Iterable[str]) -> list[Group]:
    """Return the models among the paths of two versions whose files are compared together."""
    old, new = by_model(before), by_model(after)
    found: list[Group] = []
    for name in sorted(old.keys() | new.keys()):
        sides = [_files(name, side.get(name, frozenset())) for side in (old, new)]
        if any(side is None for side in sides):
            continue
        group = Group(name, *(tuple(sorted(side or ())) for side in sides))
        if len(group.paths) > 1:
            found.append(group)
    return found


def _files(name: str, paths: frozenset[str]) -> frozenset[str] | None:
    """Return ``paths``; None when an unnumbered file is among shards, and the model is ambiguous."""
    return None if name in paths and len(paths) > 1 else paths


def joined(versions: Mapping[str, Version]) -> Version | None:
    """Merge the files (path -> version) into one version; None when two disagree or there are none."""
    values: dict[str, changes.ValueDigest] = {}
    for version in versions.values():
        for name, value in version.values.items():
            if values.setdefault(name, value).digest != value.digest:
                return None
    if not versions:
        return None
    container = "\n".join(f"{path} {versions[path].skeleton}" for path in sorted(versions))
    return Version(next(iter(versions.values())).format, container, values)


def compare(group: Group, before: Mapping[str, Version], after: Mapping[str, Version]) -> ModelChanges | None:
    """Return the changes of the model; None when its files cannot be joined."""
    old, new = joined(before), joined(after)
    if (before and old is None) or (after and new is None):
        return None
    found = changes.compare(old, new)
    ends = (found.created, found.removed)
    counts = (found.tensors, found.container, found.unchanged)
    return ModelChanges(*counts, *ends, group.paths, len(before), len(after))


def changed(
    session: Session, before: Checkpoints, after: Checkpoints, plain: Collection[str] = ()
) -> dict[str, Changes]:
    """Return path or name of a sharded model -> changes, for all that differ between two versions.

    ``plain`` are checkpoints of ``before`` whose files are plain bytes in the new version.
    """
    found: dict[str, Changes] = {}
    taken: set[str] = set()
    for group in groups(before, after):
        if all(before.oid(path) == after.oid(path) for path in group.paths):
            continue
        if not {*group.paths}.isdisjoint(plain):
            continue
        item = compare(group, versions(session, group.before, before), versions(session, group.after, after))
        if item is not None:
            found[group.name] = item
            taken.update(group.paths)
    for path in (before.keys() | after.keys()) - taken:
        if path in plain:
            found[path] = Changes((), False, 0, plain=True)
        elif before.oid(path) != after.oid(path):
            found[path] = changes_of(session, before.oid(path), after.oid(path))
    return dict(sorted(found.items()))


def plain_in(tree: Tree, before: Checkpoints, after: Checkpoints) -> set[str]:
    """Return the checkpoints of ``before`` that are plain files of ``tree``, which has those of ``after``."""
    return {path for path in before.keys() - after.keys() if (entry := tree.get(path)) and entry.is_file}


def changes_of(session: Session, before: str | None, after: str | None) -> Changes:
    """Return the changes from manifest ``before`` to ``after``, with a fault if one is malformed."""
    faults = filter(None, (session.malformed(oid) for oid in (after, before)))
    fault = next((f"malformed: {error}" for error in faults), "")
    found = changes.compare(session.version(before), session.version(after)) if not fault else None
    return Changes((), False, 0, fault=fault) if found is None else found


def versions(session: Session, paths: Iterable[str], side: Checkpoints) -> dict[str, Version]:
    """Return path -> version for those ``paths`` that are checkpoints in ``side``."""
    found = ((path, session.version(side.oid(path))) for path in paths)
    return {path: version for path, version in found if version is not None}


def paths_of(found: Mapping[str, Changes]) -> Iterator[str]:
    """Yield the paths of all files in a result of :func:`changed`."""
    for path, item in found.items():
        yield from item.paths if isinstance(item, ModelChanges) else (path,)
        if item.old_path:
            yield item.old_path


def between(session: Session, old: Tree | None, new: Tree) -> dict[str, Changes]:
    """Return path -> changes for each checkpoint or sharded model that differs between two trees."""
    before = session.of_tree(old) if old is not None else EMPTY
    after = session.of_tree(new)
    found = changed(session, before, after, plain_in(new, before, after))
    gone = {path for path, item in found.items() if item.removed and path in before}
    come = {path for path, item in found.items() if item.created and path in after}
    if old is not None and gone and come:
        for was, path in _renamed(session, old, new):
            if was in gone and path in come:
                del found[was]
                found[path] = replace(changes_of(session, before.oid(was), after.oid(path)), old_path=was)
    return found


def _renamed(session: Session, old: Tree, new: Tree) -> Iterator[tuple[str, str]]:
    """Return the old and the new path of each file that git detects as renamed, by its manifest."""
    args = ("-r", "-z", "--find-renames", "--diff-filter=R", "--name-status", old.id, new.id)
    fields = session.repo.git().changes("diff-tree", *args, "--", ":(top)", ":(exclude,top).theta")
    return zip(fields[1::3], fields[2::3], strict=True)


# -- the summary of a commit -------------------------------------------------------------


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
        plain = [path for path, item in self.checkpoints.items() if item.plain]
        more = {"malformed": faults, "renamed": renamed, "plain": plain}
        return body | {key: value for key, value in more.items() if value}


def of_new(session: Session, before: str | None) -> Summary | None:
    """Return the summary of HEAD; None when HEAD is still at ``before``."""
    fresh = session.again()
    head = fresh.repo.head()
    return None if head is None or head == before else summarize(fresh, head)


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
        found = {path: item for path, item in found.items() if named & {*paths_of({path: item})}}
    added = tuple(path for path, letter in letters.items() if letter == "A")
    files = len(letters.keys() - set(paths_of(found)))
    branch = "detached HEAD" if session.repo.is_detached else session.repo.branch
    subject = split_lines(commit.message.strip())[0] if commit.message.strip() else ""
    parents = len(commit.parents)
    return Summary(oid, *_author(commit), branch, subject, not parents, found, files, parents > 1, added)


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
        hidden = [f":(exclude,top,literal){path}" for path in paths_of(found.checkpoints)]
        what = ("--format=", "--shortstat", "--summary", found.commit, "--", ":(top)")
        lines += split_lines(git.compared("show", *what, ":(exclude,top).theta", *hidden).text)
    return lines


def moved(session: Session, old: str, new: str) -> list[str]:
    """Return the lines about a fast-forward: changes of checkpoints, and git's diffstat of other files."""
    found = between(session, session.repo.tree_of(old), session.repo.tree_of(new))
    hidden = [f":(exclude,top,literal){path}" for path in paths_of(found)]
    files = ("--", ":(top)", ":(exclude,top).theta", *hidden)
    told = split_lines(session.repo.git().compared("diff", "--stat", "--summary", old, new, *files).text)
    return [f" {item.told(path)}" for path, item in found.items()] + told
