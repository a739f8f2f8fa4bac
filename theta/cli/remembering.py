"""Remembering what a command changes, so that ``theta undo`` can take it back."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import ThetaError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.care import undo_notes
else:
    undo_notes = Module("theta.porcelain.care.undo_notes")

CHANGING: Final = (
    *("add", "rm", "mv", "commit", "branch", "tag", "switch", "checkout", "reset", "merge", "resolve"),
    *("cherry-pick", "revert", "rebase", "pull", "average", "build-moe", "bundle", "cascade"),
    "extract-lora",
)
ON_FILES: Final = (
    "track",
    "untrack",
    "restore",
    "stash",
    "clean",
    "am",
    "bisect",
    "apply",
    "convert",
    "export-history",
    "migrate",
)
"""Commands whose effect is on files that nothing keeps, or elsewhere: they are remembered by name only."""
_WRITING: Final = (
    *("mv", "switch", "checkout", "merge", "resolve", "cherry-pick", "revert", "rebase", "pull"),
    *("average", "build-moe", "bundle", "cascade", "extract-lora"),
)
"""Commands that write files of the worktree; ``rm`` and ``reset`` do so with or without an option."""
_RESETTING: Final = ("--hard", "--merge", "--keep")
"""Options by which ``reset`` writes files; git takes them by their beginnings, too."""
_LOSING: Final = ("--hard", "--force", "-f", "--discard-changes", "-D", "--merge", "--abort")
"""Options that throw away what was not committed."""


@contextlib.contextmanager
def command(name: str, args: Sequence[str]) -> Iterator[None]:
    """Remember what ``theta NAME ARGS``, which runs in the block, changes; errors of that are ignored."""
    only_lists = name == "track" and all(arg.startswith("-") for arg in args)
    if only_lists or name not in (*CHANGING, *ON_FILES):
        yield
        return
    line = shlex.join(["theta", name, *args])
    before = None
    with contextlib.suppress(ThetaError):
        before = undo_notes.begin(Path("."))
    try:
        yield
    finally:
        if before is not None:
            losing = bool({*args} & {*_LOSING})
            with contextlib.suppress(ThetaError):
                undo_notes.end(
                    before,
                    undo_notes.Command(
                        line,
                        [name, *args],
                        name not in ON_FILES,
                        losing,
                        name == "checkout",
                        _writes(name, args),
                    ),
                )


def _writes(name: str, args: Sequence[str]) -> bool:
    """Return whether ``theta NAME ARGS`` may write or remove files of the worktree."""
    if name == "reset":
        return any(len(arg) > 2 and option.startswith(arg) for arg in args for option in _RESETTING)
    return name in _WRITING or (name == "rm" and "--cached" not in args)
