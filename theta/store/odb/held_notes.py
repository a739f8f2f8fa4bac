"""The notes of packs that git's clean filter made and nothing names yet, one a manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _notes
from theta.git.object_format import ID, format_of
from theta.git.repository import Repository
from theta.store.odb.packs import Pack

ADOPTED: Final = "adopted"
_PACK: Final = rf"(pack-{ID}\.pack)?"
_TIP: Final = rf"({ID})?"


def directory_of(repo: Repository) -> Path:
    """Return the directory of the notes of ``repo``."""
    return repo.shared / "staged"


@dataclass(frozen=True)
class Note:
    """The note on one manifest that clean made: ``<commondir>/theta/staged/<manifest>``."""

    place: Path
    pack: Path | None
    owner: str
    tips: tuple[str, ...]

    @property
    def manifest(self) -> str:
        """The id of the manifest."""
        return self.place.name

    @property
    def adopted(self) -> bool:
        """Whether the pack is to stay: an index held all that it has."""
        return self.owner == ADOPTED

    def ids(self) -> set[str]:
        """Return the objects of the pack; empty when git repacked it."""
        index = self.pack.with_suffix(".idx") if self.pack else None
        if index is None or not index.exists():
            return set()
        return set(Pack(index, format_of(self.manifest)).ids())

    def write(self) -> None:
        """Save the note."""
        name = self.pack.name if self.pack else ""
        _notes.write(self.place, "\n".join([name, self.owner, *self.tips, ""]))


def staged_packs(repo: Repository) -> list[Path]:
    """Return the packs that may still be removed."""
    return [
        note.pack for note in all_notes(repo) if not note.adopted and note.pack is not None and note.ids()
    ]


def all_notes(repo: Repository) -> list[Note]:
    """Return the notes of ``repo``, by manifest."""
    directory = directory_of(repo)
    return [_read(repo, place) for place in sorted(directory.iterdir())] if directory.is_dir() else []


def read_note(repo: Repository, manifest: str) -> Note | None:
    """Return the note of ``manifest``; None when there is none."""
    place = directory_of(repo) / manifest
    return _read(repo, place) if place.exists() else None


def _read(repo: Repository, place: Path) -> Note:
    name, owner, *tips = [*(_notes.read(place) or "").split("\n"), ""]
    if not (re.fullmatch(_PACK, name) and all(re.fullmatch(_TIP, tip) for tip in tips)) or not owner:
        return Note(place, None, ADOPTED, ())  # damaged: kept as long as anything names the manifest
    pack = repo.commondir / "objects" / "pack" / name if name else None
    return Note(place, pack, owner, tuple(tip for tip in tips if tip))
