"""What the user answered about tensors in conflict, now or before he stopped a while ago."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from theta import _notes
from theta.errors import UsageError
from theta.merging.recipes import Recipe, Rule
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, parse
from theta.porcelain.workspace import in_progress
from theta.porcelain.workspace.session import Session


@dataclass(frozen=True)
class Answer:
    """One answer: the question it was given to, and the glob of the names that it holds for too."""

    conflict: Conflict
    strategy: Strategy
    glob: str | None = None

    def holds_for(self, conflict: Conflict) -> bool:
        """Whether it settles ``conflict`` too."""
        if self.conflict == conflict:
            return True
        return (
            self.glob is not None
            and fnmatchcase(conflict.name, self.glob)
            and self.strategy.applies(conflict)
        )


class UndoneError(Exception):
    """The last answer was taken back: the merge must ask again from the start."""


class Answers:
    """The answers to the conflicts of the operation under way.

    Args:
        session: the repository.
        recalled: is told each answer that was given before, when it is used for the first time.
    """

    def __init__(self, session: Session, recalled: Callable[[Answer], None] = lambda _: None) -> None:
        self._session, self._recalled = session, recalled
        self._kept = _read(session)
        self.given: list[Answer] = []

    def find(self, conflict: Conflict) -> Strategy | None:
        """The strategy that was answered for ``conflict``, by name or by a glob."""
        for answer in (*(a for a in self.given if a.conflict == conflict), *self.given):
            if answer.holds_for(conflict):
                return answer.strategy
        return self._recall(conflict)

    def _recall(self, conflict: Conflict) -> Strategy | None:
        text, glob = self._kept.pop(_key(conflict), (None, None))
        if text is None:
            return None
        try:
            answer = Answer(conflict, parse(text), glob or None)
        except UsageError:  # the strategy of a plug-in that is gone
            return None
        self.given.append(answer)
        self._recalled(answer)
        return answer.strategy

    def rules(self) -> tuple[Rule, ...]:
        """The answers that hold for several tensors, as rules."""
        return tuple(dict.fromkeys(Rule(one.glob, one.strategy) for one in self.given if one.glob))

    def keep(self) -> None:
        """Keep the answers for the next time."""
        found = {_key(answer.conflict): (str(answer.strategy), answer.glob or "") for answer in self.given}
        body = {"operation": in_progress.current(self._session.repo).key, "answers": {**self._kept, **found}}
        _notes.write(self._session.repo.private / "answers", json.dumps(body), durable=True)


def unanswered(session: Session, conflicts: Iterable[Conflict]) -> list[Conflict]:
    """``conflicts`` without those that an answer settles."""
    answers = Answers(session)
    return [conflict for conflict in conflicts if answers.find(conflict) is None]


def keep_ruled(
    session: Session,
    conflicts: Mapping[str, Iterable[Conflict]],
    decided: Mapping[str, Mapping[str, str]],
    asked: Recipe,
) -> None:
    """Keep what the rules of ``asked`` decided in checkpoints that stay in conflict, as if answered."""
    answers = Answers(session)
    for path, found in conflicts.items():
        for conflict in found:
            strategy = asked.rule_for(conflict.name)
            if strategy is not None and decided.get(path, {}).get(conflict.name) == str(strategy):
                answers.given.append(Answer(conflict, strategy))
    if answers.given:
        answers.keep()


def forget(session: Session) -> None:
    """Forget what is kept: the operation is over."""
    _notes.drop(session.repo.private / "answers")


def _key(conflict: Conflict) -> str:
    """What an answer is kept under: the tensor and the values that it was given for."""
    sides = (side.digest if side else "-" for side in (conflict.base, *conflict.sides))
    return " ".join([*sides, conflict.name])


def _read(session: Session) -> dict[str, tuple[str, str]]:
    """Strategy and glob by question, of the operation under way; empty where nothing was kept."""
    try:
        found = _notes.read_json(session.repo.private / "answers")
        if found["operation"] != in_progress.current(session.repo).key:
            return {}
        return {str(one): (str(text), str(glob)) for one, (text, glob) in found["answers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
