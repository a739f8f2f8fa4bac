"""Predicting the files that a git command may write, from its arguments and git's state.

Command lines are not parsed completely: every word that names a commit counts as one to be checked out or
applied, and for an unknown command every branch and tag does.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from theta.errors import NotHereYetError
from theta.git import options, state_files
from theta.git.commit_graph import merge_bases
from theta.git.object_values import MODE_COMMIT, Commit, Tree
from theta.git.repository import STORES, Repository

# fmt: off
_READS: Final = frozenset(
    (
        "add", "archive", "blame", "branch", "bundle", "cat-file", "clean", "clone", "commit", "config",
        "count-objects", "describe", "diff", "diff-files", "diff-index", "diff-tree", "fetch",
        "for-each-ref", "format-patch", "fsck", "gc", "grep", "hash-object", "help", "init", "log",
        "ls-files", "ls-remote", "ls-tree", "merge-base", "mv", "notes", "push", "reflog", "remote",
        "repack", "rev-list", "rev-parse", "rm", "shortlog", "show", "show-ref", "sparse-checkout",
        "status", "tag", "update-index", "update-ref", "version", "write-tree",
    )
)
# fmt: on
"""Git commands that write no file of a commit to the worktree."""

_DEFAULTS: Final = {
    "merge": ("@{u}", state_files.FETCH_HEAD),
    "pull": ("@{u}", state_files.FETCH_HEAD),
    "rebase": ("@{u}",),
    "stash": ("refs/stash",),
    "reset": ("HEAD",),
    **dict.fromkeys(("checkout", "switch", "cherry-pick", "revert"), ()),
}
"""Command -> the revisions it uses if no word names a commit."""

_TODO: Final = (state_files.REBASE_TODO, state_files.REBASE_DONE, state_files.SEQUENCER_TODO)
_HEADS: Final = (
    f"{state_files.REBASE_MERGE}/orig-head",
    f"{state_files.REBASE_APPLY}/orig-head",
    state_files.SEQUENCER_HEAD,
    state_files.ORIG_HEAD,
)
_OID: Final = re.compile(r"\b[0-9a-f]{7,64}\b")


@dataclass(frozen=True)
class TreeChange:
    """A step from one tree (None for an empty one) to another; ``guessed`` if no word names it."""

    before: Tree | None
    after: Tree
    guessed: bool = False

    def written(self) -> Iterator[tuple[str, str]]:
        """Yield (path, object id) of the files that the step writes."""
        return _differing(self.before, self.after, "")

    def may_move(self, head: Tree) -> bool:
        """Return whether git may write files at other paths, by merge-ort's directory renames.

        That is possible if one side deleted a directory that the other side still has.
        """
        if self.before is None or self.before.id == head.id:
            return False
        gone_here, gone_there = _gone(self.before, head, ""), _gone(self.before, self.after, "")
        return any(map(self.after.__contains__, gone_here)) or any(map(head.__contains__, gone_there))


@dataclass(frozen=True)
class AppliedChanges:
    """Changes that a command applies one after the other.

    Attributes:
        onto: the commit that the first is applied to.
        changes: the commits before and after each change.
    """

    onto: str
    changes: Sequence[tuple[str, str]]


def _gone(before: Tree, after: Tree, prefix: str) -> Iterator[str]:
    """Yield the directories of ``before`` that ``after`` does not have."""
    for entry in before:
        name = entry.name
        new = after.get(name)
        if entry.tree is None or prefix + name == STORES or (new and new.id == entry.id):
            continue
        if new is not None and new.tree is not None:
            yield from _gone(entry.tree, new.tree, f"{prefix}{name}/")
        else:
            yield prefix + name


def _differing(before: Tree | None, after: Tree, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in after:
        name = entry.name
        path = prefix + name
        old = before.get(name) if before is not None else None
        if path == STORES or (old is not None and old.id == entry.id and old.mode == entry.mode):
            continue
        if entry.tree is not None:
            yield from _differing(old.tree if old is not None else None, entry.tree, path + "/")
        elif entry.mode != MODE_COMMIT or old is None:
            yield path, entry.id


def command(args: Sequence[str]) -> str:
    """Return the name of the command in ``git ARGS``, after git's own options."""
    return next(iter(args[_before(args) :]), "")


def has(repo: Repository, args: Sequence[str], *names: str) -> bool:
    """Return whether ``git ARGS`` has one of the options ``names``, which are long names if they have one."""
    name, rest = command(args), args[_before(args) + 1 :]
    if (
        name not in _DEFAULTS or name == "stash"
    ):  # reading the options would run an alias, and stash lists none
        return not {*names}.isdisjoint(rest)
    line = options.read(repo.git(), name, rest)
    return any(map(line.has, names)) if line.known else not {*names}.isdisjoint(rest)


def _before(args: Sequence[str]) -> int:
    """Return the number of ``args`` before the command: git's own options."""
    skip = False
    for number, arg in enumerate(args):
        if not (skip or arg.startswith("-")):
            return number
        skip = not skip and arg in options.BEFORE_COMMAND
    return len(args)


def changes(repo: Repository, args: Sequence[str]) -> list[TreeChange]:
    """Return the steps that ``git ARGS`` may make, and perhaps more."""
    name = command(args)
    if not name or name in _READS or repo.is_bare or _writes_none(repo, name, args):
        return []
    found = _Incoming(repo, name)
    words = [*_alias(repo, name), *args]
    commits = list(found.named(words)) or list(found.named(_DEFAULTS.get(name, ())))
    steps = [step for commit in dict.fromkeys(commits) for step in found.steps(commit)]
    if name in ("cherry-pick", "revert"):
        steps = found.picked(words)
    if name not in _DEFAULTS:
        steps += found.tips()
    return steps + found.pending(has(repo, args, "--abort"))


def applied(repo: Repository, args: Sequence[str]) -> list[AppliedChanges]:
    """Return what a cherry-pick or a revert applies to HEAD, and a rebase to any commit that it may name.

    A rebase counts as one change.
    """
    name, head = command(args), repo.head()
    found, words = _Incoming(repo, name), [*_alias(repo, name), *args]
    if head is None:
        return []
    if name in ("cherry-pick", "revert"):
        line = options.read(repo.git(), name, args[_before(args) + 1 :])
        commits = line.operands if line.known else words
        return [AppliedChanges(head, found.picked_pairs(commits, _mainline(line)))]
    tips = list(found.named(words)) or list(found.named(_DEFAULTS.get(name, ())))
    pairs = [(one.id, base) for one in tips for base in merge_bases(repo, one.id, head)[:1]]
    return [AppliedChanges(one, [(base, head)]) for one, base in pairs]


def _mainline(line: options.Arguments) -> int:
    """Return which parent a picked merge is compared with; the first one unless the line says so."""
    found = line.value("--mainline")
    return int(found) if found is not None and re.fullmatch("[0-9]{1,9}", found) else 1


def _writes_none(repo: Repository, name: str, args: Sequence[str]) -> bool:
    """Return whether this form of ``git stash`` or ``git reset`` writes no files."""
    if name == "stash":
        return not {"pop", "apply", "branch"} & set(args)
    return name == "reset" and not has(repo, args, "--hard", "--keep", "--merge")


def _alias(repo: Repository, name: str) -> list[str]:
    try:
        return shlex.split(repo.config.get(f"alias.{name}") or "")
    except ValueError:  # no alias that git could parse
        return []


class _Incoming:
    """Computes the steps that the command ``name`` makes for given commits."""

    def __init__(self, repo: Repository, name: str) -> None:
        self._repo = repo
        self._name = name
        head = repo.head()
        self._head = self._commit(head) if head else None

    def _commit(self, name: str) -> Commit | None:
        oid = self._repo.commit_of(name)
        return self._repo.commit_here(oid) if oid is not None else None

    def _tree(self, commit: Commit) -> Tree:
        return self._repo.whole_tree(commit.tree)

    def _expect(self, commits: Iterable[Commit | None]) -> None:
        """Announce that the trees of ``commits`` will be read."""
        self._repo.promised.expect(commit.tree for commit in commits if commit is not None)

    def named(self, words: Iterable[str]) -> Iterator[Commit]:
        """Yield the commits that ``words`` name, also after ``=``, as ends of a range, and at a remote.

        A number is an entry of the stash for its command.
        """
        for word in map(self._entry, words):
            for part in (*re.split(r"\.\.\.?", word), word.partition("=")[2]):
                spellings = ["@{-1}"] if part == "-" else [part.lstrip("^"), *self._at_remotes(part)]
                found = (self._commit(spelling) for spelling in spellings if spelling)
                yield from (commit for commit in found if commit is not None)

    def _entry(self, word: str) -> str:
        return f"refs/stash@{{{word}}}" if self._name == "stash" and word.isdecimal() else word

    def _at_remotes(self, name: str) -> list[str]:
        places = [f"refs/remotes/{remote}/{name}" for remote in self._repo.refs.remotes()]
        return [place for place in places if place in self._repo.refs]

    def steps(self, commit: Commit) -> Iterator[TreeChange]:
        """Yield the steps of the command for the argument ``commit``."""
        if self._name in ("merge", "pull"):
            yield from (TreeChange(base, self._tree(commit)) for base in self._bases(commit))
        elif self._name == "reset":
            yield TreeChange(None, self._tree(commit))
        else:
            yield TreeChange(self._tree(self._head) if self._head else None, self._tree(commit))
        if self._name == "stash":
            yield from self._stashed(commit)
        if self._name in ("rebase", "pull") and self._head is not None:
            yield from self._commits("--no-merges", f"{commit.id}...{self._head.id}")

    def _bases(self, commit: Commit) -> list[Tree | None]:
        if self._head is None:
            return [None]
        bases = merge_bases(self._repo, self._head.id, commit.id)
        self._expect([commit, *map(self._commit, bases)])
        return [self._repo.tree_of(base) for base in bases] or [None]

    def _stashed(self, commit: Commit) -> Iterator[TreeChange]:
        """Yield the steps of applying a stash; its third parent has the untracked files."""
        trees = self._parents(commit)
        yield from (TreeChange(None, tree) for tree in trees[2:])
        yield from (TreeChange(tree, self._tree(commit)) for tree in trees[:1])
        if self._head is not None:
            yield from (TreeChange(self._tree(self._head), tree) for tree in trees[:1])

    def picked(self, words: Sequence[str]) -> list[TreeChange]:
        """Return the steps of a cherry-pick or revert of the commits that ``words`` name."""
        return [step for oid in self._picked(words) for step in self._own(oid)]

    def picked_pairs(self, words: Sequence[str], mainline: int) -> list[tuple[str, str]]:
        """Return the commits before and after each change of a cherry-pick or revert, in git's order.

        Commits without the parent that counts, as at the end of a shallow history, are left out.
        """
        commits = filter(None, map(self._commit, self._picked(words)))
        pairs = [(oid, one.id) for one in commits for oid in one.parents[mainline - 1 : mainline]]
        here = [(before, after) for before, after in pairs if self._commit(before) is not None]
        return [(after, before) if self._name == "revert" else (before, after) for before, after in here]

    def _picked(self, words: Sequence[str]) -> list[str]:
        """Return the commits that ``words`` name, in the order in which git applies them."""
        revisions = [word for word in words if not word.startswith("-") and any(self.named([word]))]
        is_range = any(".." in word or word.startswith("^") for word in revisions)
        order = ["--reverse"] if is_range and self._name == "cherry-pick" else []
        return self._listed("--no-walk=unsorted", *order, *revisions) if revisions else []

    def _commits(self, *args: str) -> Iterator[TreeChange]:
        for oid in self._listed(*args):
            yield from self._own(oid)

    def _listed(self, *args: str) -> list[str]:
        """Return the commits that git lists, and announce that their trees and their parents' are read."""
        oids = self._repo.git().run("rev-list", *args, "--", check=False).text.split()
        commits = [self._commit(oid) for oid in oids]
        firsts = (self._commit(oid) for one in commits if one for oid in one.parents)
        self._expect([*commits, *firsts])
        return oids

    def _own(self, oid: str) -> Iterator[TreeChange]:
        """Yield the steps from the parents to commit ``oid``, or back for a revert."""
        commit = self._commit(oid)
        if commit is None:
            return
        parents: list[Tree | None] = [*self._parents(commit)]
        for before in parents or [None]:
            if self._name != "revert":
                yield TreeChange(before, self._tree(commit))
            elif before is not None:
                yield TreeChange(self._tree(commit), before)

    def _parents(self, commit: Commit) -> list[Tree]:
        """Return the trees of those parents of ``commit`` that are in the repository."""
        found = (self._commit(oid) for oid in commit.parents)
        return [self._tree(parent) for parent in found if parent is not None]

    def pending(self, back: bool) -> list[TreeChange]:
        """Return the steps left of a stopped sequence, and if it goes ``back``, to where it started."""
        steps = [step for oid in dict.fromkeys(self._noted(_TODO)) for step in self._own(oid)]
        heads = self.named(self._noted(_HEADS))
        return steps + [TreeChange(None, self._tree(head)) for head in heads if back]

    def _noted(self, names: Iterable[str]) -> list[str]:
        """Return the commit ids in the state files ``names``."""
        return [oid for name in names for oid in _OID.findall(state_files.content(self._repo.gitdir, name))]

    def tips(self) -> Iterator[TreeChange]:
        """Yield guessed steps from HEAD to every branch and tag."""
        found = [commit for commit in map(self._commit, self._repo.refs) if commit is not None]
        self._expect(found)
        before = self._tree(self._head) if self._head else None
        with contextlib.suppress(NotHereYetError):  # a guess must not stop the command
            for commit in found:
                yield TreeChange(before, self._tree(commit), guessed=True)
