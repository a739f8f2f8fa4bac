"""Commits in one file, for a mail or an issue: git's bundles, with the sizes of the models beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta.errors import CorruptError, DiskError, NotFoundError, UsageError
from theta.git.object_format import ID
from theta.git.run import GitFailedError
from theta.porcelain.workspace.session import Session

_LACKED: Final = re.compile(rf"^error: ({ID}) ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Bundle:
    """A file of commits.

    Attributes:
        heads: ref -> commit, of what it brings.
        size: its bytes.
        models: the bytes of the checkpoints that its commits restore to.
    """

    heads: dict[str, str]
    size: int
    models: int

    def head(self, name: str | None) -> str:
        """Return the ref to apply: ``name``, or the only one; raises :class:`UsageError`."""
        if name is None and len(set(self.heads.values())) == 1:
            return next(iter(self.heads))
        fits = [
            ref for ref in self.heads if name and ref in (name, f"refs/heads/{name}", f"refs/tags/{name}")
        ]
        if not fits:
            refs = ", ".join(self.heads)
            raise UsageError(f"the bundle has {refs}", hint="theta bundle apply FILE REF")
        return fits[0]


def create(session: Session, file: Path, revisions: Sequence[str]) -> Bundle:
    """Write the commits of ``revisions`` (a range, refs) to ``file``, without what their parents have."""
    git = session.repo.git().in_directory(session.cwd)
    git.run("bundle", "create", "--quiet", str(file), *revisions)
    return read(session, file)


def read(session: Session, file: Path) -> Bundle:
    """Return what ``file`` has; its checkpoints are counted if its commits are here."""
    try:
        rows = session.repo.git().run("bundle", "list-heads", str(file.absolute())).text.split("\n")[:-1]
        size = file.stat().st_size
    except (GitFailedError, OSError) as error:
        raise DiskError(f"{file} is no bundle that git can read: {error}") from error
    heads = {ref: oid for oid, _, ref in (row.partition(" ") for row in rows)}
    for ref in heads:
        _check_name(session, file, ref)
    tips = {oid for oid in heads.values() if session.repo.has(oid)}
    models = {path: one.nbytes for tip in tips for path, one in session.at(tip).manifests.items()}
    return Bundle(heads, size, sum(models.values()))


def _check_name(session: Session, file: Path, name: str) -> None:
    """Raise :class:`CorruptError` for a name that git would read as a refspec or as an option."""
    if name != "HEAD" and not (name.startswith("refs/") and session.repo.refs.is_valid(name)):
        raise CorruptError(
            f"{file} has a head that is no name of a ref: {name!r}",
            hint="no bundle that git writes from branches and tags has one",
        )


def check(session: Session, file: Path) -> None:
    """Raise :class:`NotFoundError` if ``file`` rests on commits that are not here."""
    done = session.repo.git().run("bundle", "verify", str(file.absolute()), check=False)
    said = done.stderr.decode("utf-8", "replace")
    if done.code and (found := _LACKED.search(said)):
        subject = f" ({found[2]})" if found[2] else ""
        raise NotFoundError(
            f"{file} continues commit {found[1][:12]}{subject}, which is not here", hint="fetch that first"
        )
