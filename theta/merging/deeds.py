"""Deriving a short recipe from a record of which strategy settled which tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape

from theta.merging.recipes import Recipe, Rule
from theta.merging.strategies import parse


@dataclass(frozen=True)
class Deed:
    """The record of how one checkpoint was settled.

    Attributes:
        manifest: id of the resulting manifest; empty if the checkpoint was removed.
        terms: scope, seed, base and other options that the strategies depend on, as text.
        asked: the recipe that was followed, as text.
        tensors: name of a tensor -> the strategy that settled it.
    """

    manifest: str
    terms: str
    asked: str
    tensors: Mapping[str, str]


def recipe(tensors: Mapping[str, str], asked: Recipe, *, every: bool = False) -> Recipe:
    """Return a recipe that gives each of ``tensors`` its strategy, with the effective rules of ``asked``.

    A tensor whose strategy follows from no rule gets its own rule, or the default if that is most frequent.
    With ``every`` all rules are kept, because a rule may have matched tensors that it left unsettled.
    """
    kept = asked if every else _used(tensors, asked)
    exact = [
        Rule(escape(name), parse(how)) for name, how in tensors.items() if str(kept.strategy_for(name)) != how
    ]
    return replace(kept, rules=(*exact, *kept.rules))


def _used(tensors: Mapping[str, str], asked: Recipe) -> Recipe:
    """Return ``asked`` without the rules and the default that settled none of ``tensors``."""
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
    """Group ``deeds`` (by path) so that one recipe describes each group.

    All deeds of a group have the same terms, and a tensor name has one strategy.
    """
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
