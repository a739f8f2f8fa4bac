"""The operation that git has in progress, the commits it merges, and the command that continues it.

Git's state files tell: MERGE_HEAD, CHERRY_PICK_HEAD, REVERT_HEAD, the directory of a rebase.  A popped
stash leaves no such file, only conflicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from theta.git import state_files
from theta.git.commit_graph import merge_base
from theta.git.quoting import split_lines
from theta.git.repository import Repository


@dataclass(frozen=True)
class Operation:
    """An operation in progress and the commits of its three sides, None when git does not tell.

    ``ours`` is HEAD.  In a rebase that is the upstream branch with the commits applied so far, and
    ``theirs`` is the commit being applied, as everywhere in git.
    """

    name: str = ""
    base: str | None = None
    ours: str | None = None
    theirs: str | None = None

    @property
    def key(self) -> str:
        """The identity of the operation; for a popped stash, the commit it was popped on."""
        return f"{self.name} {self.ours} {self.theirs}"

    @property
    def go_on(self) -> str:
        """The command that concludes the operation; "" when none is in progress."""
        if not self.name:
            return ""
        return f"{'git' if self.name == 'am' else 'theta'} {self.name} --continue"


def current(repo: Repository) -> Operation:
    """Return the operation in progress; its name is "" if there is none, or after a stash pop."""
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
    """Return a phrase about the conflicts of the merge in progress; "" if there is none."""
    if current(repo).name != "merge":
        return ""
    files = repo.unmerged()
    return f"{len(files)} file(s) are in conflict" if files else "nothing in it is in conflict"


def goes_on(repo: Repository) -> bool:
    """Return whether a git that runs a hook may apply more commits, with the index in memory."""
    return state_files.rebasing(repo.gitdir) or state_files.exists(repo.gitdir, state_files.SEQUENCER)


def is_last_patch(repo: Repository) -> bool:
    """Return whether ``git am`` is at the last of its patches."""
    at, last = (state_files.text(repo.gitdir / name) for name in state_files.AM_NEEDED)
    return bool(at) and at == last and not state_files.rebasing(repo.gitdir)


def _applying(repo: Repository, name: str, sign: str, head: str | None) -> Operation:
    """Return the operation that applies the commit in state file ``sign``; its parent is the base.

    At the end of a shallow history the parent is not here, and git takes the commit for one without.
    For a merge commit only git knows which parent, so no sides are given.
    """
    theirs = next(iter(state_files.commits(repo.gitdir, sign)), None)
    commit = repo.commit_here(theirs) if theirs else None
    if commit is None or len(commit.parents) != 1:
        return Operation(name, ours=head)
    base = next((parent for parent in commit.parents if repo.has(parent)), None)
    return Operation(name, base, head, commit.id)


def _sequence(repo: Repository) -> str:
    """Return the name of a sequence that stopped between two of its commits, or ""."""
    todo = repo.gitdir / state_files.SEQUENCER_TODO
    if not todo.exists():
        return ""
    return "revert" if todo.read_text().startswith("revert") else "cherry-pick"


_QUIETLY: Final = ("--no-optional-locks", "-c", "core.sparseCheckout=false", "-c", "color.status=false")
_SECTIONS: Final = ("Changes ", "Unmerged paths:", "Untracked files", "nothing ", "no changes added")
"""The beginnings of what git's status prints after the branch and the operation."""


def told(repo: Repository, program: str) -> list[str]:
    """Return git's lines on the branch and the operation in progress; commands in them are of ``program``."""
    text = repo.git().run(*_QUIETLY, "status", "--long", "--untracked-files=no").text
    lines: list[str] = []
    for block in text.split("\n\n"):
        if block.startswith(_SECTIONS):
            break
        lines += [line.replace('"git ', f'"{program} ') for line in split_lines(block)]
    return lines
