"""The word for how a version was made, and what it was made of, as the trailers of its commit tell it.

Trailers are text of others: ids are taken only if their commits are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from theta.errors import NotFoundError, ThetaError, UsageError
from theta.merging.documents.model_references import ModelReference
from theta.porcelain.compose import recorded
from theta.porcelain.lineage import averaging, extracting, moe_building
from theta.porcelain.merge import trailers
from theta.porcelain.merge.trailers import Round
from theta.porcelain.stage import saving
from theta.porcelain.workspace.session import Session

_UNREADABLE: Final = "unreadable trailer"
BY_TENSOR: Final = "tensor by tensor"
_ID: Final = 10
_METRICS: Final = 3
"""Metrics of a step that a line shows."""
_LONG: Final = 60


@dataclass(frozen=True)
class MadeOf:
    """A version that another was made of: the commit, and the file in it."""

    commit: str
    path: str


Making = tuple[str, str, tuple[MadeOf, ...]]
"""The word for how a version was made, more about it, and the versions that it was made of."""


@dataclass(frozen=True)
class ToldOrigins:
    """Reads the trailers of the commits of one checkpoint.

    Attributes:
        session: the repository.
        store: the store of the checkpoint.
    """

    session: Session
    store: str

    def made(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        """Return what the trailers of a commit tell of the version at ``path``; None if they tell nothing.

        ``before`` are the versions of its parents.
        """
        if "theta-" not in self.session.repo.commit(oid).message.lower():
            return None
        for found in (self._mean, self._mixture, self._extraction, self._composition, self._merge):
            if (made := found(oid, path, before)) is not None:
                return made
        return None

    def step(self, oid: str) -> str:
        """Return the step of a training and its metrics; "" if the commit tells of none."""
        if "theta-step" not in self.session.repo.commit(oid).message.lower():
            return ""
        steps = trailers.values(self.session, oid, saving.STEP)
        metrics = trailers.values(self.session, oid, saving.METRIC)[:_METRICS]
        return ", ".join([f"step {one[:_LONG]}" for one in steps[:1]] + [one[:_LONG] for one in metrics])

    # -- the commands that make a version of others ----------------------------------------

    def _mean(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        try:
            mean = averaging.recorded(self.session, oid)
        except UsageError:
            return "averaged", _UNREADABLE, before
        if mean is None or mean.path != path:
            return None
        return "averaged", f"{mean.shape} of {len(mean.revisions)} versions", self._all(mean.revisions, path)

    def _mixture(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        try:
            found = moe_building.recorded(self.session, oid)
        except UsageError:
            return "built", _UNREADABLE, before
        if found is None or found.path != path:
            return None
        models = dict.fromkeys((found.base, *found.experts, *filter(None, [found.shared])))
        return "built", f"{found.kind} of {len(found.experts)} experts", self._all(models, path)

    def _extraction(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        try:
            found = extracting.recorded(self.session, oid)
        except UsageError:
            return "extracted", _UNREADABLE, before
        if found is None or found.places[0] != path:
            return None
        ends = [f"{commit}:{place}" for commit, place in zip(found.ends, found.paths, strict=True)]
        return "extracted", f"LoRA of rank {found.wanted.rank}", self._all(ends, path)

    def _composition(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        try:
            found = recorded.of_commit(self.session, oid)
        except ThetaError:
            return "composed", _UNREADABLE, before
        if found is None:
            return None
        results = {one.name for one in found.documents}
        named = {name: one.adapters.get(name) for one in found.documents for name in one.models}
        models = [one or ModelReference(name) for name, one in named.items() if name not in results]
        bases = self._all([one.base for one in models], path)
        if bases and all(_folder(one.path) != _folder(path) for one in bases):
            return None  # it came with the commits that were merged beside
        adapters = self._all([one.adapter for one in models if one.adapter is not None], path)
        last = found.documents[-1]
        more = [
            *(["slices"] if last.is_sliced else []),
            *(["by token"] if last.tokenizer is not None else []),
        ]
        detail = ", ".join([f"{last.method} of {len(models)} models", *more])
        return "composed", detail, tuple(dict.fromkeys((*bases, *adapters)))

    def _merge(self, oid: str, path: str, before: tuple[MadeOf, ...]) -> Making | None:
        try:
            rounds = [one for one in trailers.rounds(self.session, oid) if one.is_about(path)]
        except UsageError:
            return "merged", _UNREADABLE, before
        if not rounds:
            return None
        others = [commit for one in rounds for commit in (*one.applied[1:], *one.squashed)]
        detail = "; ".join(dict.fromkeys(filter(None, map(_how, rounds)))) or BY_TENSOR
        return "merged", detail, tuple(dict.fromkeys((*before, *self._all(others, path))))

    # -- the versions that they name -------------------------------------------------------

    def _all(self, names: Iterable[str], path: str) -> tuple[MadeOf, ...]:
        """Return the versions that ``names`` (``COMMIT`` or ``COMMIT:PATH``) mean, of those that are here."""
        return tuple(dict.fromkeys(one for name in names for one in self._one(name, path)))

    def _one(self, name: str, path: str) -> Iterator[MadeOf]:
        commit, _, place = name.partition(":")
        repo = self.session.repo
        try:
            if repo.format.is_id(commit) and repo.commit_of(commit) == commit:
                yield MadeOf(commit, self._path(commit, place.strip("/") or path, path))
        except NotFoundError:
            return

    def _path(self, commit: str, place: str, path: str) -> str:
        """Return the checkpoint at ``place``, a file or a folder, of ``commit`` that is like ``path``."""
        checkpoints = self.session.at(commit)
        found = checkpoints.manifests
        if place in found:
            return place
        inside = sorted(one for one in found if one.startswith(f"{place}/"))
        name = path.rpartition("/")[2]
        alike = [one for one in inside if one.rpartition("/")[2] == name]
        whole = [*found] if len(found) == 1 else []
        named = (*alike, *inside, checkpoints.of_store(self.store), *whole)
        return next(filter(None, named), place)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _how(one: Round) -> str:
    """Return the strategies and options of a round, without the search that found them."""
    recipe = one.recipe
    words = [str(recipe.default)] if recipe.default else []
    words += [str(rule) for rule in recipe.rules]
    words += [f"aligned by {recipe.align.way}"] if recipe.align is not None else []
    words += ["by token"] if recipe.by_token else []
    words += [f"as {recipe.dtype}"] if recipe.dtype is not None else []
    words += [f"compared with {one.base[:_ID]}"] if one.base else []
    if len(one.applied) == 2:
        words.append(f"the change {'..'.join(each[:_ID] for each in one.applied)}")
    words += [f"squashed {', '.join(_short(one.squashed))}"] if one.squashed else []
    return ", ".join(words)


def _short(commits: Sequence[str]) -> list[str]:
    return [one[:_ID] for one in commits]
