"""Files that a merge left in conflict: what only theirs changed is not in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from theta import _notes
from theta.errors import RefusedError
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest

OURS: Final = 2
"""Git's stage of ours."""
_NAMED: Final = 3
"""The most tensors whose names a message has."""
_CHOSEN: Final = "chosen-ours"
"""Names the note with path -> blob id of what the user took as ours, such as by ``git checkout --ours``."""


def check(session: Session, path: str, manifest: Manifest, index: Path | None = None) -> str:
    """Return a warning if ``manifest``, to be staged at ``path``, drops what only theirs changed; or "".

    Raises :class:`RefusedError` for what the stopped command left in the worktree: all of ours.  To stage it
    would settle each conflict, and drop all of theirs, and nobody has asked for either.
    """
    stages = session.index_of(index).stages.get(path, {})
    base, ours, theirs = (
        session.manifest_or_none(stages[n].oid) if n in stages else None for n in (1, OURS, 3)
    )
    if 0 in stages or ours is None or theirs is None:
        return ""
    dropped = _dropped(base, ours, theirs, manifest)
    if manifest.same_value(ours) and not _is_chosen(session.repo, path, stages[OURS].oid):
        also = f", without what only theirs changed ({_names(dropped)})" if dropped else ""
        raise RefusedError(
            f"{path} is in conflict, and its file is all of ours{also}; 'theta resolve' settles it",
            hint=f"'theta checkout --ours -- {path}' first, if all of theirs is to be dropped",
        )
    return f"{path} lacks what only theirs changed: {_names(dropped)}" if dropped else ""


def _is_chosen(repo: Repository, path: str, oid: str) -> bool:
    return _notes.read_json(repo.private / _CHOSEN).get(path) == oid


def note_choice(repo: Repository, path: str, oid: str | None) -> None:
    """Note that the user takes blob ``oid``, which is ours, for ``path``."""
    place = repo.private / _CHOSEN
    _notes.write(place, json.dumps({**_notes.read_json(place), path: oid}))


def _dropped(base: Manifest | None, ours: Manifest, theirs: Manifest, result: Manifest) -> list[str]:
    """Return the tensors that theirs changed or added, and that are as before in ours and in ``result``."""
    before = {} if base is None else _values(base)
    kept, coming, made = map(_values, (ours, theirs, result))
    return [
        name
        for name in sorted(before | coming)
        if coming.get(name) != before.get(name) == kept.get(name) == made.get(name)
    ]


def _values(manifest: Manifest) -> dict[str, str]:
    return {line.name: line.digest for line in manifest.lines}


def _names(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
