"""Parameters of strategies: their names, their allowed values, and their value for one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from theta.errors import UsageError, did_you_mean
from theta.merging.strategies.parameter_text import Filtered, Setting, text

ParameterKind = Literal["number", "whole", "switch", "word"]

_REFUSED: Final = {
    "int8_mask": "theta keeps masks in single bits, so there is nothing to save",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy.

    Args:
        name: the name in mergekit.
        kind: a number, a whole number, true or false, or a word of ``words``.
        default: the default value; None to let the method decide.
        doc: a description without a verb.
        low: the smallest value.
        high: the largest value.
        per_model: each input may have its own value.
        required: the parameter must be given.
        words: the allowed words.
        strict: ``low`` and ``high`` themselves are not allowed.
    """

    name: str
    kind: ParameterKind
    default: Any
    doc: str
    low: float = float("-inf")
    high: float = float("inf")
    per_model: bool = False
    required: bool = False
    words: tuple[str, ...] = ()
    strict: bool = False

    def check(self, value: Setting) -> None:
        """Raise :class:`UsageError` unless ``value`` and all values in its lists and filters are allowed."""
        if isinstance(value, Filtered):
            for _, inner in value.entries:
                self.check(inner)
        elif isinstance(value, tuple):
            for inner in value:
                self._check_entry(inner)
        else:
            self._check_plain(value)

    def _check_entry(self, value: Setting) -> None:
        if self.per_model:
            self._check_one_model(value)
        elif self.kind == "whole":
            raise UsageError(f"{self.name} is {self.wanted}, not a gradient over the layers")
        else:
            self._check_plain(value)

    def _check_one_model(self, value: Setting) -> None:
        """Check the value for one input: a scalar, a gradient, or filters of these."""
        if isinstance(value, Filtered):
            for _, inner in value.entries:
                self._check_one_model(inner)
        elif isinstance(value, tuple):
            if self.kind == "whole":
                raise UsageError(f"{self.name} is {self.wanted}, not a gradient over the layers")
            for inner in value:
                self._check_plain(inner)
        else:
            self._check_plain(value)

    def _check_plain(self, value: Setting) -> None:
        good = {
            "number": isinstance(value, float),
            "whole": isinstance(value, float) and value.is_integer(),
            "switch": isinstance(value, bool),
            "word": isinstance(value, str) and value in self.words,
        }[self.kind]
        if good and isinstance(value, float):
            good = self.low < value < self.high if self.strict else self.low <= value <= self.high
        if not good:
            raise UsageError(f"{self.name} is {self.wanted}, not {text(value)}")

    @property
    def wanted(self) -> str:
        """The allowed values in words."""
        if self.kind == "switch":
            return "true or false"
        if self.kind == "word":
            return " or ".join(self.words)
        what = "a number" if self.kind == "number" else "a whole number"
        if self.low > float("-inf") and self.high < float("inf"):
            words = ("between", "and") if self.strict else ("from", "to")
            return f"{what} {words[0]} {self.low:g} {words[1]} {self.high:g}"
        if self.low > float("-inf"):
            return f"{what} {'above' if self.strict else 'of at least'} {self.low:g}"
        return what

    # -- for one tensor ----------------------------------------------------------------

    def resolve(self, value: Setting | None, name: str, position: float, count: int) -> Any:
        """Return the value for tensor ``name`` at ``position`` (0 to 1) in the layers.

        If the parameter is per model, this is a list with a value for each of ``count`` inputs.
        """
        if not self.per_model:
            return self._scalar(value, name, position)
        while isinstance(value, Filtered):
            value = value.at(name)
        if not isinstance(value, tuple):
            return [self._scalar(value, name, position)] * count
        if len(value) not in (1, count):
            raise UsageError(
                f"{self.name} has {len(value)} values and the merge has {count} inputs",
                hint="one value for all, or one for each side, ours first",
            )
        values = value * count if len(value) == 1 else value
        return [self._scalar(inner, name, position) for inner in values]

    def _scalar(self, value: Setting | None, name: str, position: float) -> Any:
        while isinstance(value, Filtered):
            value = value.at(name)
        if value is None:
            return self.default
        if isinstance(value, tuple) and self.kind != "number":
            return value[int(position * (len(value) - 1))]  # mergekit's choice: the last one at the end only
        if isinstance(value, tuple):
            return interpolated([float(v) for v in value if isinstance(v, float)], position)
        return int(value) if self.kind == "whole" and isinstance(value, float) else value


def interpolated(points: Sequence[float], position: float) -> float:
    """Interpolate linearly between evenly spaced ``points`` at ``position`` (0 to 1), like mergekit."""
    last = len(points) - 1
    place = position * last
    below = int(place)
    share = place - below
    return (1 - share) * points[below] + share * points[min(below + 1, last)]


def checked(strategy: str, known: Sequence[Parameter], given: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return ``given`` without default values; raises :class:`UsageError` for bad names and values."""
    by_name = {parameter.name: parameter for parameter in known}
    for key, value in given.items():
        if key in _REFUSED:
            raise UsageError(f"{key} is not supported: {_REFUSED[key]}", hint=f"leave {key} out")
        if key not in by_name:
            names = ", ".join(by_name) or "none"
            hint = did_you_mean(key, by_name) or f"its parameters: {names}"
            raise UsageError(f"{strategy} has no parameter {key!r}", hint=hint)
        by_name[key].check(value)
    missing = [p.name for p in known if p.required and p.name not in given]
    if missing:
        raise UsageError(f"{strategy} needs {missing[0]}", hint=f"{strategy}:{missing[0]}=...")
    return {key: value for key, value in given.items() if value != by_name[key].default}
