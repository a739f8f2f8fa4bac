"""The state files in the git directory that show the operation in progress; named only here.

Some of them are refs to git: where refs are in tables these are too, and no file is there.
``gitrepository-layout(5)`` does not list them all; ``sequencer.c``, ``branch.c`` and ``builtin/am.c`` do.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from theta import _fs
from theta.git.run import Git, plain

MERGE_HEAD: Final = "MERGE_HEAD"
"""The commits that are being merged, one on each line."""
MERGE_MSG: Final = "MERGE_MSG"
"""The message of the next commit."""
MERGE_MODE: Final = "MERGE_MODE"
"""``no-ff`` if the merge must not be a fast-forward."""
MERGE_AUTOSTASH: Final = "MERGE_AUTOSTASH"
"""The stash that git applies when the merge ends."""
SQUASH_MSG: Final = "SQUASH_MSG"
"""The message of a squashed merge, which leaves no :data:`MERGE_HEAD`."""
AUTO_MERGE: Final = "AUTO_MERGE"
"""The tree that merge-ort wrote to the worktree, including conflict markers."""

CHERRY_PICK_HEAD: Final = "CHERRY_PICK_HEAD"
"""The commit that is being cherry-picked."""
REVERT_HEAD: Final = "REVERT_HEAD"
"""The commit that is being reverted."""
SEQUENCER: Final = "sequencer"
"""The directory of a cherry-pick or revert of several commits."""
SEQUENCER_TODO: Final = f"{SEQUENCER}/todo"
SEQUENCER_HEAD: Final = f"{SEQUENCER}/head"
SEQUENCER_OPTIONS: Final = f"{SEQUENCER}/opts"
SEQUENCER_SAFETY: Final = f"{SEQUENCER}/abort-safety"
"""The commit that must be at HEAD; otherwise ``--abort`` does not move HEAD."""

REBASE_HEAD: Final = "REBASE_HEAD"
"""The commit at which a rebase stopped."""
REBASE_MERGE: Final = "rebase-merge"
"""The directory of a rebase with the merge backend."""
REBASE_APPLY: Final = "rebase-apply"
"""The directory of ``git am``, and of a rebase with the apply backend."""
AM_NEEDED: Final = (f"{REBASE_APPLY}/next", f"{REBASE_APPLY}/last")
"""The numbers of patches; git writes these files last, and without them no ``am`` is in progress."""
AM_OF_REBASE: Final = (f"{REBASE_APPLY}/rebasing", f"{REBASE_APPLY}/head-name")
"""Files that a rebase with the apply backend has there."""
AM_AUTHOR: Final = f"{REBASE_APPLY}/author-script"
"""The author of the patch; git refuses an empty file."""
AM_SAFETY: Final = f"{REBASE_APPLY}/abort-safety"
"""The commit that must be at HEAD; otherwise ``--abort`` does not move HEAD."""
FOLDERS: Final = (REBASE_MERGE, REBASE_APPLY, SEQUENCER)
"""The directories of operations in progress."""
REBASE_TODO: Final = f"{REBASE_MERGE}/git-rebase-todo"
REBASE_DONE: Final = f"{REBASE_MERGE}/done"
REBASE_BRANCH: Final = f"{REBASE_MERGE}/head-name"
"""The branch that is rebased; git writes this file first."""
REBASE_ONTO: Final = f"{REBASE_MERGE}/onto"
"""The commit on top of which the steps are applied."""
REBASE_FROM: Final = f"{REBASE_MERGE}/orig-head"
"""The commit at which the branch was before."""
REBASE_STOPPED: Final = f"{REBASE_MERGE}/stopped-sha"
"""The commit at which git stopped."""
REBASE_AMEND: Final = f"{REBASE_MERGE}/amend"
"""The commit that ``--continue`` amends."""
REBASE_MESSAGE: Final = f"{REBASE_MERGE}/message"
"""The message of the step that git applies."""
REBASE_REWRITTEN: Final = (f"{REBASE_MERGE}/rewritten-list", f"{REBASE_MERGE}/rewritten-pending")
"""Lists of the commits that were applied."""
REBASE_FIRST_TODO: Final = f"{REBASE_TODO}.backup"
"""The list of steps before the user edited it."""

BISECT_START: Final = "BISECT_START"
"""The branch, or the commit, to which ``git bisect reset`` goes back."""

_IN_USE: Final = (REBASE_BRANCH, f"{REBASE_APPLY}/head-name")
"""Files that name the branch to which git will go back."""

LOGS_OF_HEAD: Final = ("logs/HEAD", "reftable/tables.list")
"""The reflog of HEAD, which git writes just before it moves HEAD; or the list of tables that hold both."""
ORIG_HEAD: Final = "ORIG_HEAD"
"""The HEAD before a command that moved it drastically."""
FETCH_HEAD: Final = "FETCH_HEAD"
"""The result of the last fetch, one ref on each line."""


_REFS: Final = (CHERRY_PICK_HEAD, REVERT_HEAD, REBASE_HEAD, ORIG_HEAD, AUTO_MERGE, MERGE_AUTOSTASH)
"""State files that are refs: ``is_root_ref`` in git's refs.c."""
_TABLES: Final = "reftable"
"""The directory of the tables of refs."""


def shallow(commondir: Path) -> frozenset[str]:
    """Return the commits at which a shallow history ends; none if it is whole."""
    try:
        return frozenset((commondir / "shallow").read_text("ascii").split())
    except (OSError, UnicodeDecodeError):
        return frozenset()


def commits(gitdir: Path, name: str) -> list[str]:
    """Return the ids in state file ``name``; empty without the file."""
    return content(gitdir, name).split()


def content(gitdir: Path, name: str) -> str:
    """Return the content of state file ``name``, which of a ref is its id; empty without the file."""
    return _in_tables(gitdir).get(name, "") if is_in_table(gitdir, name) else text(gitdir / name)


def is_in_table(gitdir: Path, name: str) -> bool:
    """Return whether state file ``name`` is a ref, and refs are in tables."""
    return name in _REFS and (gitdir / _TABLES).is_dir()


def point(gitdir: Path, name: str, oid: str) -> None:
    """Let state file ``name`` hold ``oid``."""
    if is_in_table(gitdir, name):
        _git(gitdir).run(f"--git-dir={gitdir}", "update-ref", "--no-deref", name, oid)
    else:
        _fs.write_atomic(gitdir / name, f"{oid}\n".encode())


def remove(gitdir: Path, name: str) -> None:
    """Remove state file ``name``, if it is there."""
    if not is_in_table(gitdir, name):
        _fs.remove(gitdir / name)
    elif name in _in_tables(gitdir):
        _git(gitdir).run(f"--git-dir={gitdir}", "update-ref", "--no-deref", "-d", name)


def _in_tables(gitdir: Path) -> dict[str, str]:
    return _asked(gitdir, text(gitdir / _TABLES / "tables.list"))


@lru_cache(maxsize=8)
def _asked(gitdir: Path, _tables: str) -> dict[str, str]:
    """Return name -> id of the state files in tables; each change of a ref makes a new list of tables."""
    words = ("for-each-ref", "--include-root-refs", "--format=%(refname) %(objectname)", *_REFS)
    rows = _git(gitdir).run(f"--git-dir={gitdir}", *words).text.split()
    return dict(zip(rows[::2], rows[1::2], strict=True))


def _git(gitdir: Path) -> Git:
    return plain(gitdir)


def text(place: Path) -> str:
    """Return the content of the state file at ``place``; empty without the file."""
    return place.read_bytes().decode("utf-8", "surrogateescape") if place.is_file() else ""


def checked_out(shared: Path, *, is_bare: bool) -> set[str]:
    """Return the refs that the HEADs of all worktrees name; a bare repository has linked ones only."""
    heads = [*shared.glob("worktrees/*/HEAD"), *([] if is_bare else [shared / "HEAD"])]
    found = (text(place) for place in heads)
    return {head.removeprefix("ref: ").strip() for head in found if head.startswith("ref: ")}


def used_elsewhere(gitdir: Path, *, is_bare: bool) -> set[str]:
    """Return the branches that other worktrees than that of ``gitdir`` have at HEAD, rebase or bisect."""
    shared, own = common_directory(gitdir), os.path.realpath(gitdir)
    others = [*shared.glob("worktrees/*"), *([] if is_bare else [shared])]
    found: set[str] = set()
    for place in others:
        if os.path.realpath(place) != own:
            ref = text(place / "HEAD").removeprefix("ref: ").strip()
            found |= {ref, *(text(place / name).strip() for name in _IN_USE)}
            found.add(f"refs/heads/{text(place / BISECT_START).strip()}")
    return {ref for ref in found if ref.startswith("refs/") and not ref.endswith("/")}


def worktrees(shared: Path) -> list[Path]:
    """Return the worktrees of the repository; that of a bare one, or of a submodule, is none here."""
    pointers = ((place, text(place).strip()) for place in shared.glob("worktrees/*/gitdir"))
    linked = [(place.parent / pointer).parent for place, pointer in pointers if pointer]
    return [*([shared.parent] if shared.name == ".git" else []), *linked]


def exists(gitdir: Path, *names: str) -> bool:
    """Return whether one of the state files ``names`` exists."""
    return any(
        bool(content(gitdir, name)) if is_in_table(gitdir, name) else (gitdir / name).exists()
        for name in names
    )


def rebasing(gitdir: Path) -> bool:
    """Return whether a rebase is in progress (not ``git am``, which shares a directory with it)."""
    apply = gitdir / REBASE_APPLY
    return exists(gitdir, REBASE_MERGE) or (apply.exists() and not (apply / "applying").exists())


def sequencing(gitdir: Path) -> bool:
    """Return whether a rebase, ``git am``, or a cherry-pick or revert of several commits is in progress."""
    return exists(gitdir, *FOLDERS)


def common_directory(gitdir: Path) -> Path:
    """Return the git directory that all worktrees of a repository share."""
    pointer = gitdir / "commondir"
    if not pointer.exists():
        return gitdir
    return Path(os.path.normpath(gitdir / pointer.read_text().strip()))


def signature(place: Path) -> tuple[int, ...]:
    """Return what a write to the file at ``place`` changes; empty when there is none."""
    try:
        info = os.stat(place)
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino
