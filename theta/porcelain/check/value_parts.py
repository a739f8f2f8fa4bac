"""Rules on values, checked by the workers of an engine: each reads some tensors where they lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from theta import parallel
from theta.engine import rounds
from theta.engine.workplace import Workers, Workplace
from theta.errors import ChangedWhileReadError, ThetaError
from theta.formats.values import Value
from theta.porcelain.check import value_rules
from theta.porcelain.check.value_rules import CheckedValue, Demand
from theta.porcelain.check.version_files import VersionPlace
from theta.porcelain.workspace.session import Session
from theta.progress import Progress


@dataclass(frozen=True)
class CheckedSide:
    """A checkpoint as every worker opens it: its version, and its path there."""

    version: VersionPlace
    path: str

    def values(self, session: Session, stack: contextlib.ExitStack) -> Mapping[str, Value]:
        """Open it until ``stack`` is closed."""
        return self.version.opened(session).model(self.path, stack).values


@dataclass(frozen=True)
class ValuesPart:
    """Some tensors of a checkpoint.

    Attributes:
        workplace: the repository.
        now: the checkpoint.
        before: the one that it is compared with, if there is one.
        demands: name -> what is asked of the tensor.
        length: raw bytes.
    """

    workplace: Workplace
    now: CheckedSide
    before: CheckedSide | None
    demands: Mapping[str, Demand]
    length: int


def compute(part: ValuesPart) -> tuple[CheckedValue | ThetaError, ...]:
    """Return what was found of each tensor of ``part``, or why it cannot be read.

    Raises:
        theta.errors.UsageError: this process runs another version of theta.
    """
    session = Session(part.workplace.opened().repo)
    with parallel.limited(1), contextlib.ExitStack() as stack:
        now = part.now.values(session, stack)
        before = part.before.values(session, stack) if part.before is not None else {}
        return tuple(
            _checked(part.now.path, name, now, before.get(name), demand)
            for name, demand in part.demands.items()
        )


def _checked(
    path: str, name: str, now: Mapping[str, Value], old: Value | None, demand: Demand
) -> CheckedValue | ThetaError:
    try:
        if name not in now:
            return ChangedWhileReadError(f"{path} changed while it was read")
        return value_rules.checked(path, name, now[name], old, demand)
    except ThetaError as error:
        return error


@dataclass(frozen=True)
class ValueWorkers(Workers):
    """Workers that check one checkpoint beside the version before.

    Attributes:
        now: the checkpoint.
        before: the one that it is compared with, if there is one.
    """

    now: CheckedSide
    before: CheckedSide | None

    def checked(
        self, sizes: Mapping[str, int], demands: Mapping[str, Demand], progress: Progress | None
    ) -> Iterator[tuple[str, CheckedValue]]:
        """Yield what was found of the tensors, name -> raw bytes, in their order.

        Raises:
            theta.errors.EngineError: the workers are lost again and again.
            theta.errors.ThetaError: the first tensor that cannot be read, in its turn.
        """
        parts = [self._part(cut, sizes, demands) for cut in rounds.cut([*sizes], sizes.__getitem__)]
        found: dict[str, CheckedValue | ThetaError] = {}
        for part, made in rounds.each(self.engine, compute, parts, progress):
            found |= zip(part.demands, made, strict=True)
        for name in sizes:
            one = found[name]
            if isinstance(one, ThetaError):
                raise one
            yield name, one

    def _part(self, names: list[str], sizes: Mapping[str, int], demands: Mapping[str, Demand]) -> ValuesPart:
        length = sum(sizes[name] for name in names)
        asked = {name: demands[name] for name in names}
        return ValuesPart(Workplace.of(self.objects), self.now, self.before, asked, length)
