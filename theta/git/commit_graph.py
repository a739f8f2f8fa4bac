"""The commit graph: ancestors, published commits, and writing commits and trees."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from theta.errors import MissingObjectsError
from theta.git import state_files
from theta.git.object_format import COMMIT, TREE, is_id
from theta.git.object_values import MODE_BLOB, MODE_TREE, Commit, Tree, TreeEntry, tree_bytes
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.git.state_files import FETCH_HEAD

_NOBODY: Final = "theta <theta@localhost> 0 +0000"
"""The author of commits that no ref names."""


def merge_base(repo: Repository, ours: str, theirs: str) -> str | None:
    """Return a merge base; None when there is none."""
    return repo.backend.history.merge_base(ours, theirs)


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
    except MissingObjectsError:
        return None
    few = all(len(side) <= _FEW for side in sides)
    return [base] if few and sides[0].isdisjoint(sides[1]) else None


def _since(repo: Repository, base: str, head: str) -> set[str]:
    """Return the commits that ``head`` reaches and ``base`` does not, at most ``_FEW`` + 1."""
    return set(islice(repo.backend.history.since(head, [base]), _FEW + 1))


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
    return repo.backend.history.descends(commit, ancestor)


def oldest_first(repo: Repository, head: str, wanted: Collection[str]) -> list[Commit]:
    """Return those of ``wanted`` that ``head`` reaches, parents before children."""
    hidden = [parent for oid in wanted for parent in repo.commit(oid).parents if parent not in wanted]
    walk = repo.backend.history.since(head, hidden, parents_first=True)
    return [repo.commit(oid) for oid in walk if oid in wanted]


def write_commit(repo: Repository, data: bytes) -> str:
    """Write the commit object ``data``; return its id."""
    return repo.backend.objects.write(COMMIT, data)


def unnamed_commit(repo: Repository, tree: str, parents: Sequence[str]) -> str:
    """Write a commit that no ref names, because git merges commits only; return its id."""
    rows = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    rows += [f"author {_NOBODY}", f"committer {_NOBODY}", "", ""]
    return write_commit(repo, "\n".join(rows).encode())


def with_directory(repo: Repository, tree: Tree, name: str, directory: str | None) -> str:
    """Write ``tree`` with ``directory`` (a tree id, None to remove it) as ``name``; return its id."""
    rows = {entry.name: (entry.mode, entry.id) for entry in tree}
    rows.pop(name, None)
    return write_tree(repo, rows | ({name: (MODE_TREE, directory)} if directory is not None else {}))


def write_tree(repo: Repository, rows: Mapping[str, tuple[int, str]]) -> str:
    """Write the tree of ``rows`` (name -> mode, id); return its id."""
    return repo.backend.objects.write(TREE, tree_bytes((name, *row) for name, row in rows.items()))


def index_tree(repo: Repository) -> str | None:
    """Write the tree of the index; None when there are conflicts, or libgit2 cannot write it."""
    return repo.backend.indexes.write_tree(repo.index_path)


FileChange = tuple[str, int] | None
"""The new id and mode of a file; None to remove it."""


def edit_tree(repo: Repository, tree: Tree, changes: Mapping[str, FileChange]) -> str:
    """Write ``tree`` with ``changes``, path -> (id, mode) or None to remove a file; return its id.

    Mode 0 keeps the mode of an existing file, and is that of a plain file otherwise.
    """
    return _edited(repo, tree, changes) or write_tree(repo, {})


def _edited(repo: Repository, tree: Tree | None, changes: Mapping[str, FileChange]) -> str | None:
    """Write ``tree`` with ``changes``; return its id, or None when it is empty."""
    if tree is not None and not changes:
        return tree.id
    before = tree.entries if tree is not None else {}
    rows = {name: (entry.mode, entry.id) for name, entry in before.items()}
    below: dict[str, dict[str, FileChange]] = {}
    for path, change in changes.items():
        name, _, rest = path.partition("/")
        if rest:
            below.setdefault(name, {})[rest] = change
        elif change is not None:
            rows[name] = change[1] or _kept_mode(before.get(name)), change[0]
        elif (entry := before.get(name)) is not None and entry.tree is None:
            del rows[name]
    for name, inner in below.items():
        old = before.get(name)
        found = _edited(repo, old.tree if old is not None else None, inner)
        if found is not None:
            rows[name] = MODE_TREE, found
        elif old is not None and old.tree is not None:
            del rows[name]
    return write_tree(repo, rows) if rows else None


def _kept_mode(entry: TreeEntry | None) -> int:
    return entry.mode if entry is not None and entry.tree is None else MODE_BLOB


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
    own, _ = repo.refs.head()
    excluded = [f"--exclude={name}" for name in (own, *_OURS) if name]
    asked = [*wanted, *(f"^{oid}" for oid in _elsewhere(repo))]
    command = ["rev-list", "--stdin", "--not", *excluded, "--glob=refs/*"]
    found = repo.git().run(*command, stdin="".join(f"{row}\n" for row in asked).encode()).text.split()
    return {oid for oid in wanted & set(found) if not _has_note(repo, oid)}


def _elsewhere(repo: Repository) -> set[str]:
    """Return the commits that other worktrees have checked out, and those of the last fetch."""
    found = {_head(repo, gitdir) for gitdir in (repo.commondir, *repo.commondir.glob("worktrees/*"))}
    for gitdir in (repo.gitdir, repo.commondir):
        found |= {line.split("\t")[0] for line in split_lines(state_files.text(gitdir / FETCH_HEAD))}
    return {oid for oid in found if is_id(oid) and repo.commit_here(oid) is not None}


def _head(repo: Repository, gitdir: Path) -> str:
    """Return the commit that another worktree has checked out; "" for this worktree or without one."""
    if gitdir == repo.gitdir:
        return ""
    try:
        text = (gitdir / "HEAD").read_text().strip()
    except OSError:
        return ""
    name = text.removeprefix("ref: ")
    return text if name == text else repo.refs.resolved(name) or ""


def _has_note(repo: Repository, oid: str) -> bool:
    names = [name for name in repo.refs if name.startswith("refs/notes/")]
    git = repo.git()
    return any(git.run("notes", f"--ref={name}", "list", oid, check=False).code == 0 for name in names)
