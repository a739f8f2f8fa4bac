"""How tensors are merged, from where it is written: git's configuration, or the trailers of a commit.

A merge commit tells its recipe in trailers, so that the merge can be done again::

    Theta-Merge: -X ties:density=0.2 --rule 'lm_head*=ours' --statistics <id> --base <id> -- <path>...

Several trailers mean several rounds: what one left in conflict, the next one settled.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from theta import _fs
from theta.errors import NotFoundError, UsageError
from theta.merging import recipes
from theta.merging.checkpoints import Options
from theta.merging.recipes import Recipe
from theta.merging.states import Conflict
from theta.merging.strategies import Policy, parse
from theta.porcelain.joining import How
from theta.porcelain.session import Session

TRAILER: Final = "Theta-Merge"
SECTION: Final = "theta.merge"
_STATISTICS: Final = "--statistics"
_BASE: Final = "--base"
_CONFLICTS: Final = re.compile(r"\n+(\S) Conflicts:\n(\1\t.*\n?)*\Z")


@dataclass(frozen=True)
class Round:
    """One round of settling.

    Attributes:
        recipe: what decided.
        statistics: the manifest that each side was weighed by, where there were any.
        base: the commit that was compared with, where it is not the merge base.
        paths: the checkpoints that it was asked for; nothing means all.
    """

    recipe: Recipe
    statistics: tuple[str, ...] = ()
    base: str = ""
    paths: tuple[str, ...] = ()

    def text(self) -> str:
        """The round as one line."""
        words = [word for oid in self.statistics for word in (_STATISTICS, oid)]
        words += [_BASE, self.base] if self.base else []
        words += ["--", *self.paths] if self.paths else []
        return " ".join(filter(None, (self.recipe.text(), shlex.join(words))))

    def options(self, session: Session, *, dry_run: bool = False) -> Options:
        """What the engine is told beside the policy."""
        found = [session.manifest(oid) for oid in self.statistics]
        return self.recipe.options(found, dry_run=dry_run)


def read_round(line: str) -> Round:
    """The inverse of :meth:`Round.text`; raises :class:`UsageError`."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"a malformed recipe: {error}") from error
    at = words.index("--") if "--" in words else len(words)
    words, paths = words[:at], words[at + 1 :]
    statistics, bases = _taken(words, _STATISTICS), _taken(words, _BASE)
    return Round(recipes.from_text(shlex.join(words)), tuple(statistics), "".join(bases[:1]), tuple(paths))


def _taken(words: list[str], option: str) -> list[str]:
    """The values of ``option``, which is taken out of ``words``."""
    found: list[str] = []
    while option in words:
        at = words.index(option)
        found += words[at + 1 : at + 2]
        del words[at : at + 2]
    return found


def configured(session: Session) -> Recipe:
    """What git's configuration says: ``theta.merge.strategy``, ``.rule`` (many), ``.scope``, ``.seed``."""
    config = session.repo.raw.config
    rules = [recipes.rule(text) for text in config.get_multivar(f"{SECTION}.rule") if text]
    strategy, scope, seed = (_value(session, key) for key in ("strategy", "scope", "seed"))
    return recipes.combine(
        parse(strategy) if strategy else None,
        rules,
        scope=recipes.scope(scope) if scope else None,
        seed=recipes.seed(seed) if seed else None,
    )


def _value(session: Session, key: str) -> str | None:
    name = f"{SECTION}.{key}"
    return session.repo.raw.config[name] if name in session.repo.raw.config else None  # noqa: SIM401


def statistics(session: Session, names: Sequence[str]) -> tuple[str, ...]:
    """The manifest ids of ``REV:PATH`` names; raises :class:`NotFoundError` where there is none."""
    found = []
    for name in names:
        oid = session.repo.resolve(name)
        if session.manifest_or_none(oid) is None:
            raise NotFoundError(f"{name} is not a checkpoint", hint="name one as REV:PATH")
        found.append(oid)
    return tuple(found)


# -- in commits --------------------------------------------------------------------------


def record(session: Session, done: Round) -> None:
    """Add ``done`` to the message of the merge that is under way."""
    message = session.repo.gitdir / "MERGE_MSG"
    if (session.repo.gitdir / "MERGE_HEAD").exists() and message.exists():
        options = ["--in-place", "--if-exists", "addIfDifferent", "--trailer", f"{TRAILER}: {done.text()}"]
        session.repo.git().run("interpret-trailers", *options, str(message))


def conclude(session: Session) -> None:
    """Take git's list of conflicts out of the message: they are settled, and no editor will strip it."""
    message = session.repo.gitdir / "MERGE_MSG"
    if message.exists():
        text = message.read_text(errors="surrogateescape")
        kept = _CONFLICTS.sub("\n", text)
        if kept != text:
            _fs.write_atomic(message, kept.encode(errors="surrogateescape"))


def rounds(session: Session, oid: str) -> list[Round]:
    """The rounds that commit ``oid`` tells of."""
    wanted = f"%(trailers:key={TRAILER},valueonly,unfold)"
    lines = session.repo.git().run("show", "-s", f"--format={wanted}", oid).text.splitlines()
    return [read_round(line) for line in map(str.strip, lines) if line]


def how_of(session: Session, found: Sequence[Round]) -> How:
    """What ``found`` decide, each path by the rounds that it had."""
    options = {one.options(session) for one in found} or {Options()}
    if len(options) > 1:
        raise UsageError(
            "its tensors were settled in rounds of different scope or seed, which cannot be redone"
        )
    return How(_left, options.pop(), whole=True, by_path=lambda path: _policy(found, path))


def _policy(found: Sequence[Round], path: str) -> Policy:
    policy: Policy = _left
    for one in reversed(found):
        if not one.paths or path in one.paths:
            policy = one.recipe.policy(policy)
    return policy


def _left(conflict: Conflict) -> None:
    return None
