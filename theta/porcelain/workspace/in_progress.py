"""What git is in the middle of: which commits it joins, and the command that goes on.

Git leaves files that say so: MERGE_HEAD, CHERRY_PICK_HEAD, REVERT_HEAD, the directory of a
rebase.  A stash that was popped leaves none; conflicts are conflicts all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from theta.git import state_files
from theta.git.commit_graph import merge_base
from theta.git.repository import Repository


@dataclass(frozen=True)
class Operation:
    """An operation under way and the commits of its three sides, where git tells them.

    ``ours`` is what is checked out.  In a rebase that is the branch that is rebased *on*, and
    ``theirs`` is the commit being applied, as everywhere in git.
    """

    name: str = ""
    base: str | None = None
    ours: str | None = None
    theirs: str | None = None

    @property
    def key(self) -> str:
        """What tells it from others; of a popped stash, the commit that it was popped on."""
        return f"{self.name} {self.ours} {self.theirs}"

    @property
    def go_on(self) -> str:
        """The command that concludes it, once all is settled; nothing where nothing is under way."""
        if not self.name:
            return ""
        return f"{'git' if self.name == 'am' else 'theta'} {self.name} --continue"


def current(repo: Repository) -> Operation:
    """What is under way here; its name is empty where nothing is, or a stash was popped."""
    head = repo.head()
    if state_files.rebasing(repo.gitdir):
        return _applying(repo, "rebase", state_files.REBASE_HEAD, head)
    if state_files.exists(repo.gitdir, state_files.REBASE_APPLY):
        return Operation("am", ours=head)
    if theirs := repo.merge_heads():
        return Operation("merge", merge_base(repo, head, theirs[0]) if head else None, head, theirs[0])
    if state_files.commits(repo.gitdir, state_files.REVERT_HEAD):
        found = _applying(repo, "revert", state_files.REVERT_HEAD, head)
        return Operation("revert", found.theirs, head, found.base)
    if state_files.commits(repo.gitdir, state_files.CHERRY_PICK_HEAD):
        return _applying(repo, "cherry-pick", state_files.CHERRY_PICK_HEAD, head)
    return Operation(_sequence(repo), ours=head)


def not_concluded(repo: Repository) -> str:
    """What is left of a merge that is under way; empty where none is."""
    if current(repo).name != "merge":
        return ""
    files = repo.unmerged()
    return f"{len(files)} file(s) are in conflict" if files else "nothing in it is in conflict"


def goes_on(repo: Repository) -> bool:
    """Whether a git that runs a hook may apply more commits after it, with the index in its memory."""
    return state_files.rebasing(repo.gitdir) or state_files.exists(repo.gitdir, state_files.SEQUENCER)


def _applying(repo: Repository, name: str, sign: str, head: str | None) -> Operation:
    """A commit is applied to HEAD: its parent is the base (of a merge, git knows which)."""
    theirs = next(iter(state_files.commits(repo.gitdir, sign)), None)
    commit = repo.commit_here(theirs) if theirs else None
    if commit is None or len(commit.parents) != 1:
        return Operation(name, ours=head)
    return Operation(name, commit.parents[0], head, commit.id)


def _sequence(repo: Repository) -> str:
    """The name of a sequence that stands between two of its commits."""
    todo = repo.gitdir / state_files.SEQUENCER_TODO
    if not todo.exists():
        return ""
    return "revert" if todo.read_text().startswith("revert") else "cherry-pick"
