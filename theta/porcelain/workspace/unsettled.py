"""Files that a merge left in conflict: what only theirs changed is not in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from theta import _notes
from theta.errors import ManifestError, RefusedError, ThetaError
from theta.git.repository import Repository
from theta.porcelain.workspace.checkpoints import Checkpoint
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Manifest, has_conflict_markers
from theta.units import first_names

OURS: Final = 2
"""Git's stage of ours."""
_CHOSEN: Final = "chosen-ours"
"""Names the note with path -> ids of the conflict whose ours the user took, as by ``git checkout --ours``."""


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
    if manifest.same_value(ours) and not _is_chosen(session.repo, path, stages):
        here, also = (
            session.place(path),
            f", without what only theirs changed ({first_names(dropped)})" if dropped else "",
        )
        raise RefusedError(
            f"{here} is in conflict, and its file is all of ours{also}; 'theta resolve' settles it",
            hint=f"'theta checkout --ours -- {session.word(path)}' first, if all of theirs is to be dropped",
        )
    return f"{session.place(path)} lacks what only theirs changed: {first_names(dropped)}" if dropped else ""


def of_text(session: Session, path: str, text: bytes) -> ThetaError:
    """Return the error of staging the file at ``path``, which holds the manifest ``text``."""
    here, word = session.place(path), session.word(path)
    said = f"{here} holds a manifest in place of the checkpoint"
    if path in session.index:
        return ManifestError(said, hint=f"theta restore {word}")
    if path not in session.index.stages:
        return ManifestError(said, hint=f"'git add {word}' takes it, 'theta restore {word}' then fills it in")
    if has_conflict_markers(text):
        ours = f"'theta restore --ours {word}' brings back the file of ours"
        return RefusedError(f"{here} is in conflict; 'theta resolve' settles it", hint=ours)
    return RefusedError(
        f"{here} is in conflict, and holds a manifest; 'theta resolve' settles it",
        hint=f"'git add {word}' takes the manifest, 'theta restore {word}' then fills it in",
    )


def note_choice(session: Session, path: str) -> None:
    """Note that the user takes ours for ``path``, if it is in conflict."""
    if stages := session.index.conflicts.get(path):
        _note(session.repo, path, _key(stages))


def forget_choice(session: Session, path: str) -> None:
    """Note that nothing is chosen for ``path``: its conflict was made anew."""
    _note(session.repo, path, "")


def _is_chosen(repo: Repository, path: str, stages: Mapping[int, Checkpoint]) -> bool:
    return _notes.read_json(repo.private / _CHOSEN).get(path) == _key(stages)


def _key(stages: Mapping[int, Checkpoint]) -> str:
    return " ".join(f"{n}:{stages[n].oid}" for n in sorted(stages))


def _note(repo: Repository, path: str, key: str) -> None:
    place = repo.private / _CHOSEN
    _notes.write(place, json.dumps({**_notes.read_json(place), path: key}))


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
