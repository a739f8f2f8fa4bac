"""``theta scan``: list the functions that loading the pickles of files or commits would call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theta.errors import NotFoundError, ThetaError
from theta.formats.layout import BytesSource, Source
from theta.formats.pickle_files.pickle_scan import PickleReport, scan_pickles
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource
from theta.store.read.random_access import StoredSource


@dataclass(frozen=True)
class Scanned:
    """The report about the file ``name``, a path or ``REV:PATH``."""

    name: str
    report: PickleReport

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        found = [
            {"where": item.where, "global": f"{item.module}.{item.name}", "verdict": item.verdict}
            for item in self.report.findings
        ]
        return {
            "name": self.name,
            "verdict": self.report.worst(),
            "globals": found,
            "unread": list(self.report.broken),
        }


def scan(names: Iterable[str], cwd: Path) -> Iterator[Scanned]:
    """Scan each of ``names``: a file, a directory, a revision, or ``REV:PATH``; existing paths come first.

    Raises :class:`NotFoundError` for any other name.
    """
    session: Session | None = None
    for name in names:
        place = cwd / name
        if place.is_dir():
            yield from _folder(place, name)
        elif os.path.lexists(place):
            yield Scanned(name, of_file(place))
        else:
            session = session or _session(name, cwd)
            yield from _revision(session, name)


def of_file(path: Path) -> PickleReport:
    """Scan the pickles in the file at ``path``."""
    with FileSource(path) as source:
        return scan_pickles(source)


def warning(report: PickleReport) -> str:
    """Return one line about a file whose pickles are dangerous; '' if they are not."""
    names = [f"{item.module}.{item.name}" for item in report.findings if item.verdict == "dangerous"]
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"loading it would call {names[0][:80]!a}{more}: do not unpickle it ('theta scan' lists them)"


def warnings(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of ``paths`` (relative to ``root``) that is dangerous to load."""
    for path in paths:
        try:
            line = warning(of_file(root / path))
        except ThetaError:
            continue
        if line:
            yield f"{path}: {line}"


def _session(name: str, cwd: Path) -> Session:
    try:
        return Session.here(cwd)
    except ThetaError as error:
        raise NotFoundError(f"{name}: no such file, and there is no repository here") from error


def _folder(place: Path, name: str) -> Iterator[Scanned]:
    """Scan the files in a folder and below; links to files too, as downloaded models have them."""
    unread: list[OSError] = []
    for folder, folders, files in os.walk(place, onerror=unread.append):
        folders[:] = sorted(item for item in folders if item not in (".git", ".theta"))
        for path in (Path(folder, item) for item in sorted([*folders, *files])):
            if path.is_file():
                yield Scanned(str(Path(name, path.relative_to(place))), _of_any_file(path))
            elif path.is_dir() and path.is_symlink():
                yield _unread(place, name, path, "a link to a folder, which was not scanned")
    for error in unread:
        yield _unread(place, name, Path(error.filename), f"a folder that cannot be read: {error.strerror}")


def _unread(place: Path, name: str, path: Path, why: str) -> Scanned:
    return Scanned(str(Path(name, path.relative_to(place))), PickleReport((), (why,)))


def _of_any_file(path: Path) -> PickleReport:
    """Like :func:`of_file`, but report an error instead of raising it."""
    try:
        return of_file(path)
    except ThetaError as error:
        return PickleReport((), (str(error),))


def _revision(session: Session, name: str) -> Iterator[Scanned]:
    place = session.tree_path(name)
    if place is None and session.repo.git().run("rev-parse", "-q", "--verify", name, check=False).code:
        raise NotFoundError(f"{name} is neither a file nor a revision")
    if place is not None and place.path:
        oid = session.repo.file_at(place)
        if oid is None:
            raise NotFoundError(f"there is no file {place.path} in {place.where}")
        yield Scanned(name, of_blob(session, oid))
        return
    revision = name if place is None else place.revision
    tree = session.repo.tree_of(revision or "HEAD")
    files = [(found, entry.id) for found, entry in session.repo.walk_blobs(tree)]
    _expect(session, [oid for _, oid in files])
    for found, oid in files:
        yield Scanned(f"{revision}:{found}", of_blob(session, oid))


def _expect(session: Session, oids: list[str]) -> None:
    """Announce that these files will be read, and of checkpoints only the tensors of bytes."""
    if not session.repo.promised.is_partial:
        return
    session.repo.promised.expect(oids)
    for manifest in filter(None, map(session.manifest_or_none, oids)):
        tensors = {line.name for line in manifest.lines if line.dtype != "bytes"}
        session.objects.expect(manifest.trees(tensors))


def of_blob(session: Session, oid: str) -> PickleReport:
    """Scan the pickles in a blob, or in the checkpoint of which it is the manifest."""
    manifest = session.manifest_or_none(oid)
    source: Source = BytesSource(session.repo.read_blob(oid))
    if manifest is not None:
        _expect(session, [oid])
        source = StoredSource(session.objects, manifest)
    return scan_pickles(source)
