"""``theta migrate``: files of another store become checkpoints, in a new commit or in all history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from theta.errors import CorruptError, NotFoundError, UsageError, concerning
from theta.git.object_values import Commit, Tree
from theta.git.repository import Repository
from theta.porcelain.drive import renewing
from theta.porcelain.migration import attribute_texts, rewriting
from theta.porcelain.migration.digests import sha256_of
from theta.porcelain.migration.dvc_origin import DvcOrigin
from theta.porcelain.migration.git_theta_origin import GitThetaOrigin
from theta.porcelain.migration.lfs_origin import LfsOrigin
from theta.porcelain.migration.origins import Elsewhere, Origin, Selected, Stub
from theta.porcelain.migration.raw_origin import RawOrigin
from theta.porcelain.stage import saved_tree
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.workspace import worktree
from theta.porcelain.workspace.closures import store_name
from theta.porcelain.workspace.session import Change, Session
from theta.store import closure
from theta.store.files import file_scan
from theta.store.format.manifest import Manifest
from theta.store.read.random_access import StoredSource
from theta.store.write import snapshot

ORIGINS: Mapping[str, Callable[[Repository, Selected], Origin]] = {
    "lfs": LfsOrigin,
    "git-theta": GitThetaOrigin,
    "dvc": DvcOrigin,
    "raw": RawOrigin,
}

Reported = Callable[[str], None]
"""Called with a line on what is being done."""


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class MigrateRequest:
    """Files that are to become checkpoints.

    Attributes:
        origin: a key of :data:`ORIGINS`.
        patterns: globs on names or paths; by default the suffixes of checkpoints.
        all_history: write all branches and tags anew instead of one new commit.
        dry_run: only look.
    """

    origin: str
    patterns: Sequence[str] = ()
    all_history: bool = False
    dry_run: bool = False


@dataclass
class MigrateResult:
    """The files that were found, and the commits that were written.

    Attributes:
        label: the name of the store that the files were in.
        commits: number of commits that have such files.
        files: path -> number of its versions.
        nbytes: bytes of all versions whose size is known without reading them.
        stored: bytes that were written for them.
        lacking: one line for each version that cannot be read.
        left: files of the store that stay there.
        rewritten: old commit -> new commit, where it is another one.
        refs: refs that moved.
    """

    label: str
    commits: int = 0
    files: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0
    stored: int = 0
    lacking: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    rewritten: dict[str, str] = field(default_factory=dict)
    refs: Sequence[str] = ()


def migrate(session: Session, request: MigrateRequest, told: Reported = silent) -> MigrateResult:
    """Carry out ``request``.  No ref moves before all versions are stored and compared byte by byte.

    Raises:
        UsageError: there is no such store, or nothing to migrate.
        NotFoundError: a version is not in its store; ``dry_run`` lists all of them.
        CorruptError: a version has other bytes there than its name says.
        RefusedError: files have changes that are not committed; the clone is shallow; an operation is in
            progress; or another worktree has a branch that would move.
        WouldOverwriteError: a file that is not committed is where a checkpoint would be written.
    """
    if request.origin not in ORIGINS:
        raise UsageError(f"theta migrates from {', '.join(ORIGINS)}, not from {request.origin!r}")
    origin = _Seen(ORIGINS[request.origin](session.repo, Selected(tuple(request.patterns))))
    if session.repo.head() is None:
        raise UsageError("there is no commit yet")
    result = _surveyed(session, request, origin)
    if request.dry_run:
        return result
    if not result.files:
        raise UsageError(f"no checkpoint of {origin.label} is in these commits")
    if result.lacking:
        more = f" (and {len(result.lacking) - 1} more)" if len(result.lacking) > 1 else ""
        raise NotFoundError(result.lacking[0] + more, hint="--dry-run lists all that is missing")
    renewing.refuse_unclean(session)
    if request.all_history:
        rewriting.refuse_second(session)
        rewriting.refuse_elsewhere(session)
    _refuse_overwriting(session, origin)
    importer = _Importer(session, origin, request.patterns, told)
    with session.change() as change:
        if request.all_history:
            _rewrite(session, change, importer, result)
        else:
            _commit(session, change, importer, result)
        result.stored = importer.stored
    return result


class _Seen:
    """An origin that looks at each tree once: trees are surveyed before they are rewritten."""

    def __init__(self, origin: Origin) -> None:
        self.label, self._origin = origin.label, origin
        self._found: dict[str, Elsewhere] = {}

    def found(self, tree: Tree) -> Elsewhere:
        """Return what ``tree`` has of the store."""
        if tree.id not in self._found:
            self._found[tree.id] = self._origin.found(tree)
        return self._found[tree.id]


def _refuse_overwriting(session: Session, origin: Origin) -> None:
    """Raise :class:`WouldOverwriteError` for an untracked file that is not what HEAD will have there.

    All that is written is checked again before it is: here nothing was read and stored for hours yet.
    """
    if session.repo.is_bare:
        return
    found = origin.found(session.repo.tree_of("HEAD"))
    coming = {**found.files, **found.plain}
    for path in renewing.standing(session, coming):
        if path not in coming:
            raise renewing.would_overwrite(path)
        with coming[path].opened() as source:
            if not renewing.is_same(session.repo.worktree / path, source.size, source.read):
                raise renewing.would_overwrite(path)


def _surveyed(session: Session, request: MigrateRequest, origin: Origin) -> MigrateResult:
    """Return what ``request`` would migrate."""
    result, seen = MigrateResult(origin.label), set[tuple[str, str]]()
    for oid in _commits(session, request):
        found = origin.found(session.repo.tree_of(oid))
        for path in (*found.files, *found.plain):
            saved_tree.check(path)
        result.commits += bool(found.files)
        result.left |= found.left
        for path, stub in [*found.files.items(), *found.plain.items()]:
            if (path, stub.key) not in seen:
                seen.add((path, stub.key))
                result.files[path] = result.files.get(path, 0) + (path in found.files)
                result.nbytes += stub.size
                result.lacking += [f"{path} of {oid[:12]}: {stub.lack}"] if stub.lack else []
    result.files = {path: count for path, count in result.files.items() if count}
    return result


def _commits(session: Session, request: MigrateRequest) -> list[str]:
    if request.all_history:
        return rewriting.commits_of(session, rewriting.refs_of(session).values())
    return [session.repo.resolve("HEAD")]


def _rewrite(session: Session, change: Change, importer: _Importer, result: MigrateResult) -> None:
    done = rewriting.rewrite(session, change, rewriting.refs_of(session), importer.tree)
    result.rewritten = {old: new for old, new in done.commits.items() if old != new}
    result.refs = tuple(done.refs)
    reason = f"migrate: from {result.label}"
    renewing.advance(session, done.head, lambda: rewriting.move(session, done, reason))


def _commit(session: Session, change: Change, importer: _Importer, result: MigrateResult) -> None:
    head = session.repo.commit(session.repo.resolve("HEAD"))
    tree = importer.tree(change, head, [])
    names = ", ".join(sorted(result.files))
    count = len(result.files)
    what = "checkpoint" if count == 1 else "checkpoints"
    text = f"Track {count} {what} with theta instead of {result.label}\n\n{names}\n"
    new = CommitWriter().write(session, change, tree, head.id, text)
    renewing.commit(session, new, head.id, f"migrate: from {result.label}")
    result.refs = (session.repo.branch,)


class _Importer:
    """Trees with checkpoints in the place of files of another store; each version is stored once."""

    def __init__(self, session: Session, origin: Origin, patterns: Sequence[str], told: Reported) -> None:
        self._session, self._origin, self._patterns, self._told = session, origin, patterns, told
        self._made: dict[tuple[str, str], Manifest] = {}
        self._plain: dict[str, str] = {}
        self._by_tree: dict[str, Mapping[str, Manifest]] = {}
        self.stored = 0

    def tree(self, change: Change, commit: Commit, parents: Sequence[str]) -> str:
        """Return the tree of ``commit`` with checkpoints; the new trees of its parents are ``parents``."""
        tree = self._session.repo.tree_of(commit.id)
        found = self._origin.found(tree)
        if not found.files:
            return tree.id
        before = [self._manifests(parent) for parent in parents]
        manifests = dict(self._session.of_tree(tree).manifests)
        for path, stub in found.files.items():
            manifests[path] = self._manifest(change, path, stub, manifests, before)
        blobs: dict[str, str | None] = {path: self._blob(change, stub) for path, stub in found.plain.items()}
        blobs |= {
            path: change.pack.blob(data, text=True) if data is not None else None
            for path, data in found.others.items()
        }
        for path in found.files:
            blobs[path] = change.pack.blob(manifests[path].data, text=True)
        for path, data in self._attributes(tree, found).items():
            blobs[path] = change.pack.blob(data, text=True)
        stores = closure.stores_tree(change.pack, manifests.values())
        made = saved_tree.edited(change.pack, tree, blobs, stores)
        self._by_tree[made] = manifests
        return made

    def _attributes(self, tree: Tree, found: Elsewhere) -> dict[str, bytes]:
        repo = self._session.repo
        return attribute_texts.tracking(repo, tree, found.files, found.left, self._patterns)

    def _manifests(self, tree: str) -> Mapping[str, Manifest]:
        """Return the checkpoints of a tree, which may be in the unfinished pack."""
        made = self._by_tree.get(tree)
        if made is None:
            made = self._by_tree[tree] = self._session.of_tree(self._session.repo.read_tree(tree)).manifests
        return made

    def _manifest(
        self,
        change: Change,
        path: str,
        stub: Stub,
        others: Mapping[str, Manifest],
        before: Sequence[Mapping[str, Manifest]],
    ) -> Manifest:
        taken = {manifest.store for at, manifest in others.items() if at != path}
        made = self._made.get((path, stub.key))
        if made is None:
            self._told(f"storing {path} ({stub.key[:12]})")
            made = self._made[path, stub.key] = self._store(change, path, stub, taken, before)
        return made if made.store not in taken else made.with_store(store_name(path, taken))

    def _store(
        self,
        change: Change,
        path: str,
        stub: Stub,
        taken: set[str],
        before: Sequence[Mapping[str, Manifest]],
    ) -> Manifest:
        """Store one version, make it durable, and compare what it gives with the file."""
        session = self._session
        first = [found[path] for found in before if path in found]
        rest = [manifest for found in before for at, manifest in found.items() if at != path]
        kept = next((manifest for manifest in first if manifest.store not in taken), None)
        with concerning(path), stub.opened() as source:
            wanted = sha256_of(source)  # values in memory are let go of as they are stored
            parts = file_scan.take_apart(source, kept, worktree.skeleton_of(session, kept))
            writer = snapshot.Snapshot(session.objects, change.pack, [*first, *rest])
            size = change.pack.size
            stored = writer.store(source, parts, kept.store if kept else store_name(path, taken), kept)
            self.stored += change.pack.size - size
            change.store()
            if sha256_of(StoredSource(session.objects, stored.manifest)) != wanted:
                raise CorruptError("what was stored is not what was read; nothing was migrated")
        return stored.manifest

    def _blob(self, change: Change, stub: Stub) -> str:
        """Return the blob of a file that is no checkpoint."""
        if stub.key not in self._plain:
            with stub.opened() as source:
                self._plain[stub.key] = change.pack.blob(source.read(0, source.size), text=True)
        return self._plain[stub.key]
