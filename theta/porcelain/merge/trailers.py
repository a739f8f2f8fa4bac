"""Merge recipes in git's configuration and in the trailers of commits.

A merge commit has its recipe in trailers, so that the merge can be repeated::

    Theta-Merge: -X ties:density=0.2 --rule 'lm_head*=ours' --statistics <id> --base <id> -- <path>...

Several trailers are several rounds: each settles conflicts that the round before left.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from theta import _fs
from theta.errors import NotFoundError, UsageError
from theta.git.repository import Repository
from theta.git.state_files import MERGE_MSG
from theta.merging import recipe_line, recipes
from theta.merging.engine import MergeOptions
from theta.merging.recipes import Recipe
from theta.merging.states import Conflict
from theta.merging.strategies import Policy, parse
from theta.porcelain.merge.joining import How
from theta.porcelain.workspace.session import Session

TRAILER: Final = "Theta-Merge"
SECTION: Final = "theta.merge"
_STATISTICS: Final = "--statistics"
_BASE: Final = "--base"
_APPLIED: Final = "--applied"
_SQUASHED: Final = "--squashed"
_LONG: Final = 100_000
"""Bytes of a value that may not fit into an argument of a program (Linux: 128 KiB); a digest stands in."""
_SUBJECT: Final = re.compile(rb"[A-Za-z][^\n]*\n+")
"""A message of one line that is no comment; trailers follow it as a new paragraph."""
_SET: Final = re.compile(r"trailer\.|core\.comment")
"""Configuration that changes where git puts trailers or how it reads messages; names are in lower case."""
_CONFLICTS: Final = re.compile(r"\n+(\S) Conflicts:\n(\1\t.*\n?)*\Z")


@dataclass(frozen=True)
class Round:
    """One round of settling conflicts.

    Attributes:
        recipe: the strategies and rules.
        statistics: ids of the manifests with the statistics of each side; may be empty.
        base: the commit used as the base, or "" for the merge base.
        paths: the checkpoints that it settled; empty for all.
        applied: the commits whose difference was applied (a cherry-pick, a revert, a step of a rebase).
        squashed: the commits that a squashed merge took in.
    """

    recipe: Recipe
    statistics: tuple[str, ...] = ()
    base: str = ""
    paths: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    squashed: tuple[str, ...] = ()

    def is_about(self, path: str) -> bool:
        """Return whether this round settled the checkpoint at ``path``."""
        return not self.paths or path in self.paths

    def text(self) -> str:
        """Return the round as one line."""
        words = [word for oid in self.statistics for word in (_STATISTICS, oid)]
        words += [_BASE, self.base] if self.base else []
        words += [_APPLIED, "..".join(self.applied)] if self.applied else []
        words += [word for oid in self.squashed for word in (_SQUASHED, oid)]
        words += ["--", *self.paths] if self.paths else []
        return recipe_line.join([*self.recipe.words(), *words])

    def options(self, session: Session, *, dry_run: bool = False) -> MergeOptions:
        """Return the options of the engine."""
        found = [session.manifest(oid) for oid in self.statistics]
        return self.recipe.options(found, dry_run=dry_run)


def read_round(line: str) -> Round:
    """Parse the result of :meth:`Round.text`; raises :class:`UsageError`."""
    words = recipe_line.split(line)
    at = words.index("--") if "--" in words else len(words)
    words, paths = words[:at], words[at + 1 :]
    statistics, bases, applied, squashed = (
        tuple(_pop_values(words, option)) for option in (_STATISTICS, _BASE, _APPLIED, _SQUASHED)
    )
    recipe = recipes.from_words(words)
    refuse_statistics(recipe, statistics)
    between = tuple(applied[0].split("..", 1)) if applied else ()
    return Round(recipe, statistics, "".join(bases[:1]), tuple(paths), between, squashed)


def refuse_statistics(recipe: Recipe, given: Sequence[str]) -> None:
    """Raise :class:`UsageError` for statistics with an alignment, whose order is not theirs."""
    if recipe.align is not None and given:
        raise UsageError("--align puts theirs in an order that its statistics do not have")


def _pop_values(words: list[str], option: str) -> list[str]:
    """Remove ``option`` and its values from ``words``; return the values."""
    found: list[str] = []
    while option in words:
        at = words.index(option)
        found += words[at + 1 : at + 2]
        del words[at : at + 2]
    return found


def configured(session: Session) -> Recipe:
    """Return the recipe in git's configuration: ``theta.merge.{strategy,rule,scope,seed}``."""
    config = session.repo.config
    rules = [recipes.rule(text) for text in config.all(f"{SECTION}.rule")]
    strategy, scope, seed = (_value(session, key) for key in ("strategy", "scope", "seed"))
    return recipes.combine(
        parse(strategy) if strategy else None,
        rules,
        scope=recipes.scope(scope) if scope else None,
        seed=recipes.seed(seed) if seed else None,
    )


def matches_tokens(session: Session) -> bool:
    """Return whether rows are matched by token where vocabularies differ (``theta.merge.byToken``, on)."""
    return _value(session, "bytoken") is None or session.repo.config.flag(f"{SECTION}.bytoken")


def _value(session: Session, key: str) -> str | None:
    return session.repo.config.get(f"{SECTION}.{key}")


def statistics(session: Session, names: Sequence[str]) -> tuple[str, ...]:
    """Return the manifest ids of ``REV:PATH`` names; raises :class:`NotFoundError` for other objects."""
    found = []
    for name in names:
        place = session.tree_path(name)
        oid = session.repo.resolve(name) if place is None else session.repo.file_at(place)
        if oid is None or session.manifest_or_none(oid) is None:
            raise NotFoundError(f"{name} is not a checkpoint", hint="name one as REV:PATH")
        found.append(oid)
    return tuple(found)


# -- in commits --------------------------------------------------------------------------


def conclude(session: Session) -> None:
    """Remove git's list of conflicts from the message; without an editor git would keep these comments."""
    message = session.repo.gitdir / MERGE_MSG
    if message.exists():
        text = message.read_bytes().decode(errors="surrogateescape")
        kept = _CONFLICTS.sub("\n", text)
        if kept != text:
            _fs.write_atomic(message, kept.encode(errors="surrogateescape"))


def with_trailers(repo: Repository, text: bytes, lines: Sequence[str]) -> bytes:
    """Return the message ``text`` with the trailers ``lines`` where git puts them."""
    if _SUBJECT.fullmatch(text) and not any(map(_SET.match, repo.config)):
        subject, _, rest = text.partition(b"\n")
        end = "".join(f"{line}\n" for line in lines)
        return subject + b"\n\n" + end.encode(errors="surrogateescape") + rest
    pairs = [_shortened(line) for line in lines]
    options = [word for short, _, _ in pairs for word in ("--trailer", short)]
    where = ("--if-exists", "add", "--if-missing", "add", "--where", "end")
    command = (*_separators(repo), "interpret-trailers", *where, *options)
    whole = repo.git().run(*command, stdin=text).stdout
    for _, stand_in, value in pairs:
        whole = whole.replace(stand_in, value)
    return whole


def _shortened(line: str) -> tuple[str, bytes, bytes]:
    """Return a trailer that an argument can hold, the value that it has, and the value that belongs there."""
    key, _, value = line.partition(": ")
    data = value.encode(errors="surrogateescape")
    if len(data) <= _LONG:
        return line, data, data
    stand_in = hashlib.sha256(data).hexdigest()
    return f"{key}: {stand_in}", stand_in.encode(), data


def values(session: Session, oid: str, key: str) -> list[str]:
    """Return the values of the trailers ``key`` of commit ``oid``.

    theta writes UTF-8, whatever encoding the commit claims; a git that writes the commit anew changes that.
    """
    wanted = f"--format=%(trailers:key={key},valueonly,unfold)"
    command = (*_separators(session.repo), "show", "-s", wanted, oid)
    found = session.repo.git().run(*command, "--encoding=none")
    if any("\udc80" <= character <= "\udcff" for character in found.text):  # not UTF-8
        found = session.repo.git().run(*command, "--encoding=UTF-8")
    return [line for line in map(str.strip, found.text.split("\n")) if line]


def _separators(repo: Repository) -> tuple[str, ...]:
    """Return options of git with which a colon, too, ends the key of a trailer."""
    found = repo.config.get("trailer.separators")
    return (
        () if found is None or found[:1] == ":" else ("-c", f"trailer.separators=:{found.replace(':', '')}")
    )


def are_read(session: Session, oid: str) -> bool:
    """Return whether git reads each line of commit ``oid`` that begins as a trailer of theta as one."""
    begun = re.findall(rf"^{TRAILER}:", session.repo.commit(oid).message, re.MULTILINE | re.IGNORECASE)
    return len(begun) == len(values(session, oid, TRAILER))


def rounds(session: Session, oid: str) -> list[Round]:
    """Return the rounds in the trailers of commit ``oid``; raises :class:`UsageError` if one is malformed."""
    try:
        return [read_round(line) for line in values(session, oid, TRAILER)]
    except UsageError as error:
        told = f"{oid[:12]} has a malformed {TRAILER} trailer: {error}"
        raise UsageError(told, hint=error.hint, details=error.details) from error


def how_of(session: Session, found: Sequence[Round]) -> How:
    """Return a ``How`` that decides each checkpoint by those rounds of ``found`` that settled it."""

    def by_path(path: str) -> How:
        own = [one for one in found if one.is_about(path)]
        policy: Policy = _left
        for one in reversed(own):
            policy = one.recipe.policy(policy)
        return How(policy, own[0].options(session) if own else MergeOptions(), whole=True)

    return How(_left, whole=True, by_path=by_path)


def _left(_conflict: Conflict) -> None:
    return None
