"""The demands of a gate: the table ``[check]`` of ``.theta.toml``, and what the command line adds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from theta.errors import UsageError, did_you_mean
from theta.porcelain.check.findings import RULES
from theta.porcelain.tensors.sources import parse_size

FILE: Final = ".theta.toml"
_MOST: Final = 1 << 20
_KEYS: Final[Mapping[str, Any]] = {"frozen": [], "max-change": {}, "max-size": None, "ignore": {}}
"""The keys of ``[check]``, and what they are without a word."""


@dataclass(frozen=True)
class CheckRules:
    """The rules of a gate.

    Attributes:
        frozen: globs of tensors that may not change.
        budgets: glob -> largest relative change, norm of the difference over that of the old value; of
            several globs that match, the smallest counts.
        size: the largest number of bytes that a version may newly store; None for any.
        ignored: rule -> globs of tensors and paths to which it does not apply; ``*`` for none at all.
    """

    frozen: tuple[str, ...] = ()
    budgets: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def budget(self, name: str) -> float | None:
        """Return how far tensor ``name`` may change; None when nothing limits it."""
        if any(fnmatchcase(name, glob) for glob in self.frozen):
            return 0.0
        return min((most for glob, most in self.budgets.items() if fnmatchcase(name, glob)), default=None)

    def is_ignored(self, rule: str, path: str, tensor: str) -> bool:
        """Return whether ``rule`` does not apply to this tensor of this file."""
        globs = self.ignored.get(rule, ())
        return any(fnmatchcase(name, glob) for glob in globs for name in (path, tensor) if name)

    def joined(self, other: CheckRules) -> CheckRules:
        """Return both rules together; of the sizes the one of ``other`` counts, if it has one."""
        ignored = {
            rule: (*self.ignored.get(rule, ()), *other.ignored.get(rule, ()))
            for rule in {**self.ignored, **other.ignored}
        }
        size = self.size if other.size is None else other.size
        budgets = dict(self.budgets)
        for glob, most in other.budgets.items():
            budgets[glob] = min(most, budgets.get(glob, most))
        return CheckRules((*self.frozen, *other.frozen), budgets, size, ignored)

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the globs of budgets that match none of the tensors ``names``."""
        found = list(names)
        return [g for g in (*self.frozen, *self.budgets) if not any(fnmatchcase(name, g) for name in found)]


def of_file(root: Path) -> CheckRules:
    """Return the rules of ``.theta.toml`` in ``root``; raises :class:`UsageError` with all that is wrong."""
    place = root / FILE
    if not place.is_file():
        return CheckRules()
    if place.stat().st_size > _MOST:
        raise UsageError(f"{FILE} is larger than 1 MB")
    try:
        whole = tomllib.loads(place.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{FILE}: {error}") from error
    if other := sorted(whole.keys() - {"check"}):
        raise UsageError(f"{FILE}: there is no table {other[0]!r}", hint="the rules are in [check]")
    return parsed(whole.get("check", {}))


def parsed(table: Any) -> CheckRules:
    """Return the rules of a table ``[check]``; raises :class:`UsageError` that names all that is wrong."""
    if not isinstance(table, dict):
        raise UsageError(f"{FILE}: check is no table")
    if faults := [*_faults(table)]:
        unknown = did_you_mean(_unknown(table), [*_KEYS, *RULES])
        raise UsageError(f"{FILE}: {'; '.join(faults)}", hint=unknown or "'theta help checking' has the form")
    frozen, budgets, ignored = (table.get(key, empty) for key, empty in _KEYS.items() if key != "max-size")
    size = parse_size(str(table["max-size"])) if "max-size" in table else None
    whole = {rule: tuple(globs) for rule, globs in ignored.items()}
    return CheckRules(tuple(frozen), {glob: float(most) for glob, most in budgets.items()}, size, whole)


def _faults(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong in a table."""
    yield from (f"[check] has no {key}" for key in table if key not in _KEYS)
    if not _is_globs(table.get("frozen", [])):
        yield "frozen must be a list of globs"
    if not _is_budgets(table.get("max-change", {})):
        yield "max-change must be a table of numbers by glob"
    ignored = table.get("ignore", {})
    if not _is_globs_by_rule(ignored):
        yield "ignore must be a table of lists of globs by rule"
    else:
        yield from (f"ignore: there is no rule {rule}" for rule in ignored if rule not in RULES)


def _unknown(table: Mapping[str, Any]) -> str:
    """Return the first key or rule of a table that there is not, or ""."""
    ignored = table.get("ignore", {})
    rules = [rule for rule in ignored if rule not in RULES] if _is_globs_by_rule(ignored) else []
    return next((key for key in table if key not in _KEYS), rules[0] if rules else "")


def of_words(
    frozen: Sequence[str], budgets: Sequence[str], size: str | None, ignored: Sequence[str]
) -> CheckRules:
    """Return the rules of a command line: GLOB, GLOB=NUMBER, SIZE, RULE or RULE=GLOB."""
    found: dict[str, float] = {}
    for word in budgets:
        glob, _, number = word.rpartition("=")
        try:
            found[glob] = float(number)
        except ValueError:
            found[glob] = -1.0
        if not glob or not found[glob] >= 0:
            raise UsageError(f"{word!r} is no budget", hint="say --max-change 'lm_head*=0.01'")
    skipped: dict[str, tuple[str, ...]] = {}
    for word in ignored:
        rule, _, glob = word.partition("=")
        if rule not in RULES:
            raise UsageError(f"there is no rule {rule}", hint=f"rules are {', '.join(RULES)}")
        skipped[rule] = (*skipped.get(rule, ()), glob or "*")
    return CheckRules(tuple(frozen), found, None if size is None else parse_size(size), skipped)


def _is_globs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(glob, str) for glob in value)


def _is_globs_by_rule(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_globs, value.values()))


def _is_budgets(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(most, int | float) and not isinstance(most, bool) and most >= 0 for most in value.values()
    )
