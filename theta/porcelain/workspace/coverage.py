"""Files that a commit misses: new files of tracked patterns, and checkpoints that no pattern covers.

And checkpoints that another line gives to Git LFS, and tracked
files that a git without theta's filter committed as plain bytes.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta.errors import ThetaError
from theta.git import lfs
from theta.git.attributes import filter_of, only_tracked
from theta.git.repository import STORES, Repository
from theta.git.run import Git
from theta.lazy import Module
from theta.porcelain.setup import claims, installing
from theta.porcelain.setup.claims import Claim
from theta.porcelain.workspace.checkpoints import is_manifest
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource
from theta.units import first_names

if TYPE_CHECKING:
    from theta import formats
else:
    formats = Module("theta.formats")

LARGE: Final = 10_000_000
"""Size in bytes above which the strictest host refuses a plain blob."""

_GENERIC: Final = {"npy", "npz", "pickle", "hdf5"}
_GENERIC_SIZE: Final = 1_000_000
"""Arrays and pickles below this size in bytes are data more often than models."""

_HEAD: Final = 512
_NAMED: Final = 3
"""The most paths of a command in a message."""


def newcomers(session: Session, git: Git, pathspecs: Sequence[str]) -> list[str]:
    """Return the untracked files among ``pathspecs`` that a tracked pattern matches, without ignored ones."""
    rows = git.lines("ls-files", "-z", "-o", "--full-name", "--exclude-standard", "--", *pathspecs)
    found = only_tracked(session.repo, [row for row in rows if not row.endswith("/")])
    return [path for path in found if _is_file(session.repo.worktree / path)]


def left_out_line(session: Session, paths: Sequence[str], where: str) -> str:
    """Return one line which says that new files are not ``where``: "in this commit"."""
    verb = "matches a tracked pattern and is" if len(paths) == 1 else "match tracked patterns and are"
    here = [session.place(path) for path in paths]
    wanted = shlex.join(here) if len(here) <= _NAMED else "-A"
    return f"{first_names(here)} {verb} not {where}; to stage: theta add {wanted}"


def uncovered(session: Session, paths: Iterable[str]) -> list[str]:
    """Return those of ``paths`` (from the root) that are large or checkpoints and have no filter."""
    root = session.repo.worktree
    found = [path for path in paths if not path.startswith(STORES + "/") and needs_tracking(root / path)]
    return [
        path for path, value in filter_of(session.repo, found).items() if value in ("unspecified", "unset")
    ]


def uncovered_line(session: Session, paths: Sequence[str]) -> str:
    """Return one line about ``paths``, with the command that tracks them."""
    one = len(paths) == 1
    what = "is a checkpoint or large" if one else "are checkpoints or large"
    them = "it" if one else "them"
    command = _track_command(session, paths)
    return f"{first_names(paths)} {what}, and no tracked pattern covers {them}; to track {them}: {command}"


def to_lfs(session: Session, paths: Iterable[str]) -> dict[str, Claim]:
    """Return path -> the line that gives it to Git LFS, for new files that are large or checkpoints.

    A line that gave other files to Git LFS before is meant to do so; in a repository that has nothing to do
    with theta, all are.
    """
    fresh, root = dict.fromkeys(paths), session.repo.worktree
    values = filter_of(session.repo, [path for path in fresh if needs_tracking(root / path)])
    new = [path for path, value in values.items() if value == lfs.FILTER]
    if not new or not installing.is_used(session.repo):
        return {}
    older = {entry.path: entry.oid for entry in session.repo.entries() if entry.path not in fresh}
    given = [path for path, value in filter_of(session.repo, older).items() if value == lfs.FILTER]
    held = claims.held(session.repo, session.scratch(), [*new, *given])
    meant = {held[path].place for path in given if is_pointer(session.repo, older[path])}
    return {path: held[path] for path in new if held[path].place not in meant}


def to_lfs_line(session: Session, held: Mapping[str, Claim]) -> str:
    """Return one line about the files of :func:`to_lfs`, with the command that gives them to theta."""
    command = override(session, list(held))
    wanted = " ".join(map(session.word, held)) if len(held) <= _NAMED else "."
    verb, them = ("goes", "it") if len(held) == 1 else ("go", "them")
    place = next(iter(held.values())).place
    return (
        f"{first_names([*held])} {verb} to Git LFS by {place};"
        f" to give {them} to theta: {command} && theta add {wanted}"
    )


def override(session: Session, paths: Sequence[str]) -> str:
    """Return the command that gives ``paths`` to theta where other lines claim them."""
    return _track_command(session, paths, "track --override")


def plain(session: Session) -> list[str]:
    """Return the tracked files that are in the index as plain bytes: what wrote them ran no filter."""
    raw = ((path, one.oid) for path, one in session.index.items() if path not in session.index.manifests)
    return [
        path for path, oid in raw if not (is_manifest(session.repo, oid) or is_pointer(session.repo, oid))
    ]


def is_pointer(repo: Repository, oid: str) -> bool:
    """Return whether blob ``oid`` is a Git LFS pointer."""
    blob = repo.blob(oid)
    return blob is not None and blob.size < lfs.MAX_BYTES and lfs.is_pointer(blob.data)


def plain_line(session: Session, paths: Sequence[str]) -> str:
    """Return one line about the :func:`plain` files ``paths``, with the commands that mend it."""
    if len(paths) == 1:
        what, wanted = "is stored as plain bytes, not as a checkpoint", session.word(paths[0])
    else:
        what, wanted = "are stored as plain bytes, not as checkpoints", "-u"
    named = first_names([session.place(path) for path in paths])
    return f"{named} {what}; to mend: theta add {wanted} && theta commit"


def _track_command(session: Session, paths: Sequence[str], verb: str = "track") -> str:
    """Return the ``theta track`` command for the suffixes of ``paths``, in a directory above all of them."""
    here = session.repo.folder(session.cwd)
    inside = here == "." or all(path.startswith(here + "/") for path in paths)
    patterns = dict.fromkeys(_pattern(path) for path in paths)
    start = "" if inside else f"-C {session.word('.')} "
    return f"theta {start}{verb} {' '.join(shlex.quote(pattern) for pattern in patterns)}"


def _pattern(path: str) -> str:
    name = path.rpartition("/")[2]
    suffix = os.path.splitext(name)[1]
    return f"*{suffix}" if re.fullmatch(r"\.[A-Za-z0-9_]+", suffix) else name


def _is_file(place: Path) -> bool:
    return place.is_file() and not place.is_symlink()


def needs_tracking(place: Path) -> bool:
    """Return whether the file at ``place`` is large or a checkpoint."""
    try:
        if not _is_file(place):
            return False
        size = os.stat(place).st_size
        return size >= LARGE or (not _is_text(place) and _is_checkpoint(place, size))
    except (OSError, ThetaError):
        return False


def _is_text(place: Path) -> bool:
    """Return whether the file starts with text: quick to check, and true for most files."""
    with open(place, "rb") as file:
        head = file.read(_HEAD)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and b"\0" not in head
    return b"\0" not in head


def _is_checkpoint(place: Path, size: int) -> bool:
    with FileSource(place) as source:
        name = formats.detected(source)
    return bool(name) and (name not in _GENERIC or size >= _GENERIC_SIZE)
