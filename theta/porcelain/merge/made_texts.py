"""Files of text that a merge makes, such as a joined tokenizer: which are written, and over what.

Work of the user is never written over: neither a file that was edited in the worktree, nor one that git
left in conflict or changed and that the user settled since.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import WouldOverwriteError
from theta.git import state_files
from theta.git.backends.index_entries import Entry
from theta.git.object_values import MODE_BLOB
from theta.porcelain.workspace.session import Session

_EXECUTABLE: Final = 0o100755


@dataclass(frozen=True)
class MadeText:
    """A file of text that is to be written: its bytes and its mode in the index."""

    data: bytes
    mode: int = MODE_BLOB

    def write(self, session: Session, path: str) -> None:
        """Write the file to the worktree."""
        mode = 0o777 if self.mode == _EXECUTABLE else 0o666
        _fs.write_atomic(_fs.safe_target(session.repo.worktree, path), self.data, mode)


@dataclass(frozen=True)
class OpenText:
    """A file of text that both sides changed.

    Attributes:
        data: its content, with git's marks where the sides differ.
        versions: its content in base, ours and theirs; None for one without it.
        is_clean: git found no difference.
    """

    data: bytes
    versions: Sequence[bytes | None]
    is_clean: bool = False


def merged(session: Session, versions: Sequence[bytes | None]) -> OpenText:
    """Merge a text in ``versions`` (base, ours and theirs) as git does; it is clean if it stays JSON."""
    with _fs.temporary_directory("theta-texts-") as folder:
        places = [folder / name for name in ("base", "ours", "theirs")]
        for place, data in zip(places, versions, strict=True):
            _fs.write_atomic(place, data or b"", durable=False)
        words = [word for name in ("ours", "base", "theirs") for word in ("-L", name)]
        sides = [str(places[number]) for number in (1, 0, 2)]
        done = session.repo.git().run("merge-file", "-p", *words, *sides, check=False)
    is_clean = done.code == 0 and _meaning(done.stdout) is not None
    return OpenText(done.stdout, versions, is_clean)


def same_text(one: bytes | None, other: bytes) -> bool:
    """Return whether two files are equal, or say the same as JSON, its order included."""
    if one is None or one == other:
        return one is not None
    meaning = _meaning(one)
    return meaning is not None and meaning == _meaning(other)


def _meaning(data: bytes) -> str | None:
    """Return the JSON in ``data`` in one spelling, its order included; None if it is none."""
    try:
        return json.dumps(json.loads(data))
    except (ValueError, RecursionError):
        return None


def to_write(session: Session, texts: Mapping[str, bytes], *, at_once: bool) -> dict[str, MadeText]:
    """Return those of ``texts`` (path -> content) that are to be written, in index and worktree.

    With ``at_once`` git has just merged, or is going to.  Otherwise the user may have settled files since:
    one that is not in conflict is left alone unless it is as git left it.
    Raises :class:`WouldOverwriteError` if a file in the worktree has work that is in no version.
    """
    if not texts:
        return {}
    left = {path: oid for path in texts if (oid := _left_by_git(session, path))}
    index, found = _stages(session, texts), {}
    for path, data in texts.items():
        stages = index.get(path, {})
        merged = stages.get(0)
        if merged is not None:
            blob = session.repo.blob(merged.oid)
            is_settled = not at_once and merged.oid != left.get(path)
            if is_settled or same_text(None if blob is None else blob.data, data):
                continue
        _refuse_own(session, path, {entry.oid for entry in stages.values()} | {left.get(path, "")})
        mode = next((stages[stage].mode for stage in (0, 2, 3) if stage in stages), MODE_BLOB)
        found[path] = MadeText(data, mode)
    return found


def to_open(
    session: Session, texts: Mapping[str, OpenText], known: Collection[str], *, at_once: bool
) -> dict[str, OpenText]:
    """Return those of ``texts`` that are to be put in conflict, in index and worktree.

    Unless ``at_once``, files in ``known`` were put there before, and others may be settled, or half settled.
    Raises :class:`WouldOverwriteError` if a file in the worktree has work that is in no version.
    """
    found, stages = {}, _stages(session, texts)
    for path, text in texts.items():
        left, own = _left_by_git(session, path), stages.get(path, {})
        if not at_once and (path in known or (0 in own and own[0].oid != left)):
            continue
        try:
            _refuse_own(session, path, {entry.oid for entry in own.values()} | {left})
        except WouldOverwriteError:
            if at_once or 0 in own:
                raise
            continue
        found[path] = text
    return found


def _stages(session: Session, texts: Collection[str]) -> dict[str, dict[int, Entry]]:
    """Return path -> stage -> entry of the index, for the paths ``texts``."""
    index: dict[str, dict[int, Entry]] = {}
    for entry in session.repo.entries() if texts else ():
        if entry.path in texts:
            index.setdefault(entry.path, {})[entry.stage] = entry
    return index


def edited(session: Session, names: Collection[str]) -> bool:
    """Return whether a file of the worktree with one of ``names`` is not what the index has."""
    for entry in session.repo.entries():
        if entry.path.rpartition("/")[2] in names and not entry.stage:
            place = session.repo.worktree / entry.path
            if place.is_file() and _oid(session, entry.path, place, filtered=False) != entry.oid:
                return True
    return False


def is_gits(session: Session, path: str, oid: str) -> bool:
    """Return whether git's merge gave ``path`` the content ``oid``, and no other state is known since."""
    return _left_by_git(session, path) == oid


def _left_by_git(session: Session, path: str) -> str:
    """Return the id of what git's merge wrote to the worktree, conflict markers and all; "" for nothing."""
    oid = state_files.content(session.repo.gitdir, state_files.AUTO_MERGE).strip()
    tree = session.repo.tree_here(oid) if oid else None
    entry = tree.get(path) if tree is not None else None
    return "" if entry is None else entry.id


def _refuse_own(session: Session, path: str, known: set[str]) -> None:
    """Refuse a file in the worktree whose content is none of the blobs ``known``, nor that of HEAD."""
    place = session.repo.worktree / path
    try:
        is_file = stat.S_ISREG(place.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    if is_file:
        head = session.repo.head()
        entry = session.repo.tree_of(head).get(path) if head is not None else None
        known = known | ({entry.id} if entry is not None else set())
        if _oid(session, path, place, filtered=False) in known or _oid(session, path, place) in known:
            return
    word = session.word(path)
    raise WouldOverwriteError(
        f"the merge would write over {session.place(path)}, whose content in the worktree is in no version",
        hint=f"'theta add {word}' or a commit keeps it, 'theta restore {word}' drops it; then merge again",
    )


def _oid(session: Session, path: str, place: Path, *, filtered: bool = True) -> str:
    """Return the blob id of a file in the worktree, as it is or as git would add it."""
    if not filtered:
        return session.repo.format.blob_id(place.read_bytes())
    return session.repo.git().run("hash-object", "--", path, check=False).text.strip()
