"""How far changed tensors are apart, computed by the workers of an engine: nothing is stored for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from theta import parallel
from theta.engine import rounds
from theta.engine.executors import Engine
from theta.engine.workplace import Workplace
from theta.porcelain.look import diffing
from theta.porcelain.look.diffing import Compared, Numbers
from theta.porcelain.workspace.session import Session
from theta.store.changes import Change, Changes


@dataclass(frozen=True)
class NumbersPart:
    """Some changed tensors of two versions of a checkpoint."""

    workplace: Workplace
    item: Compared
    changes: tuple[Change, ...]

    @property
    def length(self) -> int:
        """Raw bytes of the new values."""
        return sum(map(length, self.changes))


def compute(part: NumbersPart) -> tuple[Numbers | None, ...]:
    """Return the statistics of each tensor of ``part``.

    Raises:
        theta.errors.UsageError: this process runs another version of theta.
    """
    session = Session(part.workplace.opened().repo)
    with parallel.limited(1):
        return tuple(diffing.numbers(session, part.item, change) for change in part.changes)


def each(
    engine: Engine, session: Session, item: Compared, changes: Sequence[Change]
) -> Iterator[tuple[Change, Numbers | None]]:
    """Yield the changes with their statistics, in the order in which workers end.

    Raises:
        theta.errors.EngineError: the workers are lost again and again.
    """
    place = Workplace.of(session.objects)
    parts = [NumbersPart(place, _part_of(item, cut), tuple(cut)) for cut in rounds.cut(changes, length)]
    for part, found in rounds.each(engine, compute, parts):
        yield from zip(part.changes, found, strict=True)


def _part_of(item: Compared, changes: Sequence[Change]) -> Compared:
    """Return as much of ``item`` as the statistics of some tensors need."""
    places = {change.name: item.places[change.name] for change in changes if change.name in item.places}
    return replace(item, changes=Changes((), container=False, unchanged=0), places=places)


def length(change: Change) -> int:
    """Return the raw bytes of the new value."""
    return change.new.nbytes if change.new is not None else 0
