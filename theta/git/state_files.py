"""The files in git's directory that tell what is under way: each is named here, and nowhere else.

``gitrepository-layout(5)`` does not list them all; ``sequencer.c``, ``branch.c`` and ``builtin/am.c`` do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MERGE_HEAD: Final = "MERGE_HEAD"
"""The commits that a merge takes in, one a line."""
MERGE_MSG: Final = "MERGE_MSG"
"""The message of the commit to come."""
MERGE_MODE: Final = "MERGE_MODE"
"""``no-ff`` where the merge may not be a fast-forward."""
MERGE_AUTOSTASH: Final = "MERGE_AUTOSTASH"
"""The stash that git applies when the merge ends."""
SQUASH_MSG: Final = "SQUASH_MSG"
"""The message of a squashed merge, which leaves no :data:`MERGE_HEAD`."""
AUTO_MERGE: Final = "AUTO_MERGE"
"""The tree that merge-ort wrote into the worktree, conflict markers included."""

CHERRY_PICK_HEAD: Final = "CHERRY_PICK_HEAD"
"""The commit that is picked."""
REVERT_HEAD: Final = "REVERT_HEAD"
"""The commit that is reverted."""
SEQUENCER: Final = "sequencer"
"""The directory of a cherry-pick or revert of several commits."""
SEQUENCER_TODO: Final = f"{SEQUENCER}/todo"
SEQUENCER_HEAD: Final = f"{SEQUENCER}/head"

REBASE_HEAD: Final = "REBASE_HEAD"
"""The commit at which a rebase stopped."""
REBASE_MERGE: Final = "rebase-merge"
"""The directory of a rebase that merges."""
REBASE_APPLY: Final = "rebase-apply"
"""The directory of ``git am``, and of a rebase that applies patches."""
REBASE_TODO: Final = f"{REBASE_MERGE}/git-rebase-todo"
REBASE_DONE: Final = f"{REBASE_MERGE}/done"

ORIG_HEAD: Final = "ORIG_HEAD"
"""Where HEAD was before a command that moved it far."""
FETCH_HEAD: Final = "FETCH_HEAD"
"""What the last fetch brought, one ref a line."""


def commits(gitdir: Path, name: str) -> list[str]:
    """The commits that file ``name`` lists; none when there is no such file."""
    place = gitdir / name
    return place.read_text().split() if place.exists() else []


def exists(gitdir: Path, *names: str) -> bool:
    """Whether one of the files ``names`` is there."""
    return any((gitdir / name).exists() for name in names)


def rebasing(gitdir: Path) -> bool:
    """Whether a rebase is under way (and not ``git am``, which shares its directory)."""
    apply = gitdir / REBASE_APPLY
    return exists(gitdir, REBASE_MERGE) or (apply.exists() and not (apply / "applying").exists())


def sequencing(gitdir: Path) -> bool:
    """Whether a rebase, ``git am``, or a cherry-pick or revert of several commits is under way."""
    return exists(gitdir, REBASE_MERGE, REBASE_APPLY, SEQUENCER)
