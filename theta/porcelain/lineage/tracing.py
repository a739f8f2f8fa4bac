"""``theta lineage``: the versions of a checkpoint, and what each was made of, and how.

Commits tell of merges and means in their trailers; everything else is seen in the manifests.  MGit
(arXiv:2307.07507) keeps such a graph beside the models; a history of tensors has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from theta.errors import NotFoundError, UsageError
from theta.git.object_values import Author
from theta.git.quoting import split_lines
from theta.git.repository import STORES
from theta.porcelain.lineage import averaging, moe_building, telling
from theta.porcelain.merge import trailers
from theta.porcelain.workspace.session import Session
from theta.store import changes
from theta.store.format.manifest import Manifest

_UNREADABLE: Final = "unreadable trailer"
_BY_TENSOR: Final = "tensor by tensor"


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
class MadeOf:
    """A version that another was made of: the commit, and the file in it."""

    commit: str
    path: str


Making = tuple[str, str, tuple[MadeOf, ...]]
"""The word for how a version was made, more about it, and the versions that it was made of."""


@dataclass(frozen=True)
class VersionNode:
    """One version of a checkpoint.

    Attributes:
        commit: the commit that made it.
        path: the file in that commit.
        deed: added, trained, low-rank, merged, averaged, built, cast, trimmed, extended, resized, converted,
            copied, renamed, rewritten or deleted.
        detail: more about it, such as the strategy of a merge.
        origins: the versions that it was made of.
        author: who committed it.
        subject: the first line of the message.
        names: the branches and tags that are at the commit.
    """

    commit: str
    path: str
    deed: str
    detail: str
    origins: tuple[MadeOf, ...]
    author: Author
    subject: str
    names: tuple[str, ...] = ()


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
    starts = ["--branches", "--tags", "--remotes", "HEAD"] if request.everywhere else tips
    arguments = (
        "--topo-order",
        "--full-history",
        "--simplify-merges",
        *starts,
        "--",
        path,
        f"{STORES}/{store}",
    )
    rows = split_lines(session.repo.git().run("rev-list", "--parents", *arguments).text)
    names = names_of_commits(session)
    tracer = _Tracer(session, path, store)
    nodes = [tracer.node(oid, parents, names.get(oid, ())) for oid, *parents in map(str.split, rows)]
    return Lineage(path, {node.commit: node for node in nodes if node is not None}, arguments)


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
    words = ("for-each-ref", f"--format={form}", "refs/heads", "refs/tags", "refs/remotes")
    found: dict[str, tuple[str, ...]] = {}
    for line in session.repo.git().run(*words).text.split("\n"):  # a name may have other separators
        oid, _, name = line.partition(" ")
        found[oid] = (*found.get(oid, ()), name)
    return found


class _Tracer:
    """Finds out what the versions of one checkpoint were made of."""

    def __init__(self, session: Session, path: str, store: str) -> None:
        self._session, self._path, self._store = session, path, store

    def node(self, oid: str, parents: Sequence[str], names: tuple[str, ...]) -> VersionNode | None:
        """Return the version at a commit with these ``parents``; None when the checkpoint did not change."""
        path, after = self._at(oid)
        before = [(parent, *self._at(parent)) for parent in parents]
        old = [
            (MadeOf(commit, where), manifest) for commit, where, manifest in before if manifest is not None
        ]
        if after is None and not old:
            return None
        deed, detail, origins = self._deed(oid, path, after, old)
        commit = self._session.repo.commit(oid)
        subject = commit.message.partition("\n")[0]
        return VersionNode(oid, path, deed, detail, origins, commit.author, subject, names)

    def _at(self, commit: str) -> tuple[str, Manifest | None]:
        """Return path and manifest in a commit, by the path or else by the store; None if it is not there."""
        found = self._session.at(commit).manifests
        if self._path in found:
            return self._path, found[self._path]
        renamed = ((path, one) for path, one in found.items() if one.store == self._store)
        return next(renamed, (self._path, None))

    def _deed(
        self, oid: str, path: str, after: Manifest | None, old: Sequence[tuple[MadeOf, Manifest]]
    ) -> Making:
        """Return what was done, more about it, and to what."""
        origins = tuple(origin for origin, _ in old)
        if after is None:
            return "deleted", "", origins
        if (mean := self._mean(oid, path, origins)) is not None:
            return mean
        if (mixture := self._mixture(oid, path, origins)) is not None:
            return mixture
        if (merge := self._merge(oid, path)) or len(old) > 1:
            return "merged", merge or _BY_TENSOR, origins
        if old:
            told = telling.change(self._session.objects, old[0][1], after)
            return (*(told or ("renamed", f"from {old[0][0].path}")), origins)
        return self._beginning(oid, path, after)

    def _mean(self, oid: str, path: str, origins: tuple[MadeOf, ...]) -> Making | None:
        """Return the mean that a trailer tells of; of its versions those that are here."""
        try:
            mean = averaging.recorded(self._session, oid)
        except UsageError:
            return "averaged", _UNREADABLE, origins
        if mean is None or mean.path != path:
            return None
        made_of = tuple(MadeOf(one, path) for one in mean.revisions if self._is_commit(one))
        return "averaged", f"{mean.shape} of {len(mean.revisions)} versions", made_of

    def _mixture(self, oid: str, path: str, origins: tuple[MadeOf, ...]) -> Making | None:
        """Return the mixture of experts that a trailer tells of; of its models those that are here."""
        try:
            found = moe_building.recorded(self._session, oid)
        except UsageError:
            return "built", _UNREADABLE, origins
        if found is None or found.path != path:
            return None
        models = dict.fromkeys((found.base, *found.experts, *filter(None, [found.shared])))
        made_of = tuple(MadeOf(one, path) for one in models if self._is_commit(one))
        return "built", f"{found.kind} of {len(found.experts)} experts", made_of

    def _is_commit(self, name: str) -> bool:
        repo = self._session.repo
        return repo.format.is_id(name) and repo.commit_of(name) == name

    def _merge(self, oid: str, path: str) -> str:
        """Return the strategies of the merge that trailers tell of; "" if they tell of none."""
        try:
            rounds = [one for one in trailers.rounds(self._session, oid) if one.is_about(path)]
        except UsageError:
            return _UNREADABLE
        return "; ".join(filter(None, map(_how, rounds))) or (_BY_TENSOR if rounds else "")

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


def _how(one: trailers.Round) -> str:
    """Return the strategies of a round, without the search that found them."""
    rules = [str(rule) for rule in one.recipe.rules]
    return ", ".join([*([str(one.recipe.default)] if one.recipe.default else []), *rules])
