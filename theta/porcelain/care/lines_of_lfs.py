"""Checkpoints that a line of attributes gives to Git LFS since theta came to a repository."""

from __future__ import annotations

from theta.git import lfs
from theta.git.attributes import filter_of
from theta.git.object_values import Tree
from theta.git.repository import ATTRIBUTES, STORES, Repository
from theta.porcelain.setup import attribute_lines, claims
from theta.porcelain.setup.claims import Claim
from theta.porcelain.workspace import coverage
from theta.porcelain.workspace.session import Session


def found(session: Session) -> dict[str, Claim]:
    """Return path -> the line that gives it to Git LFS, for checkpoints in the index.

    Lines that stood before theta came are meant to do so: ``theta migrate lfs`` is the way from there.
    """
    values = filter_of(session.repo, [entry.path for entry in session.repo.entries()])
    found = [path for path, value in values.items() if value == lfs.FILTER]
    held = claims.held(session.repo, session.scratch(), found) if found else {}
    before = _before_theta(session.repo) if held else None
    old: dict[str, set[str]] = {}
    for file in {claim.file for claim in held.values()}:
        entry = before.get(file) if before is not None else None
        lines = attribute_lines.of_file(session.repo.read_blob(entry.id)) if entry is not None else []
        old[file] = {line.text for line in lines}
    root = session.repo.worktree
    return {
        path: claim
        for path, claim in held.items()
        if claim.text not in old[claim.file] and coverage.needs_tracking(root / path)
    }


def _before_theta(repo: Repository) -> Tree | None:
    """Return the tree of the last commit before theta's first line of attributes; None if there is none."""
    if (head := repo.head()) is None:
        return None
    search = ("log", "--format=%H", "-z", "--reverse", f"-S{STORES}/**", head, "--", f":(top){ATTRIBUTES}")
    first = next(iter(repo.git().lines(*search)), None)
    if first is None:
        return repo.tree_of(head)
    parents = repo.git().lines("log", "--format=%H", "-z", "-1", f"{first}^@", "--")
    return repo.tree_of(parents[0]) if parents else None
