"""Recipes: which strategy merges which tensor, and the line of text that reproduces a merge.

The line is in the ``Theta-Merge:`` trailer of a commit and has the options of the command line:
``-X ties:density=0.5 --rule 'lm_head*=ours' --scope all --seed 7``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from theta.errors import UsageError
from theta.lazy import Module
from theta.merging import recipe_line
from theta.merging.engine import MergeOptions
from theta.merging.states import Conflict
from theta.merging.strategies import SIDES, Policy, Strategy, parse, registry

if TYPE_CHECKING:
    from theta.merging.alignment import specs
    from theta.merging.alignment.specs import Alignment
    from theta.merging.engine import MergeScope
    from theta.store.format.manifest import Manifest
else:
    specs = Module("theta.merging.alignment.specs")

_DTYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}
"""Names of torch, as in recipes of mergekit, and those of theta."""
_BY_TOKEN: Final = "--by-token"
_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_LINE: Final = 1 << 20
_RULE: Final = re.compile(r"(.+?)=([A-Za-z][A-Za-z0-9_-]*(?::.*)?)", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """A strategy for the tensors whose names match ``glob`` (case-sensitive, as in a shell)."""

    glob: str
    strategy: Strategy

    def __str__(self) -> str:
        return f"{self.glob}={self.strategy}"

    def matches(self, name: str) -> bool:
        """Return whether ``name`` matches the glob."""
        return fnmatchcase(name, self.glob)


def rule(text: str) -> Rule:
    """Parse ``GLOB=STRATEGY``; raises :class:`UsageError`."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise UsageError(f"a rule is GLOB=STRATEGY, not {text!r}", hint="--rule 'lm_head*=ours'")
    return Rule(found[1], parse(found[2]))


@dataclass(frozen=True)
class Recipe:
    """The strategies of a merge: that of the first rule that matches a name, otherwise ``default``."""

    default: Strategy | None = None
    rules: tuple[Rule, ...] = ()
    scope: MergeScope = "conflicts"
    seed: int = 0
    allow_nan: bool = False
    without: tuple[int, ...] = ()
    """Sides that the recipe does not name, ours being 0; see ``engine.MergeOptions``."""
    dtype: str | None = None
    """The dtype of all floats of the result, or None to keep them as they are."""
    align: Alignment | None = None
    """How theirs is reordered before it is merged."""
    searched: str = ""
    """The search that found the parameters of ``default``, for readers of the commit."""
    by_token: str | None = None
    """The vocabulary by which rows are matched; see ``engine.MergeOptions``."""

    def strategy_for(self, name: str) -> Strategy | None:
        """Return the strategy for tensor ``name``, or None."""
        return self.rule_for(name) or self.default

    def rule_for(self, name: str) -> Strategy | None:
        """Return the strategy of the first rule that matches ``name``, or None."""
        return next((entry.strategy for entry in self.rules if entry.matches(name)), None)

    @property
    def uses_statistics(self) -> bool:
        """Whether any strategy uses statistics."""
        strategies = [*filter(None, [self.default]), *(rule.strategy for rule in self.rules)]
        names = {strategy.name for strategy in strategies} - {*SIDES}
        return any(registry.method(name).uses_statistics for name in names)

    @property
    def keeps_statistic(self) -> bool:
        """Whether any strategy keeps a statistic for the next merge."""
        strategies = [*filter(None, [self.default]), *(rule.strategy for rule in self.rules)]
        return any(strategy.keeps_statistic for strategy in strategies)

    def policy(self, otherwise: Policy | None = None, answered: Policy | None = None) -> Policy:
        """Return a policy that applies the recipe, and ``otherwise`` if its strategy does not apply.

        An answer of ``answered`` takes precedence over ``default``, and a rule over both.
        """

        def decide(conflict: Conflict) -> Strategy | None:
            found = self.rule_for(conflict.name)
            if found is None and answered is not None and (answer := answered(conflict)) is not None:
                return answer
            found = found or self.default
            if found is not None and found.applies(conflict):
                return found
            return otherwise(conflict) if otherwise is not None and not conflict.everything else None

        return decide

    def options(self, statistics: Sequence[Manifest | None] = (), *, dry_run: bool = False) -> MergeOptions:
        """Return the options of the engine."""
        return MergeOptions(
            self.scope,
            self.seed,
            self.allow_nan,
            tuple(statistics),
            dry_run,
            self.without,
            dtype=self.dtype,
            align=self.align,
            keeps=self.keeps_statistic,
            by_token=self.by_token,
        )

    def text(self) -> str:
        """Return the canonical line, which :func:`from_text` parses."""
        return recipe_line.join(self.words())

    def words(self) -> list[str]:
        """Return the words of the canonical line, which :func:`from_words` parses."""
        words = ["-X", str(self.default)] if self.default else []
        for entry in self.rules:
            words += ["--rule", str(entry)]
        if self.scope != "conflicts":
            words += ["--scope", self.scope]
        if self.seed:
            words += ["--seed", str(self.seed)]
        if self.allow_nan:
            words.append("--allow-nan")
        for number in self.without:
            words += ["--without", str(number)]
        if self.dtype is not None:
            words += ["--dtype", self.dtype]
        if self.align is not None:
            words += ["--align", self.align.way]
            words += ["--align-spec", self.align.spec] if self.align.spec else []
        if self.by_token:
            words += [_BY_TOKEN, self.by_token]
        if self.searched:
            words += ["--searched", self.searched]
        return words


def of_options(options: MergeOptions) -> Recipe:
    """Return the recipe without strategies whose options are ``options``."""
    return Recipe(
        None,
        (),
        options.scope,
        options.seed,
        options.allow_nan,
        options.without,
        options.dtype,
        options.align,
    )


def scope(text: str) -> MergeScope:
    """Parse ``conflicts`` or ``all``; raises :class:`UsageError`."""
    if text == "all":
        return "all"
    if text != "conflicts":
        raise UsageError(f"a scope is conflicts or all, not {text!r}")
    return "conflicts"


def dtype(text: str) -> str:
    """Parse the name of a float dtype, theta's or torch's; raises :class:`UsageError`."""
    found = _DTYPES.get(text.removeprefix("torch."), text)
    if found not in _DTYPES.values():
        raise UsageError(f"a merge has no dtype {text!r}", hint=f"one of {', '.join(_DTYPES.values())}")
    return found


def _object_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise UsageError(f"{_BY_TOKEN} takes the id of a file, not {text!r}")
    return text


def alignment(way: str, spec: str = "") -> Alignment:
    """Return the alignment by ``way`` with the specification ``spec``; raises :class:`UsageError`."""
    return specs.Alignment(specs.way(way), specs.canonical(spec) if spec else "")


def seed(text: str) -> int:
    """Parse an integer from 0 to 2**63 - 1; raises :class:`UsageError`."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= 1 << 63:
        raise UsageError(f"a seed is a whole number from 0 to 2**63 - 1, not {text!r}")
    return int(text)


def from_text(line: str) -> Recipe:
    """Parse the result of :meth:`Recipe.text`; raises :class:`UsageError`."""
    if len(line) > _MAX_LINE:
        raise UsageError(f"a recipe of {len(line)} characters is too long")
    return from_words(recipe_line.split(line))


def from_words(words: Sequence[str]) -> Recipe:
    """Parse the result of :meth:`Recipe.words`; raises :class:`UsageError`."""
    recipe = Recipe()
    waiting = iter(words)
    for word in waiting:
        recipe = _with(recipe, word, waiting)
    return recipe


def _with(recipe: Recipe, word: str, waiting: Iterator[str]) -> Recipe:
    """Return ``recipe`` with the option ``word`` added, whose value is taken from ``waiting``."""
    if word == "--allow-nan":
        return replace(recipe, allow_nan=True)
    value = next(waiting, None)
    if value is None:
        raise UsageError(f"a recipe ends after {word!r}")
    if word == "-X":
        return replace(recipe, default=parse(value))
    if word == "--rule":
        return replace(recipe, rules=(*recipe.rules, rule(value)))
    if word == "--scope":
        return replace(recipe, scope=scope(value))
    if word == "--seed":
        return replace(recipe, seed=seed(value))
    if word == "--without":
        return replace(recipe, without=(*recipe.without, seed(value)))
    if word == _BY_TOKEN:
        return replace(recipe, by_token=_object_id(value))
    if word == "--searched":
        return replace(recipe, searched=value)
    if word == "--dtype":
        return replace(recipe, dtype=dtype(value))
    if word == "--align":
        return replace(recipe, align=alignment(value))
    if word == "--align-spec" and recipe.align is not None:
        return replace(recipe, align=replace(recipe.align, spec=specs.canonical(value)))
    raise UsageError(f"a recipe has no option {word!r}", hint="-X, --rule, --scope, --seed, --allow-nan")


def combine(
    default: Strategy | None,
    rules: Sequence[Rule],
    file: Recipe | None = None,
    *,
    scope: MergeScope | None = None,
    seed: int | None = None,
    allow_nan: bool | None = None,
    dtype: str | None = None,
) -> Recipe:
    """Combine the command line with a recipe file; the command line takes precedence.

    A strategy on the command line replaces the strategy and the rules of the file.
    """
    below = file or Recipe()
    strategy, all_rules = default or below.default, (*rules, *(() if default is not None else below.rules))
    keeps = Recipe(strategy, all_rules).keeps_statistic
    if keeps and scope == "conflicts":
        raise UsageError("a strategy that keeps a momentum is for all tensors", hint="leave out --scope")
    return Recipe(
        strategy,
        all_rules,
        "all" if keeps else scope or below.scope,
        below.seed if seed is None else seed,
        below.allow_nan if allow_nan is None else allow_nan,
        below.without,
        dtype or below.dtype,
    )
