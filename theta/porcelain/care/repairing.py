"""``theta fsck --repair-from REMOTE``: damaged objects are brought anew, and damaged files are kept aside.

All that the remote has is fetched into a repository of its own, since a fetch into a damaged one believes
that it has what it only names.  Files that git cannot read go to ``.git/theta/bad``; what can still be read
of them, and the remote does not have, is taken over.  Nothing is deleted.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from theta import _fs, _notes
from theta.errors import CorruptError, NotFoundError
from theta.git import remotes
from theta.git.backends import loose_and_packed
from theta.git.run import DEFER, Git
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin

BAD: Final = "bad"
"""The folder for damaged files, below theta's own in the git directory."""
_LOOSE: Final = re.compile(r"[0-9a-f]{38}|[0-9a-f]{62}")


@dataclass(frozen=True)
class Repaired:
    """The outcome of a repair.

    Attributes:
        aside: the files that are damaged, where they are now.
        packs: the number of packs that came from the remote.
    """

    aside: tuple[Path, ...]
    packs: int


def repair(session: Session, remote: str, progress: Progress | None = None) -> Repaired:
    """Replace damaged objects by those of ``remote``, while no other theta is at work.

    Raises :class:`NotFoundError` for a remote that is not configured, and what git says if it cannot be
    fetched from; nothing is changed then.
    """
    repo = session.repo
    if f"remote.{remote}.url" not in repo.config:
        raise NotFoundError(f"there is no remote '{remote}'", hint="'git remote -v' lists them")
    begin(progress, "fetching", 0, remote)
    with (
        session.journal.exclusive(alone=True),
        _fs.temporary_directory(_fs.own_temporary("repair"), session.scratch()) as place,
    ):
        remotes.fetch_apart(repo, place, ("fetch.fsckObjects=true",), ("--", remote, "+refs/*:refs/*"))
        aside = _put_aside(session, list(_damaged(session)))
        packs = _take(place / "objects" / "pack", _objects(session) / "pack")
        for file in aside:
            _rescue(session, file)
    return Repaired(tuple(aside), packs)


def _objects(session: Session) -> Path:
    return session.objects.directory.parent


def _alone(session: Session) -> Git:
    """Return a git that fetches nothing unasked."""
    return session.repo.git(extra={**DEFER, "GIT_NO_LAZY_FETCH": "1"})


def _damaged(session: Session) -> Iterator[Path]:
    """Yield the files of objects, and the lists of them, that git cannot read."""
    place, git = _objects(session), _alone(session)
    several = place / "pack" / "multi-pack-index"
    if several.exists() and git.run("multi-pack-index", "verify", check=False).code:
        yield several
    graphs = [place / "info" / "commit-graph", place / "info" / "commit-graphs"]
    if any(graph.exists() for graph in graphs) and git.run("commit-graph", "verify", check=False).code:
        yield from (graph for graph in graphs if graph.exists())
    for pack in sorted((place / "pack").glob("pack-*.pack")):
        index = pack.with_suffix(".idx")
        if not index.is_file() or git.run("verify-pack", str(index), check=False).code:
            files = [pack.with_suffix(end) for end in (".idx", ".rev", ".bitmap", ".promisor", ".pack")]
            yield from (file for file in files if file.exists())
    for folder in sorted(place.glob("[0-9a-f][0-9a-f]")):
        yield from (file for file in sorted(folder.iterdir()) if _is_damaged(session, file))


def _is_damaged(session: Session, file: Path) -> bool:
    """Return whether a loose object does not have the content that it is called by."""
    if not _LOOSE.fullmatch(file.name):
        return False
    found = session.repo.format.hash()
    try:
        for piece in loose_and_packed.unpacked(file):
            found.update(piece)
    except (OSError, CorruptError):
        return True
    return found.hexdigest() != file.parent.name + file.name


def _put_aside(session: Session, files: list[Path]) -> list[Path]:
    """Move files to theta's folder for damaged ones; return where they are."""
    found = []
    for file in files:
        place = session.repo.shared / BAD
        _notes.directory(place)
        target = place / (file.parent.name + file.name if _LOOSE.fullmatch(file.name) else file.name)
        while target.exists():
            target = target.with_name(f"{target.name}.again")
        _fs.rename(file, target)
        found.append(target)
    return found


def _take(source: Path, target: Path) -> int:
    """Move the packs of the other repository here, each index last; return how many there are."""
    count = 0
    for pack in sorted(source.glob("pack-*.pack")):
        if not (target / pack.name).exists():
            for end in (".promisor", ".pack", ".rev", ".idx"):
                file = pack.with_suffix(end)
                if file.exists():
                    _fs.rename(file, target / file.name)
            count += 1
    return count


def _rescue(session: Session, file: Path) -> None:
    """Store the objects that git can still read of a damaged pack, and that are not here."""
    if ".pack" not in file.name or not file.stat().st_size:
        return
    with file.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    with contextlib.closing(data):  # git reads it from standard input; it is not copied
        _alone(session).run("unpack-objects", "-r", "-q", stdin=cast(bytes, data), check=False)
