"""What a git command may write into the worktree, told from its words and from git's state.

Git's command lines are not taken apart here: every word that names a commit counts as a commit that
comes, and where a command is unknown every branch and tag does.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pygit2
from pygit2.enums import FileMode

from theta.errors import NotHereYetError
from theta.git import state_files
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
"""Commands of git that write no file of a commit into the worktree."""

_DEFAULTS: Final = {
    "merge": ("@{u}", state_files.FETCH_HEAD),
    "pull": ("@{u}", state_files.FETCH_HEAD),
    "rebase": ("@{u}",),
    "stash": ("refs/stash",),
    "reset": ("HEAD",),
    **dict.fromkeys(("checkout", "switch", "cherry-pick", "revert"), ()),
}
"""What comes where no word names a commit."""

_TAKE_VALUE: Final = frozenset(("-c", "-C", "--git-dir", "--work-tree", "--namespace", "--config-env"))
_TODO: Final = (state_files.REBASE_TODO, state_files.REBASE_DONE, state_files.SEQUENCER_TODO)
_HEADS: Final = (
    f"{state_files.REBASE_MERGE}/orig-head",
    f"{state_files.REBASE_APPLY}/orig-head",
    state_files.SEQUENCER_HEAD,
    state_files.ORIG_HEAD,
)
_OID: Final = re.compile(r"\b[0-9a-f]{7,64}\b")


@dataclass(frozen=True)
class Change:
    """A step from one tree (or from nothing) to another; ``guessed`` where no word asked for it."""

    before: pygit2.Tree | None
    after: pygit2.Tree
    guessed: bool = False

    def written(self) -> Iterator[tuple[str, str]]:
        """The files that the step writes: (path, object id)."""
        return _differing(self.before, self.after, "")

    def may_move(self, head: pygit2.Tree) -> bool:
        """Whether git may write elsewhere: a folder is gone on one side, and a merge follows it on the other.

        (merge-ort's directory renames.)
        """
        if self.before is None or self.before.id == head.id:
            return False
        gone_here, gone_there = _gone(self.before, head, ""), _gone(self.before, self.after, "")
        return any(map(self.after.__contains__, gone_here)) or any(map(head.__contains__, gone_there))


def _gone(before: pygit2.Tree, after: pygit2.Tree, prefix: str) -> Iterator[str]:
    """The folders of ``before`` that ``after`` has not."""
    for entry in before:
        name = entry.name or ""
        new = _entry(after, name)
        if not isinstance(entry, pygit2.Tree) or prefix + name == STORES or (new and new.id == entry.id):
            continue
        if isinstance(new, pygit2.Tree):
            yield from _gone(entry, new, f"{prefix}{name}/")
        else:
            yield prefix + name


def _differing(before: pygit2.Tree | None, after: pygit2.Tree, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in after:
        name = entry.name or ""
        path = prefix + name
        old = _entry(before, name)
        if path == STORES or (old is not None and old.id == entry.id and old.filemode == entry.filemode):
            continue
        if isinstance(entry, pygit2.Tree):
            yield from _differing(old if isinstance(old, pygit2.Tree) else None, entry, path + "/")
        elif entry.filemode != FileMode.COMMIT or not isinstance(old, pygit2.Object):
            yield path, str(entry.id)


def _entry(tree: pygit2.Tree | None, name: str) -> pygit2.Object | None:
    return tree[name] if tree is not None and name in tree else None


def command(args: Sequence[str]) -> str:
    """The name of the command in ``git ARGS``, behind git's own options."""
    skip = False
    for arg in args:
        if not (skip or arg.startswith("-")):
            return arg
        skip = not skip and arg in _TAKE_VALUE
    return ""


def changes(repo: Repository, args: Sequence[str]) -> list[Change]:
    """The steps that ``git ARGS`` may make, and perhaps more."""
    name = command(args)
    if not name or name in _READS or repo.is_bare or _writes_none(name, args):
        return []
    found = _Incoming(repo, name)
    words = [*_alias(repo, name), *args]
    commits = list(found.named(words)) or list(found.named(_DEFAULTS.get(name, ())))
    steps = [step for commit in dict.fromkeys(commits) for step in found.steps(commit)]
    if name in ("cherry-pick", "revert"):
        steps = found.picked(words)
    if name not in _DEFAULTS:
        steps += found.tips()
    return steps + found.pending("--abort" in args)


def _writes_none(name: str, args: Sequence[str]) -> bool:
    """Whether a form of ``git NAME`` leaves files alone that others write."""
    if name == "stash":
        return not {"pop", "apply", "branch"} & set(args)
    return name == "reset" and not any(arg.startswith(("--h", "--k", "--me")) for arg in args)


def _alias(repo: Repository, name: str) -> list[str]:
    config = repo.raw.config
    try:
        return shlex.split(config[f"alias.{name}"] or "") if f"alias.{name}" in config else []
    except ValueError:  # no alias, or none that git could take apart
        return []


class _Incoming:
    """The changes that the command ``name`` makes of commits."""

    def __init__(self, repo: Repository, name: str) -> None:
        self._repo = repo
        self._raw = repo.raw
        self._name = name
        head = repo.head()
        self._head = self._commit(head) if head else None

    def _commit(self, name: str) -> pygit2.Commit | None:
        try:
            return self._raw.revparse_single(name).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def _tree(self, commit: pygit2.Commit) -> pygit2.Tree:
        return self._repo.whole_tree(str(commit.tree_id))

    def _expect(self, commits: Iterable[pygit2.Commit | None]) -> None:
        """The trees of ``commits`` are going to be read."""
        self._repo.promised.expect(str(commit.tree_id) for commit in commits if commit is not None)

    def named(self, words: Iterable[str]) -> Iterator[pygit2.Commit]:
        """The commits that ``words`` name, also behind ``=``, at both ends of a range, and at a remote."""
        for word in words:
            for part in (*re.split(r"\.\.\.?", word), word.partition("=")[2]):
                spellings = ["@{-1}"] if part == "-" else [part.lstrip("^"), *self._at_remotes(part)]
                found = (self._commit(spelling) for spelling in spellings if spelling)
                yield from (commit for commit in found if commit is not None)

    def _at_remotes(self, name: str) -> list[str]:
        places = [f"refs/remotes/{remote}/{name}" for remote in self._raw.remotes.names() if remote]
        return [place for place in places if place in self._raw.references] if _is_plain(name) else []

    def steps(self, commit: pygit2.Commit) -> Iterator[Change]:
        """What comes where the command is given ``commit``."""
        if self._name in ("merge", "pull"):
            yield from (Change(base, self._tree(commit)) for base in self._bases(commit))
        elif self._name == "reset":
            yield Change(None, self._tree(commit))
        else:
            yield Change(self._tree(self._head) if self._head else None, self._tree(commit))
        if self._name == "stash":
            yield from self._stashed(commit)
        if self._name in ("rebase", "pull") and self._head is not None:
            yield from self._commits("--no-merges", f"{commit.id}...{self._head.id}")

    def _bases(self, commit: pygit2.Commit) -> list[pygit2.Tree | None]:
        if self._head is None:
            return [None]
        done = self._repo.git().run("merge-base", "--all", str(self._head.id), str(commit.id), check=False)
        return [self._repo.tree_of(base) for base in done.text.split()] or [None]

    def _stashed(self, commit: pygit2.Commit) -> Iterator[Change]:
        """A stash keeps files that were untracked in a third parent."""
        trees = self._parents(commit)
        yield from (Change(None, tree) for tree in trees[2:])
        yield from (Change(tree, self._tree(commit)) for tree in trees[:1])
        if self._head is not None:
            yield from (Change(self._tree(self._head), tree) for tree in trees[:1])

    def picked(self, words: Sequence[str]) -> list[Change]:
        """What the commits bring that ``words`` name for a cherry-pick or a revert."""
        revisions = [word for word in words if not word.startswith("-") and any(self.named([word]))]
        return list(self._commits("--no-walk", *revisions)) if revisions else []

    def _commits(self, *args: str) -> Iterator[Change]:
        done = self._repo.git().run("rev-list", *args, "--", check=False)
        commits = [self._commit(oid) for oid in done.text.split()]
        firsts = (self._commit(str(oid)) for one in commits if one for oid in one.parent_ids)
        self._expect([*commits, *firsts])
        for oid in done.text.split():
            yield from self._own(oid)

    def _own(self, oid: str) -> Iterator[Change]:
        """What commit ``oid`` changed, or, for a revert, what undoing it changes."""
        commit = self._commit(oid)
        if commit is None:
            return
        parents: list[pygit2.Tree | None] = [*self._parents(commit)]
        for before in parents or [None]:
            if self._name != "revert":
                yield Change(before, self._tree(commit))
            elif before is not None:
                yield Change(self._tree(commit), before)

    def _parents(self, commit: pygit2.Commit) -> list[pygit2.Tree]:
        """The trees of those parents of ``commit`` that are here."""
        found = (self._commit(str(oid)) for oid in commit.parent_ids)
        return [self._tree(parent) for parent in found if parent is not None]

    def pending(self, back: bool) -> list[Change]:
        """What is left of a sequence that stopped, and, where it goes ``back``, what it began from."""
        todo = [oid for name in _TODO for oid in _OID.findall(_text(self._repo.gitdir / name))]
        steps = [step for oid in dict.fromkeys(todo) for step in self._own(oid)]
        heads = self.named(oid for name in _HEADS for oid in _OID.findall(_text(self._repo.gitdir / name)))
        return steps + [Change(None, self._tree(head)) for head in heads if back]

    def tips(self) -> Iterator[Change]:
        """All that any branch or tag has and HEAD has not."""
        found = [commit for commit in map(self._commit, self._raw.references) if commit is not None]
        self._expect(found)
        before = self._tree(self._head) if self._head else None
        with contextlib.suppress(NotHereYetError):  # what is only guessed stops nobody
            for commit in found:
                yield Change(before, self._tree(commit), guessed=True)


def _is_plain(name: str) -> bool:
    return bool(name) and pygit2.reference_is_valid_name(f"refs/heads/{name}")


def _text(place: Path) -> str:
    return place.read_text(errors="replace") if place.is_file() else ""
