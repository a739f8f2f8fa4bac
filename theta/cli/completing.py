"""Completing a command line of theta, for the shells."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from theta.cli import catalogue, option_names
from theta.git.run import plain
from theta.porcelain.care.line_words import LineWords, parts

OPEN: Final = ("/", ":", "#", "=", ".", ",")
"""Ends of a word that goes on."""
_BEFORE: Final = ("-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env", "--color",
                  "--no-pager", "--paginate", "--quiet", "--version", "--help", "--bare")  # fmt: skip
_TAKING: Final = _BEFORE[:6]
_BRANCHES: Final = ("branch", "merge", "rebase", "cherry-pick", "revert", "tag", "switch", "bisect")
"""Commands whose words are revisions, not paths."""
_NETWORK: Final = ("push", "fetch", "pull")
_INSIDE: Final = ("show", "cat", "export", "diff", "blame", "scan", "apply", "extract-lora", "convert",
                  "lineage")  # fmt: skip
"""Commands that take ``REV:PATH`` or ``REV:PATH#TENSOR``."""
_BOTH: Final = ("log", "reset", "checkout", "restore")
_STRATEGIES: Final = ("-X", "--strategy-option", "--strategy")
_CHOICES: Final = {
    "--color": ("always", "never", "auto"),
    "--scope": ("conflicts", "all"),
    "--update-type": ("low-rank", "sparse", "ia3", "scaled", "dense"),
}
_SHELLS: Final = ("bash", "zsh", "fish")


def words(line: Sequence[str]) -> list[str]:
    """Return what the last word of ``line`` may become; a word that ends it has a space at its end.

    ``line`` starts with ``theta``, or with ``git`` and ends in a command ``theta`` of it.
    """
    line = list(line)
    while len(line) > 1 and line[0] != "theta" and os.path.basename(line[0]) not in ("theta", "git-theta"):
        del line[0]
    place, rest = _after_globals(line[1:])
    known = LineWords(plain(place))
    word = rest[-1] if rest else ""
    if len(rest) <= 1:
        found = _starts(known, word, line[-2:-1])
    else:
        found = _of_command(known, rest[0], rest[1:-1], word)
    fitting = dict.fromkeys(one for one in found if one.startswith(word))
    goes_on = len(rest) > 1 and rest[0] in _INSIDE
    return [one if _is_open(one, goes_on) else f"{one} " for one in fitting]


def _is_open(word: str, goes_on: bool) -> bool:
    """Return whether more may follow; where a word ``goes_on``, ``#TENSOR`` may stand behind a path."""
    return word.endswith(OPEN) or (goes_on and ":" in word and "#" not in word)


def _after_globals(rest: list[str]) -> tuple[Path, list[str]]:
    """Return the directory that ``-C`` names, and the line from its command on."""
    place = Path.cwd()
    while len(rest) > 1 and rest[0].startswith("-"):
        taken = 2 if rest[0] in _TAKING else 1
        if rest[0] == "-C" and len(rest) > 2:
            place /= Path(rest[1]).expanduser()
        if taken >= len(rest):
            break
        rest = rest[taken:]
    return place, rest


def _starts(known: LineWords, word: str, before: Sequence[str]) -> Iterable[str]:
    if [*before] and before[0] in ("-C", "--git-dir", "--work-tree"):
        return known.files(word)
    if word.startswith("-"):
        return _BEFORE
    ours = [name for group in catalogue.COMMANDS.values() for name in group]
    return ours if any(name.startswith(word) for name in ours) and word else [*ours, *known.commands()]


def _of_command(known: LineWords, name: str, args: Sequence[str], word: str) -> Iterable[str]:
    spelled, module, _ = catalogue.spelled_out(name, [*args, word])
    before = args[-1] if args else ""
    if "--" in args:
        return [*known.files(word), *known.missing()]
    if (values := _values(known, before, word)) is not None:
        return values
    if word.startswith("-"):
        own = option_names.of_module(module) if module else option_names.Own({}, passes=True)
        return [*own.takes, "--help", *(known.options(name, *args[:1]) if own.passes else ())]
    operands = [arg for arg in args if not arg.startswith("-")]
    return _operands(known, spelled, operands, word)


def _values(known: LineWords, option: str, word: str) -> Iterable[str] | None:
    """Return the values of ``option``; None when nothing is known of them."""
    if option == "--rule":
        glob, equals, _ = word.partition("=")
        return (
            [f"{glob}={one}" for one in known.strategies()]
            if equals
            else parts(known.checkpoint_tensors(), word)
        )
    if option in _STRATEGIES:
        return known.strategies()
    if option == "--tensor":
        return parts(known.checkpoint_tensors(), word)
    if option == "--run":
        return known.runs()
    return _CHOICES.get(option)


def _operands(known: LineWords, name: str, operands: Sequence[str], word: str) -> Iterable[str]:
    if name.startswith("runs"):
        return _of_runs(known, name, operands[name.count(" ") :])
    if name == "help":
        topics = (path.stem for path in (Path(__file__).parents[1] / "docs").glob("*.md"))
        return [*(one for group in catalogue.COMMANDS.values() for one in group), "topics", *topics]
    if name == "completion":
        return _SHELLS
    if name in _NETWORK:
        return known.refs() if operands else known.remotes()
    if name in _INSIDE and ":" in word:
        return _inside(known, *word.split(":", 1))
    if name == "blame" and "#" in word:
        path, _, tensor = word.partition("#")
        return (f"{path}#{one}" for one in parts(known.tensors("HEAD", f"./{path}"), tensor))
    if not operands and catalogue.module_of(name) is None and (found := known.seconds(name)):
        return found
    if name in _BRANCHES:
        return known.refs()
    revisions = known.refs() if name in (*_BOTH, *_INSIDE, "follow") else []
    missing = known.missing() if name in ("restore", "checkout", "rm") else []
    return [*revisions, *missing, *known.files(word)]


def _of_runs(known: LineWords, name: str, operands: Sequence[str]) -> Iterable[str]:
    if not operands:
        return [*known.runs(), *(("list", "show", "best", "prune", "publish") if name == "runs" else ())]
    return known.metrics(operands[0])


def _inside(known: LineWords, revision: str, place: str) -> Iterable[str]:
    """Yield what ``REV:PLACE`` may become: a path, or a path with the name of a tensor."""
    path, mark, tensor = place.partition("#")
    if mark:
        yield from (f"{revision}:{path}#{one}" for one in parts(known.tensors(revision, path), tensor))
    else:
        yield from (f"{revision}:{one}" for one in known.committed(revision, path))
