"""``theta cascade``: a new base under the fine-tunes of the old one.

Each branch gets a merge of the new base, in which the update of the branch, its difference to the old base,
is applied to the new base: task arithmetic with both differences (Ilharco et al., arXiv:2212.04089), or
another strategy.  Tensors that the branch never changed become those of the new base.  MGit
(arXiv:2307.07507) calls that an update cascade.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import NotFoundError, RefusedError, ThetaError, UsageError
from theta.git import commit_graph
from theta.merging import recipes
from theta.merging.recipes import Recipe
from theta.merging.strategies import parse
from theta.porcelain.drive import renewing
from theta.porcelain.merge import dry_run, in_memory, recording, trailers
from theta.porcelain.merge.in_memory import Joined
from theta.porcelain.merge.joining import How
from theta.porcelain.replicas import applying
from theta.porcelain.replicas.applying import ApplyRequest
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.workspace import abandoned
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

DEFAULT: Final = "task_arithmetic"
_HEADS: Final = "refs/heads/"


@dataclass(frozen=True)
class CascadeRequest:
    """A base that becomes another one, and the branches that rest on it.

    Attributes:
        old: the base that the branches were made of.
        new: the base that takes its place.
        branches: the branches to renew.
        strategy: how a tensor is computed that both the base and the branch changed.
        rules: ``GLOB=STRATEGY`` for matching tensor names.
        dry_run: move no branch.
        unrelated: the new base need not descend from the old one.
    """

    old: str
    new: str
    branches: Sequence[str]
    strategy: str = DEFAULT
    rules: Sequence[str] = ()
    dry_run: bool = False
    unrelated: bool = False


class CascadeEnding(Enum):
    """The end of a branch's renewal."""

    MOVED = "moved"
    CURRENT = "has the new base already"
    CONFLICT = "in conflict"
    FAILED = "failed its test"
    REHEARSED = "can be moved"
    STOPPED = "stopped by an error"


@dataclass(frozen=True)
class Cascaded:
    """A branch after a cascade.

    Attributes:
        branch: its name.
        ending: whether it was moved, or why it was not.
        commit: the commit that it has now.
        decided: path -> tensor -> the strategy that computed it.
        conflicts: what is in conflict: files, and tensors as ``PATH#TENSOR``.
        error: what stopped its renewal.
    """

    branch: str
    ending: CascadeEnding
    commit: str
    decided: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    conflicts: Sequence[str] = ()
    error: ThetaError | None = None


Test = Callable[[Path], bool]
"""Returns whether the files in a folder, which are those of a renewed branch, are good."""


def cascade(
    session: Session,
    request: CascadeRequest,
    test: Test | None = None,
    told: Callable[[Cascaded], None] = lambda _: None,
    progress: Progress | None = None,
) -> list[Cascaded]:
    """Renew each branch; one that is in conflict, fails its test or is stopped by an error stays as it is.

    Raises:
        NotFoundError: there is no such commit or branch.
        RefusedError: files have changes that are not committed, another worktree has a branch, or a branch
            or the new base does not rest on the old one.
        UsageError: a strategy or a rule is malformed.
    """
    run = _Cascade(session, request, test, progress)
    found = []
    for branch, tip in run.branches():
        found.append(run.attempt(branch, tip))
        told(found[-1])
    return found


class _Cascade:
    """One cascade: its commits, and how tensors are decided."""

    def __init__(
        self, session: Session, request: CascadeRequest, test: Test | None, progress: Progress | None
    ) -> None:
        self._session, self._request, self._test = session, request, test
        self._old, self._new = (
            session.repo.resolve(f"{one}^{{commit}}") for one in (request.old, request.new)
        )
        by_token = "" if trailers.matches_tokens(session) else None
        rules = tuple(map(recipes.rule, request.rules))
        recipe = Recipe(parse(request.strategy), rules, by_token=by_token)
        self._how = How(recipe.policy(), recipe.options(), progress=progress, asked=lambda: recipe)
        self._people = CommitWriter()

    def branches(self) -> list[tuple[str, str]]:
        """Return the branches and their commits, after all of them were checked."""
        if not self._request.branches:
            raise UsageError("name the branches to renew", hint="theta cascade v1..v2 chat code")
        repo = self._session.repo
        if not self._request.dry_run:
            renewing.refuse_unclean(self._session)
        others = repo.refs.used_elsewhere()
        found = []
        for branch in dict.fromkeys(self._request.branches):
            tip = repo.commit_of(_HEADS + branch)
            if tip is None:
                raise NotFoundError(f"there is no branch {branch}")
            if _HEADS + branch in others:
                raise RefusedError(f"{branch} is checked out in another worktree", hint="renew it there")
            self._refuse_unrelated(branch, tip)
            found.append((branch, tip))
        return found

    def _refuse_unrelated(self, branch: str, tip: str) -> None:
        """Raise :class:`RefusedError` if the update of a branch is not its difference to the old base."""
        old, new = self._request.old, self._request.new
        forks = commit_graph.merge_bases(self._session.repo, tip, self._new)
        hint = f"theta cascade {forks[0][:12]}..{new} {branch}" if forks else "name the base that it has"
        if not self._contains(tip, self._old):
            raise RefusedError(f"{branch} does not rest on {old}", hint=hint)
        if not self._request.unrelated and not self._contains(self._new, self._old):
            raise RefusedError(
                f"{new} does not descend from {old}",
                hint="--allow-unrelated takes a base that was imported without its history",
            )
        if self._new not in forks and any(map(self._has_gone_on, forks)):
            raise RefusedError(f"{branch} rests on a later base than {old}", hint=hint)

    def _has_gone_on(self, fork: str) -> bool:
        """Return whether ``fork`` has other checkpoints than the old base below it; both sides have these."""
        if not commit_graph.descends(self._session.repo, fork, self._old):
            return False
        was, now = (
            {path: manifest.oid for path, manifest in self._session.at(commit).manifests.items()}
            for commit in (self._old, fork)
        )
        return was != now

    def _contains(self, commit: str, ancestor: str) -> bool:
        return commit == ancestor or commit_graph.descends(self._session.repo, commit, ancestor)

    def attempt(self, branch: str, tip: str) -> Cascaded:
        """Do as :meth:`renew`; an error stops this branch, not the others."""
        try:
            return self.renew(branch, tip)
        except ThetaError as error:
            return Cascaded(branch, CascadeEnding.STOPPED, tip, error=error)

    def renew(self, branch: str, tip: str) -> Cascaded:
        """Merge the new base into a branch."""
        if self._contains(tip, self._new):
            return Cascaded(branch, CascadeEnding.CURRENT, tip)
        if self._request.dry_run:
            with dry_run.rehearsal(self._session) as apart:
                joined = self._join(apart, tip)
            return self._left(branch, tip, joined, CascadeEnding.REHEARSED)
        joined = self._join(self._session, tip)
        if not joined.clean:
            return self._left(branch, tip, joined, CascadeEnding.CONFLICT)
        commit = self._commit(branch, tip, joined)
        if self._test is not None and not self._passes(commit):
            return self._left(branch, tip, joined, CascadeEnding.FAILED)
        self._move(branch, tip, commit)
        return Cascaded(branch, CascadeEnding.MOVED, commit, joined.merged.decided)

    def _join(self, session: Session, tip: str) -> Joined:
        theirs = self._new
        if not self._contains(theirs, self._old):  # git compares its files, too, with those of the old base
            tree = session.repo.tree_of(theirs)
            theirs = commit_graph.unnamed_commit(session.repo, tree.id, [self._old])
        return in_memory.join(session, tip, theirs, self._how, self._old)

    def _left(self, branch: str, tip: str, joined: Joined, ending: CascadeEnding) -> Cascaded:
        """Return a branch that stays."""
        open_tensors = [
            f"{path}#{one.name}" for path, found in joined.merged.conflicts.items() for one in found
        ]
        conflicts = [*open_tensors, *joined.open_files]
        kept = CascadeEnding.CONFLICT if conflicts else ending
        return Cascaded(branch, kept, tip, joined.merged.decided, conflicts)

    def _commit(self, branch: str, tip: str, joined: Joined) -> str:
        """Write the commit; no ref names it yet."""
        tree = in_memory.result_tree(self._session, joined.tree, joined.merged)
        subject = f"Merge {self._request.new} into {branch}, in place of {self._request.old}\n"
        applied = () if self._contains(self._new, self._old) else (self._old, self._new)
        lines = recording.told(joined.merged, self._how, self._old, applied)
        text = trailers.with_trailers(self._session.repo, subject.encode(), lines)
        with self._session.change() as change:
            words = text.decode("utf-8", "surrogateescape")
            return self._people.write(self._session, change, tree, tip, words, [self._new])

    def _passes(self, commit: str) -> bool:
        assert self._test is not None
        abandoned.remove()
        with _fs.temporary_directory("theta-cascade-") as place:
            applying.apply(self._session.again(), ApplyRequest(commit, place / "model"))
            return self._test(place / "model")

    def _move(self, branch: str, tip: str, commit: str) -> None:
        reason = f"cascade: {self._request.old}..{self._request.new}"
        fresh = self._session.again()
        if fresh.repo.branch == branch:
            renewing.commit(fresh, commit, tip, reason)
        else:
            with renewing.naming(branch), fresh.change() as change:
                change.move(_HEADS + branch, commit, tip, reason)
