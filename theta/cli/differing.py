"""The files that differ from HEAD, as git tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from theta.cli import untouched
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git import run
else:
    run = Module("theta.git.run")

_FILES: Final = ("100644", "100755")
_FIELDS: Final = 8
"""Number of the fields before the path in a line of ``git status --porcelain=v2``."""


class Arrival(NamedTuple):
    """A file that differs from HEAD, in the index or in the worktree."""

    path: str
    oid: str = ""
    """The blob in the index; empty for an untracked file."""
    is_new: bool = False
    is_staged: bool = False
    is_here: bool = True
    """Whether the file in the worktree is what the index has."""


def top() -> Path:
    """Return the root of the worktree."""
    place = untouched.found()
    if place is not None:
        return place.top
    return Path(run.plain(Path.cwd()).run("rev-parse", "--show-toplevel", check=False).text.rstrip("\n"))


def staged() -> set[Arrival]:
    """Return what the index has otherwise than HEAD."""
    words = ("diff", "--cached", "--raw", "--no-abbrev", "--no-renames", "--no-relative", "-z")
    fields = run.plain(Path.cwd()).run(*words, check=False).text.split("\0")
    found = set()
    for head, path in zip(fields[0:-1:2], fields[1::2], strict=False):
        _, mode, _, oid, status = head.split()
        if mode in _FILES:
            found.add(Arrival(path, oid, status == "A", is_staged=True))
    return found


def changed(*, untracked: bool = False) -> set[Arrival]:
    """Return the files that differ from HEAD, in the index or in the worktree."""
    words = ("status", "--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=all")
    more = f"--untracked-files={'all' if untracked else 'no'}"
    text = run.plain(Path.cwd()).run(*words, more, check=False).text
    found = set()
    for line in text.split("\0"):
        fields = line.split(" ", _FIELDS)
        if fields[0] == "?":
            found.add(Arrival(line[2:]))
        elif fields[0] == "1" and fields[4] in _FILES:
            index, here = fields[1][:1], fields[1][1:]
            found.add(Arrival(fields[8], fields[7], index == "A", index != ".", here == "."))
    return found


def new_paths(rows: Iterable[Arrival]) -> set[str]:
    """Return the paths of new files."""
    return {row.path for row in rows if row.is_new}


def commits(name: str, args: Sequence[str]) -> bool:
    """Return whether a line is to make a commit, and neither tells of one nor asks for help."""
    return name == "commit" and not {"--dry-run", "-h", "--help"} & {*args}


def names_files(name: str, args: Sequence[str]) -> bool:
    """Return whether a line may take single files out of another commit."""
    if name == "restore":
        return any(word.startswith(("-s", "--s")) for word in args)
    words = [word for word in args if word == "--" or not word.startswith("-")]
    return name in ("checkout", "reset") and len(words) > 1
