"""Merges that are tried and scored: each is computed apart from the repository, and laid out in a folder.

The folder is brought from one candidate to the next by rewriting the tensors that differ, so what does not
depend on the parameters is read and written once.  No candidate is committed.  Scores are noted: a search
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from theta import _fs, _notes
from theta.errors import ThetaError, UsageError
from theta.git import commit_graph
from theta.merging.strategies import Strategy
from theta.porcelain.merge import dry_run, in_memory, octopus
from theta.porcelain.merge.joining import How
from theta.porcelain.replicas import applying
from theta.porcelain.replicas.applying import ApplyRequest
from theta.porcelain.search import space
from theta.porcelain.search.space import Axis, Point
from theta.porcelain.workspace import abandoned
from theta.porcelain.workspace.session import Session

_NOTE: Final = "search.json"
NOTE: Final = f".git/theta/{_NOTE}"
"""The place of the scores that are known, as users see it."""
_MOST_KNOWN: Final = 100_000

Score = Callable[[Path], float]
"""Returns how good the checkpoint is that is in a file, or the files in a folder."""


@dataclass(frozen=True)
class SearchRequest:
    """The parameters to try in a merge, and how.

    Attributes:
        axes: the parameters and their values.
        objective: what the scores mean, such as a command; scores of another objective are not used again.
        minimize: the least score is the best.
        way: one of ``space.WAYS``, or "" for what suits the axes.
        trials: the number of candidates; 0 for what the way takes.
        seed: the seed of random candidates.
    """

    axes: tuple[Axis, ...]
    objective: str
    minimize: bool = False
    way: str = ""
    trials: int = 0
    seed: int = 0

    def __str__(self) -> str:
        """Return what was searched; the objective may be a command with what is no matter of others."""
        words = [*map(str, self.axes), *([self.way] if self.way else [])]
        return f"{'least' if self.minimize else 'greatest'} score over {' '.join(words)}"


@dataclass(frozen=True)
class Contest:
    """The merge that candidates are made for.

    Attributes:
        heads: the commits, ours first.
        base: the commit to compare with; None for the merge base.
        strategy: what the axes are parameters of.
        how: returns how tensors are decided by a strategy.
        terms: all else that the result depends on, as text.
    """

    heads: tuple[str, ...]
    base: str | None
    strategy: Strategy
    how: Callable[[Strategy], How]
    terms: str = ""


@dataclass(frozen=True)
class Trial:
    """A candidate.

    Attributes:
        point: its values.
        strategy: its strategy.
        score: its score; None if its tensors cannot be computed.
        known: the score is from an earlier search.
        reason: why there is no score.
    """

    point: Point
    strategy: Strategy
    score: float | None
    known: bool = False
    reason: str = ""


@dataclass
class SearchResult:
    """The trials of a search, in their order, and the best one."""

    request: SearchRequest
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial:
        """The trial with the best score, the first of equals; raises :class:`ThetaError` if none has one."""
        scored = [trial for trial in self.trials if self.cost(trial) < math.inf]
        if not scored:
            raise ThetaError("no candidate has a score", hint="".join(t.reason for t in self.trials[:1]))
        return min(scored, key=self.cost)

    def cost(self, trial: Trial) -> float:
        """Return what the best trial has least of."""
        if trial.score is None or math.isnan(trial.score):
            return math.inf
        return trial.score if self.request.minimize else -trial.score

    def text(self) -> str:
        """Return one line for the commit: what was searched, and what the best one scored."""
        return f"{self.request}: {self.best.score!r} of {len(self.trials)} trials"


def search(
    session: Session,
    contest: Contest,
    request: SearchRequest,
    score: Score,
    told: Callable[[SearchResult], None] = lambda _: None,
) -> SearchResult:
    """Try candidates and return their scores; ``told`` is called after each.

    Raises:
        UsageError: a parameter cannot have such a value, or the strategy leaves conflicts.
        ThetaError: no candidate could be computed; what ``score`` raises is passed on.
    """
    if not request.axes:
        raise UsageError("a search needs parameters", hint="--search weight=0:1:0.1")
    found = SearchResult(request)
    abandoned.remove()
    with _fs.temporary_directory("theta-search-") as place:
        run = _Run(session, contest, request, score, place)

        def ask(point: Point) -> float:
            trial = run.trial(point)
            found.trials.append(trial)
            told(found)
            return found.cost(trial)

        space.explore(request.way, request.axes, ask, request.trials, request.seed)
    return found


class _Run:
    """One search: its folder, and the scores that are known."""

    def __init__(
        self, session: Session, contest: Contest, request: SearchRequest, score: Score, place: Path
    ) -> None:
        self._session, self._contest, self._request = session, contest, request
        self._score, self._folder = score, place / "model"
        self._note = session.repo.private / _NOTE
        self._key = json.dumps([contest.heads, contest.base, contest.terms, request.objective])
        self._scores = self._known()

    def _known(self) -> dict[str, float]:
        found = _notes.read_json(self._note)
        scores = found.get("scores") if found.get("key") == self._key else None
        kept = scores.items() if isinstance(scores, dict) else ()
        return {str(text): float(score) for text, score in kept if isinstance(score, int | float)}

    def trial(self, point: Point) -> Trial:
        """Return the trial of ``point``, which may be known."""
        strategy = space.at(self._contest.strategy, self._request.axes, point, len(self._contest.heads))
        text = str(strategy)
        if text in self._scores:
            return Trial(point, strategy, self._scores[text], known=True)
        try:
            place = self._laid_out(strategy)
        except UsageError:
            raise
        except ThetaError as error:
            return Trial(point, strategy, None, reason=str(error))
        score = self._score(place)
        if len(self._scores) < _MOST_KNOWN:
            self._scores[text] = score
            _notes.write(self._note, json.dumps({"key": self._key, "scores": self._scores}))
        return Trial(point, strategy, score)

    def _laid_out(self, strategy: Strategy) -> Path:
        """Merge by ``strategy``, bring the folder to the result, and return the file or the folder."""
        contest = self._contest
        with dry_run.rehearsal(self._session) as apart:
            joined = octopus.join(apart, contest.heads, contest.how(strategy), contest.base)
            if not joined.clean:
                path = next(iter([*joined.merged.conflicts, *joined.open_files]))
                raise UsageError(
                    f"{path} is in conflict by {strategy}, so there is nothing to score",
                    hint="--rule settles single tensors; merge other files first",
                )
            tree = in_memory.result_tree(apart, joined.tree, joined.merged)
            commit = commit_graph.unnamed_commit(apart.repo, tree, contest.heads)
            applying.apply(apart, ApplyRequest(commit, self._folder, in_place=True, force=True))
        changed = [*joined.merged.resolved]
        return self._folder / changed[0] if len(changed) == 1 else self._folder
