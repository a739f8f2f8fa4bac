"""The commit graph: ancestors, published commits, and writing commits and trees."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import pygit2
from pygit2.enums import FileMode, ObjectType, SortMode

from theta.errors import DiskError, UnsupportedRepositoryError
from theta.git.index import has_intended, opened
from theta.git.object_values import MODE_TREE, Commit, Tree
from theta.git.repository import Repository
from theta.git.state_files import FETCH_HEAD

_NOBODY: Final = pygit2.Signature("theta", "theta@localhost", 0, 0)
"""The author of commits that no ref names."""


def merge_base(repo: Repository, ours: str, theirs: str) -> str | None:
    """Return the first merge base that libgit2 finds; None when there is none."""
    found = repo.raw.merge_base(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs))
    return str(found) if found else None


def merge_bases(repo: Repository, ours: str, theirs: str) -> list[str]:
    """Return all merge bases; there are several if histories criss-cross."""
    known = repo.bases.get((ours, theirs))
    if known is None and (known := _only_base(repo, ours, theirs)) is not None:
        repo.bases[ours, theirs] = known
    if known is None:
        done = repo.git().run("merge-base", "--all", ours, theirs, check=False)
        known = done.text.split()
        if done.code in (0, 1):  # other codes are errors
            repo.bases[ours, theirs] = known
    return list(known)


_FEW: Final = 1000
"""Up to this number of commits, walking them here is faster than starting git."""


def _only_base(repo: Repository, ours: str, theirs: str) -> list[str] | None:
    """Return the merge bases if there are few commits and clearly at most one; None to let git decide."""
    try:
        base = merge_base(repo, ours, theirs)
        if base is None or base in (ours, theirs):
            return [base] if base else None
        sides = [_since(repo, base, head) for head in (ours, theirs)]
    except (pygit2.GitError, KeyError, ValueError):
        return None
    few = all(len(side) <= _FEW for side in sides)
    return [base] if few and sides[0].isdisjoint(sides[1]) else None


def _since(repo: Repository, base: str, head: str) -> set[str]:
    """Return the commits that ``head`` reaches and ``base`` does not, at most ``_FEW`` + 1."""
    walker = repo.raw.walk(pygit2.Oid(hex=head))
    walker.hide(pygit2.Oid(hex=base))
    return {str(commit.id) for commit in islice(walker, _FEW + 1)}


def octopus_base(repo: Repository, heads: Sequence[str]) -> str | None:
    """Return the merge base of all ``heads``; None when there is none."""
    if len(heads) == 2:
        return next(iter(merge_bases(repo, *heads)), None)
    done = repo.git().run("merge-base", "--octopus", *heads, check=False)
    return done.text.strip() or None


def independent(repo: Repository, heads: Sequence[str]) -> list[str]:
    """Return ``heads`` in their order, without those that other heads reach."""
    if len(heads) == 2 and (base := merge_bases(repo, *heads)[:1]):
        return [head for head in dict.fromkeys(heads) if [head] != base] or [heads[0]]
    kept = repo.git().run("merge-base", "--independent", *heads).text.split()
    return [head for at, head in enumerate(heads) if head in kept and head not in heads[:at]]


def descends(repo: Repository, commit: str, ancestor: str) -> bool:
    """Return whether ``commit`` is a descendant of ``ancestor``."""
    return repo.raw.descendant_of(pygit2.Oid(hex=commit), pygit2.Oid(hex=ancestor))


def oldest_first(repo: Repository, head: str, wanted: Collection[str]) -> list[Commit]:
    """Return those of ``wanted`` that ``head`` reaches, parents before children."""
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
    """Write a commit that no ref names, because git merges commits only; return its id."""
    oids = [pygit2.Oid(hex=parent) for parent in parents]
    return str(repo.raw.create_commit(None, _NOBODY, _NOBODY, "", pygit2.Oid(hex=tree), oids))


def with_directory(repo: Repository, tree: Tree, name: str, directory: str | None) -> str:
    """Write ``tree`` with ``directory`` (a tree id, None to remove it) as ``name``; return its id."""
    builder = repo.raw.TreeBuilder(pygit2.Oid(hex=tree.id))
    if directory is not None:
        builder.insert(name, pygit2.Oid(hex=directory), MODE_TREE)
    elif builder.get(name) is not None:
        builder.remove(name)
    return str(builder.write())


def index_tree(repo: Repository) -> str | None:
    """Write the tree of the index; None when there are conflicts, or libgit2 cannot write it."""
    try:
        index = opened(repo.index_path)
        return None if has_intended(index) else str(index.write_tree(repo.raw))
    except (pygit2.GitError, UnsupportedRepositoryError, DiskError):
        return None


def edit_tree(repo: Repository, tree: Tree, changes: Mapping[str, tuple[str, int] | None]) -> str:
    """Write ``tree`` with ``changes``, path -> (id, mode) or None to remove a file; return its id.

    Mode 0 keeps the mode of an existing file, and is that of a plain file otherwise.
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


# -- published commits -----------------------------------------------------------------

_OURS: Final = ("refs/stash", "refs/theta/*", "refs/rewritten/*")
"""Refs of this clone only, which do not show that a commit is published."""


def unpublished(repo: Repository, commits: Iterable[str]) -> set[str]:
    """Return those of ``commits`` that only the current branch (or a detached HEAD) of this worktree reaches.

    Somebody may have a commit that a remote-tracking ref, a tag, another branch, the HEAD of another
    worktree or FETCH_HEAD reaches, or that has a note.
    """
    wanted = set(commits)
    if not wanted:
        return set()
    own = "" if repo.raw.head_is_detached else str(repo.raw.lookup_reference("HEAD").target)
    excluded = [f"--exclude={name}" for name in (own, *_OURS) if name]
    asked = [*wanted, *(f"^{oid}" for oid in _elsewhere(repo))]
    command = ["rev-list", "--stdin", "--not", *excluded, "--glob=refs/*"]
    found = repo.git().run(*command, stdin="".join(f"{row}\n" for row in asked).encode()).text.split()
    return {oid for oid in wanted & set(found) if not _has_note(repo, oid)}


def _elsewhere(repo: Repository) -> set[str]:
    """Return the commits that other worktrees have checked out, and those of the last fetch."""
    found = {_head(repo, gitdir) for gitdir in (repo.commondir, *repo.commondir.glob("worktrees/*"))}
    for gitdir in (repo.gitdir, repo.commondir):
        with contextlib.suppress(OSError):
            found |= {line.split("\t")[0] for line in (gitdir / FETCH_HEAD).read_text().splitlines()}
    return {oid for oid in found if len(oid) == 40 and repo.commit_here(oid) is not None}


def _head(repo: Repository, gitdir: Path) -> str:
    """Return the commit that another worktree has checked out; "" for this worktree or without one."""
    if gitdir == repo.gitdir:
        return ""
    try:
        text = (gitdir / "HEAD").read_text().strip()
        name = text.removeprefix("ref: ")
        return text if name == text else str(repo.raw.lookup_reference(name).resolve().target)
    except (OSError, KeyError, ValueError, pygit2.GitError):
        return ""


def _has_note(repo: Repository, oid: str) -> bool:
    names = [name for name in repo.raw.references if name.startswith("refs/notes/")]
    git = repo.git()
    return any(git.run("notes", f"--ref={name}", "list", oid, check=False).code == 0 for name in names)
