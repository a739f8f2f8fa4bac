"""A short recipe for what was done: every tensor by its name gets the strategy that it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape

from theta.merging.recipes import Recipe, Rule
from theta.merging.strategies import parse


@dataclass(frozen=True)
class Deed:
    """How one checkpoint was settled.

    Attributes:
        manifest: the id of the manifest that came of it; empty where the checkpoint was removed.
        terms: what the strategies depended on beside their parameters (scope, seed, base and so on), as text.
        asked: the recipe that was followed, as text.
        tensors: the strategy that was applied, by the tensor's name.
    """

    manifest: str
    terms: str
    asked: str
    tensors: Mapping[str, str]


def recipe(tensors: Mapping[str, str], asked: Recipe, *, every: bool = False) -> Recipe:
    """The recipe that gives each of ``tensors`` its strategy, by those rules of ``asked`` that did so.

    A tensor whose strategy no rule tells gets a rule of its own, or the default if most are like it.
    ``every``: other tensors were asked for too, so that a rule which settled none may have spared some.
    """
    kept = asked if every else _used(tensors, asked)
    exact = [
        Rule(escape(name), parse(how)) for name, how in tensors.items() if str(kept.strategy_for(name)) != how
    ]
    return replace(kept, rules=(*exact, *kept.rules))


def _used(tensors: Mapping[str, str], asked: Recipe) -> Recipe:
    """``asked`` without what settled none of ``tensors``."""
    firsts = {name: _first(asked.rules, name) for name in tensors}
    used = {rule for name, rule in firsts.items() if rule is not None and str(rule.strategy) == tensors[name]}
    kept = replace(asked, rules=tuple(rule for rule in asked.rules if rule in used))
    rest = {name: how for name, how in tensors.items() if _first(kept.rules, name) is None}
    if kept.default is None or str(kept.default) not in rest.values():
        common = Counter(rest.values()).most_common(1)
        kept = replace(kept, default=parse(common[0][0]) if common and common[0][1] > 1 else None)
    return kept


def _first(rules: Sequence[Rule], name: str) -> Rule | None:
    return next((rule for rule in rules if rule.matches(name)), None)


def gathered(deeds: Mapping[str, Deed]) -> list[dict[str, Deed]]:
    """``deeds`` (by path) in groups that one recipe can tell: equal terms, no tensor settled in two ways."""
    groups: list[dict[str, Deed]] = []
    for path, deed in deeds.items():
        fitting = (group for group in groups if all(_agree(deed, other) for other in group.values()))
        group = next(fitting, None)
        if group is None:
            groups.append({path: deed})
        else:
            group[path] = deed
    return groups


def _agree(one: Deed, other: Deed) -> bool:
    if (one.terms, one.asked) != (other.terms, other.asked):
        return False
    return all(other.tensors.get(name, how) == how for name, how in one.tensors.items())
