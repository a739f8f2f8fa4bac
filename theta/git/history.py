"""Questions about the graph of commits, and new commits in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import pygit2
from pygit2.enums import FileMode, ObjectType, SortMode

from theta.git.objects import MODE_TREE, Commit, Tree
from theta.git.repository import Repository

_NOBODY: Final = pygit2.Signature("theta", "theta@localhost", 0, 0)
"""The author of commits that no ref names."""


def merge_base(repo: Repository, ours: str, theirs: str) -> str | None:
    """The best common ancestor that libgit2 finds first, if there is one."""
    found = repo.raw.merge_base(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs))
    return str(found) if found else None


def merge_bases(repo: Repository, ours: str, theirs: str) -> list[str]:
    """The best common ancestors: none, one, or several where histories cross."""
    known = repo.bases.get((ours, theirs))
    if known is None:
        done = repo.git().run("merge-base", "--all", ours, theirs, check=False)
        known = done.text.split()
        if done.code in (0, 1):  # of others git could not tell
            repo.bases[ours, theirs] = known
    return list(known)


def octopus_base(repo: Repository, heads: Sequence[str]) -> str | None:
    """The best common ancestor of all ``heads``."""
    done = repo.git().run("merge-base", "--octopus", *heads, check=False)
    return done.text.strip() or None


def independent(repo: Repository, heads: Sequence[str]) -> list[str]:
    """``heads`` without those that others reach, in their order."""
    kept = repo.git().run("merge-base", "--independent", *heads).text.split()
    return [head for at, head in enumerate(heads) if head in kept and head not in heads[:at]]


def descends(repo: Repository, commit: str, ancestor: str) -> bool:
    """Whether ``commit`` comes after ``ancestor``."""
    return repo.raw.descendant_of(pygit2.Oid(hex=commit), pygit2.Oid(hex=ancestor))


def oldest_first(repo: Repository, head: str, wanted: Collection[str]) -> list[Commit]:
    """Those of ``wanted`` that ``head`` reaches, parents before children."""
    walker = repo.raw.walk(pygit2.Oid(hex=head), SortMode.TOPOLOGICAL | SortMode.REVERSE)
    for oid in wanted:
        for parent in repo.commit(oid).parents:
            if parent not in wanted:
                walker.hide(pygit2.Oid(hex=parent))
    return [repo.commit(oid) for oid in (str(commit.id) for commit in walker) if oid in wanted]


def write_commit(repo: Repository, data: bytes) -> str:
    """Write the commit object ``data``; return its id."""
    return str(repo.raw.odb.write(ObjectType.COMMIT, data))


def unnamed_commit(repo: Repository, tree: str, parents: Sequence[str]) -> str:
    """A commit of nobody that no ref names: git merges commits only."""
    oids = [pygit2.Oid(hex=parent) for parent in parents]
    return str(repo.raw.create_commit(None, _NOBODY, _NOBODY, "", pygit2.Oid(hex=tree), oids))


def with_directory(repo: Repository, tree: Tree, name: str, directory: str | None) -> str:
    """Write ``tree`` with tree ``directory`` as its ``name`` (None: without it); return its id."""
    builder = repo.raw.TreeBuilder(pygit2.Oid(hex=tree.id))
    if directory is not None:
        builder.insert(name, pygit2.Oid(hex=directory), MODE_TREE)
    elif builder.get(name) is not None:
        builder.remove(name)
    return str(builder.write())


def edit_tree(repo: Repository, tree: Tree, changes: Mapping[str, tuple[str, int] | None]) -> str:
    """Write ``tree`` with other files at the paths of ``changes``: id and mode, None for no file.

    Mode 0 is that of the file that is there, or of a plain one.
    """
    index = pygit2.Index()
    index.read_tree(repo.raw[tree.id].peel(pygit2.Tree))
    for path, change in changes.items():
        if change is None:
            if path in index:
                index.remove(path)
            continue
        oid, mode = change
        kept = index[path].mode if path in index else FileMode.BLOB
        index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=oid), FileMode(mode) if mode else kept))
    return str(index.write_tree(repo.raw))
