"""``theta add``: which of the named files are checkpoints, and staging them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from theta.errors import NotFoundError
from theta.git.attributes import only_tracked
from theta.git.run import Git
from theta.porcelain import staging
from theta.porcelain.session import Session
from theta.porcelain.staging import Added
from theta.store.snapshot import Progress


@dataclass(frozen=True)
class Selection:
    """What a pathspec names: checkpoints that exist, that are gone, and whether there is more."""

    present: tuple[str, ...]
    gone: tuple[str, ...]


def select(session: Session, git: Git, pathspecs: list[str], *, update: bool, force: bool) -> Selection:
    """The checkpoints among ``pathspecs`` (relative to ``git``'s directory).

    ``update`` leaves untracked files out; ``force`` takes ignored ones.
    """
    kinds = ["-c"] if update else ["-c", "-o"] if force else ["-c", "-o", "--exclude-standard"]
    names = dict.fromkeys(git.lines("ls-files", "-z", "--full-name", *kinds, "--", *pathspecs))
    tracked = sorted(set(only_tracked(session.repo, names)))
    places = {path: session.repo.worktree / path for path in tracked}
    present = tuple(path for path, place in places.items() if place.exists() and not place.is_symlink())
    return Selection(present, tuple(path for path, place in places.items() if not os.path.lexists(place)))


def add(session: Session, selection: Selection, progress: Progress | None = None) -> list[Added]:
    """Stage the selected checkpoints; those that are gone are staged as deleted."""
    added = staging.add_files(session, selection.present, progress)
    if selection.gone:
        with session.index_edit() as edit:
            for path in selection.gone:
                edit.remove(path)
                edit.drop_conflict(path)
        staging.sync(session)
    return added


def check_pathspecs(session: Session, git: Git, pathspecs: list[str]) -> None:
    """Raise :class:`NotFoundError` for a pathspec that names nothing, as git does."""
    for spec in pathspecs:
        if os.path.lexists(git.cwd / spec):
            continue
        if not git.lines("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", spec):
            raise NotFoundError(f"pathspec '{spec}' did not match any files")
