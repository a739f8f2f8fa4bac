"""``theta track`` and ``untrack``: the tracked patterns in ``.gitattributes`` files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import NotFoundError, ThetaError, UsageError
from theta.git import lfs
from theta.git.attributes import only_tracked
from theta.git.repository import STORES
from theta.porcelain.setup import attribute_lines, attribute_probe, claims, installing, overriding
from theta.porcelain.setup.claims import Claim
from theta.porcelain.workspace import closures
from theta.porcelain.workspace.session import Session

NAME: Final = ".gitattributes"


@dataclass(frozen=True)
class Pattern:
    """A tracked pattern and the directory of its ``.gitattributes`` ('' for the root)."""

    pattern: str
    folder: str

    def __str__(self) -> str:
        place = f" ({self.folder}/{NAME})" if self.folder else ""
        return attribute_lines.shown(self.pattern) + place


@dataclass(frozen=True)
class Tracked:
    """The result of :func:`track`.

    Attributes:
        new: patterns that were not tracked before.
        unmatched: patterns that match no file.
        ignored: files that match, and that ``.gitignore`` excludes.
        claimed: path -> the line of others that holds for a file that matches.
        over: the lines that were written after those of others.
    """

    new: tuple[str, ...]
    unmatched: tuple[str, ...]
    ignored: tuple[str, ...]
    claimed: Mapping[str, Claim]
    over: overriding.Overriding


def folder_of(session: Session, cwd: Path) -> str:
    """Return ``cwd`` relative to the root of the worktree; '' for the root and for places outside."""
    place = os.path.relpath(os.path.realpath(cwd), os.path.realpath(session.repo.worktree))
    return "" if place == "." or place.split("/")[0] in ("..", STORES, ".git") else place


def listed(session: Session) -> list[Pattern]:
    """Return all tracked patterns, those of the root first."""
    files = session.repo.git().lines(
        "ls-files", "-z", "-c", "-o", "--exclude-standard", "--", f":(top,glob)**/{NAME}"
    )
    found = []
    for file in sorted({NAME, *files}, key=lambda path: (path.count("/"), path)):
        folder = file.removesuffix(NAME).rstrip("/")
        lines = attribute_lines.read(session.repo.worktree / file)
        found += [Pattern(line.pattern, folder) for line in lines if line.is_tracked]
    return found


def track(session: Session, cwd: Path, wanted: Sequence[str], *, override: bool = False) -> Tracked:
    """Add patterns to the ``.gitattributes`` of ``cwd``, stage it, and set up this clone.

    Files that other lines claim are left to them, or with ``override`` get a line of theta's after those.
    Raises :class:`UsageError` if other lines claim all files of a pattern, or if a file is a Git LFS
    pointer; then nothing is changed.
    """
    folder = folder_of(session, cwd)
    spelled = [_spelled(session.repo.worktree / folder, pattern) for pattern in wanted]
    place = session.repo.worktree / folder / NAME
    lines = attribute_lines.read(place)
    known = {line.pattern for line in lines if line.is_tracked}
    new = [pattern for pattern in dict.fromkeys(spelled) if pattern not in known]
    for pattern in new:
        lines = attribute_lines.with_tracked(lines, pattern)
    with ExitStack() as refusals:
        refusals.enter_context(_unless_refused(place, session.repo.worktree / NAME))
        if new:
            attribute_lines.write(place, lines)
        installing.ensure_attributes(session.repo)
        matched, ignored = _matches(session, folder, spelled)
        paths = sorted({path for row in matched for path in row})
        held = claims.held(session.repo, session.scratch(), paths)
        over = overriding.wanted(folder, spelled, matched, held) if override else {}
        if over:
            refusals.enter_context(_unless_refused(*(overriding.place(session.repo, at) for at in over)))
            overriding.write(session.repo, over)
            held = claims.held(session.repo, session.scratch(), paths)
        _refuse_idle(held, wanted, matched)
        _refuse_pointers(session, [path for path in paths if path not in held or not held[path].is_filter])
    installing.ensure(session.repo)
    shared = [os.path.join(where, NAME) for where in over if where != claims.LOCAL]
    session.repo.git().run("add", "--", NAME, os.path.join(folder, NAME), *shared)
    unmatched = [attribute_lines.shown(p) for p, paths in zip(spelled, matched, strict=True) if not paths]
    return Tracked(tuple(map(attribute_lines.shown, new)), tuple(unmatched), tuple(ignored), held, over)


def _spelled(place: Path, wanted: str) -> str:
    """Return the pattern for ``wanted``, which is a glob, or a file or directory in ``place``."""
    name = wanted.removeprefix("./").rstrip("/")
    parts = name.split("/")
    senseless = "\n" in name and not os.path.lexists(place / name)
    if not name or senseless or ".." in parts or name.startswith("/") or parts[0] in (STORES, ".git"):
        raise UsageError(
            f"not a pattern that can be tracked: {wanted!r}",
            hint="patterns are relative to the folder you are in",
        )
    if (place / name).is_dir() and not (place / name).is_symlink():
        return attribute_lines.literal(name) + "/**"
    if os.path.lexists(place / name) and (set(name) & set("[\\") or name[0] in '!#"'):
        return attribute_lines.literal(name)
    if name.startswith("!"):
        raise UsageError(
            f"there are no negative patterns: {wanted!r}", hint="'theta untrack' takes patterns back"
        )
    return attribute_lines.encoded(name)


@contextmanager
def _unless_refused(*files: Path) -> Iterator[None]:
    """Restore ``files`` if the block raises a theta error."""
    before = {file: file.read_bytes() if file.is_file() else None for file in files}
    try:
        yield
    except ThetaError:
        for file, data in before.items():
            if data is not None:
                _fs.write_atomic(file, data)
            elif file.is_file():
                _fs.remove(file)
        raise


def _matches(session: Session, folder: str, spelled: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the files that each pattern of ``folder`` matches, and the ignored files among all matches."""
    git = session.repo.git()
    below = [f":(top,literal){folder}"] if folder else [":(top)"]
    files = dict.fromkeys(git.lines("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", *below))
    ignored = git.lines("ls-files", "-z", "-o", "-i", "--exclude-standard", "--", *below)
    paths = [path for path in [*files, *ignored] if not path.startswith((STORES + "/", ".git/"))]
    patterns = [attribute_probe.from_root(folder, pattern) for pattern in spelled]
    found = attribute_probe.matches(session.repo, session.scratch(), patterns, paths)
    left_out = set(ignored)
    matched = [[path for path in row if path not in left_out] for row in found]
    return matched, sorted({path for row in found for path in row} & left_out)


def _refuse_idle(held: Mapping[str, Claim], wanted: Sequence[str], matched: Sequence[Sequence[str]]) -> None:
    """Raise :class:`UsageError` if other lines claim every file that one of the patterns matches."""
    for pattern, paths in zip(wanted, matched, strict=True):
        if paths and all(path in held and held[path].is_filter for path in paths):
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            raise UsageError(
                f"{paths[0]} has {held[paths[0]]}{more}",
                hint=f"to give it to theta: {claims.mend([pattern])}",
            )


def _refuse_pointers(session: Session, paths: Sequence[str]) -> None:
    found = [path for path in paths if lfs.pointer_at(session.repo.worktree / path) is not None]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(
            f"{found[0]} is a Git LFS pointer, not the file itself{more}",
            hint=f"{lfs.FETCH}; then track again",
        )


def untrack(session: Session, cwd: Path, unwanted: Sequence[str]) -> list[str]:
    """Remove patterns from the ``.gitattributes`` of ``cwd``; return the checkpoints that become plain."""
    folder = folder_of(session, cwd)
    place = session.repo.worktree / folder / NAME
    lines = attribute_lines.read(place)
    for pattern in unwanted:
        same = {
            pattern,
            attribute_lines.encoded(pattern),
            attribute_lines.literal(pattern),
            _of_folder(pattern),
        }
        kept = [line for line in lines if not (line.is_tracked and line.pattern in same)]
        if len(kept) == len(lines):
            raise _not_here(session, pattern, same)
        lines = kept
    before = session.index.keys()
    attribute_lines.write(place, lines)
    session.repo.git().run("add", "-A", "--", os.path.join(folder, NAME), check=False)  # it may be ignored
    gone = sorted(before - session.index.keys())
    if gone:
        session.repo.git(extra={}).run("add", "--renormalize", "--", *(f":(top,literal){p}" for p in gone))
    closures.sync(session)
    return gone


def _of_folder(pattern: str) -> str:
    return attribute_lines.literal(pattern.rstrip("/")) + "/**"


def _not_here(session: Session, pattern: str, same: set[str]) -> NotFoundError:
    elsewhere = [item.folder for item in listed(session) if item.pattern in same]
    if elsewhere:
        place = elsewhere[0] or "the root"
        return NotFoundError(
            f"{pattern} is not tracked by the {NAME} of this folder",
            hint=f"it is by that of {place}: run it there",
        )
    return NotFoundError(f"{pattern} is not a tracked pattern", hint="'theta track' lists them")


def raw_files(session: Session) -> list[str]:
    """Return the tracked files that are in the index as plain bytes."""
    return [path for path in session.index if session.index.manifest(path) is None]


def check_moves(session: Session, paths: Sequence[str]) -> None:
    """Raise :class:`UsageError` if renaming checkpoints gives one a path that no pattern tracks.

    ``paths`` are those of ``git mv``: the last is the target.
    """
    for source, target in _moved(session, paths):
        is_checkpoint = session.from_root(source) in session.index
        if is_checkpoint and not only_tracked(session.repo, [session.from_root(target)]):
            raise UsageError(f"{target} would not be tracked", hint=f"theta track {os.path.basename(target)}")


def renames(session: Session, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the old and the new path, from the root, of what ``git mv PATHS`` renames."""
    for source, target in _moved(session, paths):
        with suppress(UsageError):  # git refuses what is outside of the repository
            yield session.from_root(source), session.from_root(target)


def _moved(session: Session, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    into = bool(paths) and (session.cwd / paths[-1]).is_dir()
    for source in paths[:-1]:
        yield source, os.path.join(paths[-1], os.path.basename(source.rstrip("/"))) if into else paths[-1]
