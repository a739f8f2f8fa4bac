"""Merging without writing to the repository: new objects go to a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theta import _fs
from theta.git.repository import Repository
from theta.git.run import DEFER, Git
from theta.porcelain.workspace.session import Session
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter


class Rehearsed(Objects):
    """The objects of a repository; new objects go to ``place``, an ``objects`` directory of its own."""

    are_shared = False

    def __init__(self, repo: Repository, place: Path) -> None:
        super().__init__(repo)
        self.place = place

    def writer(self, *, keep: bool = False, in_parts: bool = False) -> PackWriter:  # noqa: ARG002 - not repacked
        """Return a writer of a new pack in the temporary directory."""
        return PackWriter(self.place / "pack", self.has, self.repo.format, in_parts=in_parts)

    def git(self) -> Git:
        """Return a runner of git that writes new objects to the temporary directory."""
        places = {
            "GIT_OBJECT_DIRECTORY": str(self.place),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.repo.commondir / "objects"),
        }
        return self.repo.git(extra={**DEFER, **places})


@contextmanager
def rehearsal(session: Session) -> Iterator[Session]:
    """Return a context manager of a session that reads the repository and writes nothing to it."""
    with _fs.temporary_directory("theta-rehearsal-") as place:
        _fs.make_dirs(place / "pack")
        apart = Session(session.repo.apart(place), session.cwd)
        apart.objects = Rehearsed(apart.repo, place)
        yield apart
