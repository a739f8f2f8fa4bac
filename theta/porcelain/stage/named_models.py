"""Committed models by what users call them: a file, an index of shards, the name of the whole, a folder."""

from __future__ import annotations

from fnmatch import fnmatchcase

from theta.errors import ThetaError, UsageError
from theta.formats import sharded
from theta.porcelain.workspace.checkpoints import by_model, shards_of
from theta.porcelain.workspace.session import Session

_LISTED = 3


def files_of(session: Session, name: str) -> list[str]:
    """Return the checkpoints of the one model that ``name`` (from the root) stands for.

    ``name`` itself when nothing else fits.  Raises :class:`UsageError` when several models do.
    """
    staged = session.index
    if name in staged:
        return [name]
    if name.endswith(sharded.SUFFIX):
        return _of_index(session, name) or [name]
    if found := sorted(shards_of(name, staged)):
        return found
    folder = "" if name == "." else name.rstrip("/") + "/"
    found = [path for path in staged if path.startswith(folder) or fnmatchcase(path, name)]
    models = by_model(found)
    if len(models) > 1:
        some = ", ".join(sorted(models)[:_LISTED])
        raise UsageError(f"{name} has {len(models)} models: {some}", hint="name one of them")
    return sorted(found) or [name]


def _of_index(session: Session, name: str) -> list[str]:
    """Return the shards that an index file lists, or those whose names fit where it cannot be read."""
    folder, slash, _ = name.rpartition("/")
    place = session.repo.worktree / name
    try:
        listed = set(sharded.read_index(place.read_bytes()).weight_map.values()) if place.is_file() else set()
    except ThetaError:
        listed = set()
    found = [
        path for path in (f"{folder}{slash}{shard}" for shard in sorted(listed)) if path in session.index
    ]
    return found or sorted(shards_of(name.removesuffix(sharded.SUFFIX), session.index))
