"""``theta export-history``: checkpoints become plain files or pointers of Git LFS again, in all history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from theta import _fs
from theta.errors import UsageError, concerning
from theta.git import lfs
from theta.git.object_values import Commit
from theta.porcelain.drive import renewing
from theta.porcelain.migration import attribute_texts, rewriting
from theta.porcelain.migration.digests import sha256_of
from theta.porcelain.migration.importing import Reported, silent
from theta.porcelain.stage import saved_tree
from theta.porcelain.tensors import sources
from theta.porcelain.workspace.session import Change, Session
from theta.store.format.manifest import Manifest
from theta.store.read.random_access import StoredSource

KINDS: Final = {"lfs": "filter=lfs diff=lfs merge=lfs -text", "raw": ""}
"""Kind of file that checkpoints become -> attributes that their patterns get."""
_POINTER: Final = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@dataclass
class ExportedHistory:
    """A history that was exported.

    Attributes:
        files: path -> number of its versions.
        nbytes: bytes of all versions.
        rewritten: old commit -> new commit, where it is another one.
        refs: refs that moved.
    """

    files: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0
    rewritten: dict[str, str] = field(default_factory=dict)
    refs: Sequence[str] = ()


def export(session: Session, kind: str, told: Reported = silent) -> ExportedHistory:
    """Write all branches and tags anew without theta; ``kind`` is a key of :data:`KINDS`.

    Raises:
        UsageError: there is no such kind, or no checkpoint.
        RefusedError: files have changes that are not committed; or the clone is shallow.
    """
    if kind not in KINDS:
        raise UsageError(f"theta exports histories as {', '.join(KINDS)}, not as {kind!r}")
    renewing.refuse_unclean(session)
    rewriting.refuse_second(session)
    rewriting.refuse_elsewhere(session)
    exporter = _Exporter(session, kind, told)
    with session.change() as change:
        done = rewriting.rewrite(session, change, rewriting.refs_of(session), exporter.tree)
        if not exporter.result.files:
            raise UsageError("no commit has a checkpoint")
        reason = f"export-history: as {kind}"
        renewing.advance(session, done.head, lambda: rewriting.move(session, done, reason))
    exporter.result.rewritten = {old: new for old, new in done.commits.items() if old != new}
    exporter.result.refs = tuple(done.refs)
    return exporter.result


class _Exporter:
    """Trees with files in the place of checkpoints; each version is written once."""

    def __init__(self, session: Session, kind: str, told: Reported) -> None:
        self._session, self._kind, self._told = session, kind, told
        self._made: dict[tuple[str, str, str], str] = {}
        self.result = ExportedHistory()

    def tree(self, change: Change, commit: Commit, _parents: Sequence[str]) -> str:
        """Return the tree of ``commit`` without checkpoints."""
        repo = self._session.repo
        tree = repo.tree_of(commit.id)
        found = self._session.of_tree(tree).manifests
        if not found:
            return tree.id
        blobs: dict[str, str | None] = {path: self._blob(change, path, one) for path, one in found.items()}
        for path, data in attribute_texts.restored(repo, tree, KINDS[self._kind]).items():
            blobs[path] = change.pack.blob(data, text=True) if data is not None else None
        return saved_tree.edited(change.pack, tree, blobs, None)

    def _blob(self, change: Change, path: str, manifest: Manifest) -> str:
        key = (path, manifest.skeleton, "".join(line.digest for line in manifest.lines))
        if key not in self._made:
            self._told(f"writing {path}")
            with concerning(path):
                self._made[key] = (
                    self._pointer(change, manifest) if self._kind == "lfs" else self._plain(manifest)
                )
            self.result.files[path] = self.result.files.get(path, 0) + 1
        return self._made[key]

    def _pointer(self, change: Change, manifest: Manifest) -> str:
        """Write the file where Git LFS keeps it; return the blob of its pointer."""
        session = self._session
        source = StoredSource(session.objects, manifest)
        oid = sha256_of(source)
        place = lfs.place(session.repo, oid)
        self.result.nbytes += source.size
        if not place.is_file():
            _fs.make_dirs(place.parent)
            sources.copy_exactly(session, manifest, place, force=True, progress=None)
        return change.pack.blob(_POINTER.format(oid, source.size).encode(), text=True)

    def _plain(self, manifest: Manifest) -> str:
        """Write the file as a blob, by way of a file: git reads it in pieces."""
        session = self._session
        place = session.scratch() / _fs.own_temporary("exported")
        sources.copy_exactly(session, manifest, place, force=True, progress=None)
        self.result.nbytes += place.stat().st_size
        try:
            return session.repo.git().run("hash-object", "-w", "--no-filters", str(place)).text.strip()
        finally:
            _fs.remove(place)
