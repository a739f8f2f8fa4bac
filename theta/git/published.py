"""Which commits others may have, and so must never be rewritten without being asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pygit2

from theta.git.repository import Repository
from theta.git.state_files import FETCH_HEAD

_OURS: Final = ("refs/stash", "refs/theta/*", "refs/rewritten/*")
"""Refs that only this clone has, and that do not tell of a commit being used elsewhere."""


def unpublished(repo: Repository, commits: Iterable[str]) -> set[str]:
    """Those of ``commits`` that nothing but the current branch (or a detached HEAD) of this worktree reaches.

    A remote-tracking ref, a tag, another branch, the HEAD of another worktree, what was fetched
    last, and a note on the commit are all signs that somebody may have it.
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
    """The commits that other worktrees have checked out, and those of the last fetch."""
    found = {_head(repo, gitdir) for gitdir in (repo.commondir, *repo.commondir.glob("worktrees/*"))}
    for gitdir in (repo.gitdir, repo.commondir):
        with contextlib.suppress(OSError):
            found |= {line.split("\t")[0] for line in (gitdir / FETCH_HEAD).read_text().splitlines()}
    return {oid for oid in found if len(oid) == 40 and isinstance(repo.raw.get(oid), pygit2.Commit)}


def _head(repo: Repository, gitdir: Path) -> str:
    """The commit that another worktree has checked out; empty for this one and where there is none."""
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
