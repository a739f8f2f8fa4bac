"""The user's answers about tensors in conflict, kept on disk until the operation ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from theta import _notes
from theta.errors import MALFORMED, UsageError
from theta.git import in_progress
from theta.merging.recipes import Recipe, Rule
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, parse
from theta.porcelain.workspace.session import Session


@dataclass(frozen=True)
class Answer:
    """A strategy chosen for a conflict, and for all tensors whose names match ``glob``."""

    conflict: Conflict
    strategy: Strategy
    glob: str | None = None

    def holds_for(self, conflict: Conflict) -> bool:
        """Return whether the answer settles ``conflict`` too."""
        if self.conflict == conflict:
            return True
        return (
            self.glob is not None
            and fnmatchcase(conflict.name, self.glob)
            and self.strategy.applies(conflict)
        )


class UndoneError(Exception):
    """The user took back the last answer: the merge must ask again from the start."""


class Answers:
    """The answers to the conflicts of the operation in progress.

    Args:
        session: the repository.
        recalled: called with each answer of an earlier run when it is first used.
    """

    def __init__(self, session: Session, recalled: Callable[[Answer], None] = lambda _: None) -> None:
        self._session, self._recalled = session, recalled
        self._kept = _read(session)
        self.given: list[Answer] = []

    def find(self, conflict: Conflict) -> Strategy | None:
        """Return the strategy chosen for ``conflict``, by name or by a glob; None without an answer."""
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
        """Return the answers with a glob as rules."""
        return tuple(dict.fromkeys(Rule(one.glob, one.strategy) for one in self.given if one.glob))

    def keep(self) -> None:
        """Save the answers for the next run."""
        found = {_key(answer.conflict): (str(answer.strategy), answer.glob or "") for answer in self.given}
        body = {"operation": in_progress.current(self._session.repo).key, "answers": {**self._kept, **found}}
        _notes.write(self._session.repo.private / "answers", json.dumps(body), durable=True)


def unanswered(session: Session, conflicts: Iterable[Conflict]) -> list[Conflict]:
    """Return the ``conflicts`` that no saved answer settles."""
    answers = Answers(session)
    return [conflict for conflict in conflicts if answers.find(conflict) is None]


def keep_ruled(
    session: Session,
    conflicts: Mapping[str, Iterable[Conflict]],
    decided: Mapping[str, Mapping[str, str]],
    asked: Recipe,
) -> None:
    """Save the decisions of the rules of ``asked`` in checkpoints that stay in conflict, as answers."""
    answers = Answers(session)
    for path, found in conflicts.items():
        for conflict in found:
            strategy = asked.rule_for(conflict.name)
            if strategy is not None and decided.get(path, {}).get(conflict.name) == str(strategy):
                answers.given.append(Answer(conflict, strategy))
    if answers.given:
        answers.keep()


def forget(session: Session) -> None:
    """Delete the saved answers when the operation is over."""
    _notes.drop(session.repo.private / "answers")


def _key(conflict: Conflict) -> str:
    """Return the key of an answer: the digests of all versions, and the name of the tensor."""
    sides = (side.digest if side else "-" for side in (conflict.base, *conflict.sides))
    return " ".join([*sides, conflict.name])


def _read(session: Session) -> dict[str, tuple[str, str]]:
    """Return key -> (strategy, glob) saved for the operation in progress; empty if there is none."""
    try:
        found = _notes.read_json(session.repo.private / "answers")
        if found["operation"] != in_progress.current(session.repo).key:
            return {}
        return {str(one): (str(text), str(glob)) for one, (text, glob) in found["answers"].items()}
    except MALFORMED:
        return {}
