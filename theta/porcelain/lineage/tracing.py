"""``theta lineage``: the versions of a checkpoint, and what each was made of, and how.

Commits tell of merges and means in their trailers; everything else is seen in the manifests.  MGit
(arXiv:2307.07507) keeps such a graph beside the models; a history of tensors has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from theta.errors import NotFoundError, UsageError
from theta.git.object_values import Author
from theta.git.quoting import split_lines
from theta.git.repository import STORES
from theta.porcelain.lineage import telling, told_origins
from theta.porcelain.lineage.told_origins import MadeOf, Making, ToldOrigins
from theta.porcelain.workspace.session import Session
from theta.store import changes
from theta.store.format.manifest import Manifest

_RUNS: Final = "refs/theta/runs"
_LISTED: Final = ("--topo-order", "--full-history", "--simplify-merges")


@dataclass(frozen=True)
class LineageRequest:
    """A checkpoint whose versions are wanted.

    Attributes:
        path: the checkpoint, from the root; "" for the only one.
        revisions: where to begin; HEAD if there is none.
        everywhere: begin at all branches and tags.
    """

    path: str = ""
    revisions: Sequence[str] = ()
    everywhere: bool = False


@dataclass(frozen=True)
class VersionNode:
    """One version of a checkpoint.

    Attributes:
        commit: the commit that made it.
        path: the file in that commit.
        deed: added, trained, low-rank, merged, averaged, composed, built, extracted, adapter, cast, trimmed,
            extended, resized, converted, copied, renamed, rewritten or deleted.
        detail: more about it, such as the strategy of a merge.
        origins: the versions that it was made of.
        author: who committed it.
        subject: the first line of the message.
        names: the branches and tags that are at the commit.
        parents: the commits whose versions git's graph connects it with.
    """

    commit: str
    path: str
    deed: str
    detail: str
    origins: tuple[MadeOf, ...]
    author: Author
    subject: str
    names: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def apart(self) -> tuple[MadeOf, ...]:
        """The origins that git's graph does not show."""
        return tuple(one for one in self.origins if one.commit not in self.parents or one.path != self.path)


@dataclass(frozen=True)
class Lineage:
    """The versions of a checkpoint, those made of others first.

    Attributes:
        path: the checkpoint.
        nodes: commit -> version.
        arguments: the options of git that list these commits.
    """

    path: str
    nodes: Mapping[str, VersionNode]
    arguments: tuple[str, ...] = ()


def lineage(session: Session, request: LineageRequest) -> Lineage:
    """Return the versions; raises :class:`NotFoundError` if there is no such checkpoint."""
    tips = [session.repo.resolve(f"{one}^{{commit}}") for one in request.revisions or ("HEAD",)]
    path, store = _checkpoint(session, tips, request.path)
    everywhere = ["--branches", "--tags", "--remotes", f"--glob={_RUNS}", "HEAD"]
    paths = ("--", path, f"{STORES}/{store}")
    arguments = (*_LISTED, *(everywhere if request.everywhere else tips), *paths)
    rows = split_lines(session.repo.git().run("rev-list", "--parents", *arguments).text)
    names = names_of_commits(session)
    tracer = _Tracer(session, path, store)
    nodes = [tracer.node(oid, parents, names.get(oid, ())) for oid, *parents in map(str.split, rows)]
    known = {node.commit: node for node in nodes if node is not None}
    versions = _Versions(session, known, paths[1:])
    return Lineage(path, {oid: versions.settled(node) for oid, node in known.items()}, arguments)


class _Versions:
    """Finds the version that a commit has which did not change the checkpoint: it is that of a parent."""

    def __init__(self, session: Session, known: Mapping[str, VersionNode], paths: Sequence[str]) -> None:
        self._session, self._known, self._paths = session, known, paths
        self._found: dict[str, str] = {}

    def settled(self, node: VersionNode) -> VersionNode:
        """Return ``node`` with the commits that made its origins, where they are in the graph."""
        origins = tuple(dict.fromkeys(map(self._of, node.origins)))
        return node if origins == node.origins else replace(node, origins=origins)

    def _of(self, one: MadeOf) -> MadeOf:
        if one.commit in self._known:
            return one
        node = self._known.get(self._changed(one.commit))
        return one if node is None or node.path != one.path else MadeOf(node.commit, one.path)

    def _changed(self, commit: str) -> str:
        """Return the known commit whose files ``commit`` has; "" when there is none."""
        passed, at = [], commit
        while at and at not in self._known and at not in self._found:
            passed.append(at)
            at = self._alike(at)
        found = self._found.get(at, at)
        self._found |= dict.fromkeys(passed, found)
        return found

    def _alike(self, oid: str) -> str:
        """Return the first parent with the same files; "" when there is none."""
        commit = self._session.repo.commit_here(oid)
        own = self._ids(oid)
        parents = commit.parents if commit is not None else ()
        return next((parent for parent in parents if self._ids(parent) == own), "")

    def _ids(self, oid: str) -> list[str] | None:
        """Return the ids at the paths in commit ``oid``; None when it is not here."""
        commit = self._session.repo.commit_here(oid)
        tree = self._session.repo.tree_here(commit.tree) if commit is not None else None
        if tree is None:
            return None
        entries = map(tree.get, self._paths)
        return [entry.id if entry is not None else "" for entry in entries]


def _checkpoint(session: Session, tips: Sequence[str], path: str) -> tuple[str, str]:
    """Return path and store of the checkpoint in one of the commits ``tips``."""
    for tip in tips:
        found = session.at(tip).manifests
        if not path and len(found) > 1:
            raise UsageError("which checkpoint?", hint=f"theta lineage {min(found)}")
        chosen = path or next(iter(found), "")
        if chosen in found:
            return chosen, found[chosen].store
    raise NotFoundError(f"there is no checkpoint {path}".rstrip())


def names_of_commits(session: Session) -> dict[str, tuple[str, ...]]:
    """Return commit -> the short names of the refs there."""
    form = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname:short)"
    words = ("for-each-ref", f"--format={form}", "refs/heads", "refs/tags", "refs/remotes", _RUNS)
    found: dict[str, tuple[str, ...]] = {}
    for line in session.repo.git().run(*words).text.split("\n"):  # a name may have other separators
        oid, _, name = line.partition(" ")
        found[oid] = (*found.get(oid, ()), name)
    return found


def _is_as_before(path: str, after: Manifest | None, old: Sequence[tuple[MadeOf, Manifest]]) -> bool:
    """Return whether the commit before had this manifest at ``path``, and only its store changed."""
    return after is not None and [(one.path, manifest.oid) for one, manifest in old] == [(path, after.oid)]


class _Tracer:
    """Finds out what the versions of one checkpoint were made of."""

    def __init__(self, session: Session, path: str, store: str) -> None:
        self._session, self._path, self._store = session, path, store
        self._told = ToldOrigins(session, store)

    def node(self, oid: str, parents: Sequence[str], names: tuple[str, ...]) -> VersionNode | None:
        """Return the version at a commit with these ``parents``; None when the checkpoint did not change."""
        path, after = self._at(oid)
        before = [(parent, *self._at(parent)) for parent in parents]
        old = [
            (MadeOf(commit, where), manifest) for commit, where, manifest in before if manifest is not None
        ]
        if (after is None and not old) or _is_as_before(path, after, old):
            return None
        deed, detail, origins = self._deed(oid, path, after, old)
        commit = self._session.repo.commit(oid)
        subject = commit.message.partition("\n")[0]
        return VersionNode(oid, path, deed, detail, origins, commit.author, subject, names, tuple(parents))

    def _at(self, commit: str) -> tuple[str, Manifest | None]:
        """Return path and manifest in a commit, by the path or else by the store; None if it is not there."""
        found = self._session.at(commit)
        path = self._path if self._path in found.manifests else found.of_store(self._store) or self._path
        return path, found.manifests.get(path)

    def _deed(
        self, oid: str, path: str, after: Manifest | None, old: Sequence[tuple[MadeOf, Manifest]]
    ) -> Making:
        """Return what was done, more about it, and to what."""
        origins = tuple(origin for origin, _ in old)
        if after is None:
            return "deleted", "", origins
        if (made := self._told.made(oid, path, origins)) is not None:
            return made
        if len(old) > 1:
            return "merged", told_origins.BY_TENSOR, origins
        if old:
            deed, detail = telling.change(self._session.objects, old[0][1], after) or (
                "renamed",
                f"from {old[0][0].path}",
            )
            return deed, ", ".join(filter(None, [self._told.step(oid), detail])), origins
        deed, detail, origins = self._beginning(oid, path, after)
        return deed, ", ".join(filter(None, [self._told.step(oid), detail])), origins

    def _beginning(self, oid: str, path: str, after: Manifest) -> Making:
        """Return how the first version came: from another file of the commit before, or of this one."""
        parents = self._session.repo.commit(oid).parents
        for commit in (*parents[:1], oid):
            for other, manifest in self._session.at(commit).manifests.items():
                if (other != path or commit != oid) and (
                    told := telling.relation(manifest, after)
                ) is not None:
                    return (*told, (MadeOf(commit, other),))
        return "added", changes.counted(len(after.lines), "tensor"), ()
