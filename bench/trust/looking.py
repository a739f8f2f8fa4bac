"""Looking at a repository in this process: what its user sees, and whether all of it is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pygit2

from bench.trust.outcome import FaultError
from tests.reliability.harness import FILE
from tests.support import sha256
from theta.errors import ThetaError
from theta.git.repository import Repository
from theta.porcelain.look import checking
from theta.porcelain.workspace.session import Session

_SEEN: Final = re.compile(r"refs/(heads|tags|remotes)/|refs/stash$")
"""The refs that users see; below ``refs/theta/`` theta has its own, which may name trees."""


@dataclass(frozen=True)
class View:
    """Branches by their trees, the branch that is checked out, the index, the checkpoint in the worktree."""

    head: str
    refs: tuple[tuple[str, str], ...]
    index: tuple[tuple[str, str], ...]
    file: str

    @classmethod
    def of(cls, top: Path) -> View:
        """Look at the repository at ``top``, in which nothing is at work."""
        repo = pygit2.Repository(str(top))
        file = top / FILE
        entries = tuple((entry.path, str(entry.id)) for entry in repo.index)
        digest = sha256(file) if file.is_file() else "gone"
        return cls(str(repo.lookup_reference("HEAD").target), _refs(repo), entries, digest)


def _refs(repo: pygit2.Repository) -> tuple[tuple[str, str], ...]:
    found = []
    for name in filter(_SEEN.match, repo.references):
        commit: Any = repo.references[name].peel(pygit2.Commit)
        found.append((name, str(commit.tree_id)))
    return tuple(sorted(found))


_PROVEN: Final[set[str]] = set()
"""Commits of which this process has decoded every chunk."""


def walk(top: Path) -> set[str]:
    """Read all objects that HEAD, refs and index reach, with their ids checked; return the commits."""
    repo = pygit2.Repository(str(top))
    waiting = [str(repo.references[name].resolve().target) for name in repo.references]
    if not repo.head_is_unborn:
        waiting.append(str(repo.head.target))
    if not repo.is_bare:
        waiting += [str(entry.id) for entry in repo.index]
    seen, commits = set[str](), set[str]()
    while waiting:
        oid = waiting.pop()
        if oid in seen:
            continue
        seen.add(oid)
        try:
            found: Any = repo[oid]
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise FaultError("lost", f"object {oid}: {error}") from error
        if isinstance(found, pygit2.Commit):
            commits.add(oid)
            waiting += [str(found.tree_id), *map(str, found.parent_ids)]
        elif isinstance(found, pygit2.Tree):
            waiting += [str(entry.id) for entry in found if entry.filemode != 0o160000]
        elif isinstance(found, pygit2.Tag):
            waiting.append(str(found.target))
    return commits


def sound(top: Path, *, anew: bool = True) -> None:
    """Assert that all objects are there, and that each chunk of each tensor of each commit is read.

    Unless ``anew``, commits whose chunks this process has read are not read again: they have the same
    objects, which are all here.
    """
    commits = walk(top)
    if not anew and commits <= _PROVEN:
        return
    session = Session(Repository.discover(top))
    try:
        found = list(checking.problems(session, checking.Owed(), read_data=True))
    except ThetaError as error:
        found = [str(error)]
    if found:
        raise FaultError("lost", "; ".join(found))
    _PROVEN.update(commits)
