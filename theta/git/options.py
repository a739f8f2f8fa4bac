"""Parsing git command lines with git's own parser.

``git CMD --help-all`` lists the options of a command, and ``git rev-parse --parseopt`` parses a command
line by such a list: attached and separate values, abbreviations, bundled letters, ``--``.
git diff and git log do not list their options, so they are listed here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from theta.git.run import Git

BEFORE_COMMAND: Final = ("-c", "-C", "--git-dir", "--work-tree", "--namespace", "--config-env")
"""Options of git itself, before the command, that may take the next word as their value (git(1))."""

_DIFF: Final = (
    "p,patch u s,no-patch U,unified? W,function-context raw patch-with-raw patch-with-stat numstat"
    " shortstat X,dirstat? cumulative dirstat-by-file? check summary name-only name-status stat?"
    " stat-width= stat-name-width= stat-graph-width= stat-count= compact-summary binary full-index"
    " color? ws-error-highlight= z abbrev? src-prefix= dst-prefix= line-prefix= no-prefix default-prefix"
    " inter-hunk-context= output-indicator-new= output-indicator-old= output-indicator-context="
    " B,break-rewrites? M,find-renames? D,irreversible-delete C,find-copies? find-copies-harder"
    " no-renames renames? rename-empty follow l= minimal w,ignore-all-space b,ignore-space-change"
    " ignore-space-at-eol ignore-cr-at-eol ignore-blank-lines I,ignore-matching-lines= indent-heuristic"
    " patience histogram diff-algorithm= anchored= word-diff? word-diff-regex= color-words? color-moved?"
    " color-moved-ws= relative? a,text R exit-code quiet ext-diff textconv ignore-submodules? submodule?"
    " ita-invisible-in-index ita-visible-in-index S= G= pickaxe-all pickaxe-regex O= rotate-to= skip-to="
    " find-object= diff-filter= output= cc c combined-all-paths m diff-merges? no-diff-merges"
    " remerge-diff t r max-depth="
)
_LOG: Final = (
    " n,max-count= skip= since= after= since-as-filter= until= before= max-age= min-age= author="
    " committer= grep= grep-reflog= all-match invert-grep i,regexp-ignore-case basic-regexp"
    " E,extended-regexp F,fixed-strings P,perl-regexp remove-empty merges no-merges min-parents="
    " max-parents= no-min-parents no-max-parents first-parent exclude-first-parent-only not all"
    " branches? tags? remotes? glob= exclude= exclude-hidden= reflog alternate-refs single-worktree"
    " ignore-missing stdin bisect cherry-mark cherry-pick left-only right-only cherry g,walk-reflogs"
    " merge boundary simplify-by-decoration show-pulls full-history dense sparse simplify-merges"
    " ancestry-path? date-order author-date-order topo-order reverse no-walk? do-walk pretty? format="
    " abbrev-commit oneline encoding= expand-tabs? notes? show-notes? standard-notes show-signature"
    " relative-date date= parents children left-right graph show-linear-break? full-diff L= decorate?"
    " decorate-refs= decorate-refs-exclude= clear-decorations source use-mailmap mailmap log-size q"
    " i-still-use-this"
)
_NOT_LISTED: Final = {
    "diff": f"{_DIFF} cached staged merge-base no-index 0 1,base 2,ours 3,theirs",
    "log": _DIFF + _LOG,
    "show": _DIFF + _LOG,
}
_EVERYDAY: Final = {
    "add": "A,all u,update f,force",
    "commit": "a,all m,message= q,quiet amend no-edit allow-empty",
    "diff": "cached staged stat? name-only name-status exit-code",
    "cherry-pick": "abort continue skip quit",
    "checkout": "f,force q,quiet",
    "log": "n,max-count= oneline stat?",
    "merge": "m,message= q,quiet no-edit no-ff ff-only squash",
    "push": "q,quiet f,force u,set-upstream n,dry-run all tags",
    "rebase": "abort continue skip quit onto=",
    "reset": "hard soft mixed q,quiet",
    "restore": "s,source= S,staged W,worktree q,quiet ours theirs",
    "revert": "abort continue skip quit no-edit",
    "status": "s,short porcelain?",
    "switch": "f,force q,quiet",
}
"""Options that every git has: a line of only these, not abbreviated, is parsed without running git."""
# "    -m, --message <message>", "    --[no-]sign[=<key>]", "    -z"; the explanation follows two spaces.
_LISTED: Final = re.compile(
    r" {4}(?:-(?P<letter>[^-\s])(?!\w)(?:, )?)?(?:--(?:\[no-\])?(?P<word>[\w-]+))?(?P<value>\[| (?=\S)|)"
)
_COUNT: Final = re.compile(r"-\d+")


@dataclass(frozen=True)
class Option:
    """An option by its long name, or its letter if it has no long name, and its value or None."""

    name: str
    value: str | None = None

    @property
    def word(self) -> str:
        """The option as one word of a command line."""
        if self.value is None:
            return self.name
        return f"{self.name}={self.value}" if self.name.startswith("--") else self.name + self.value


@dataclass(frozen=True)
class Arguments:
    """The parsed arguments of a git command.

    Attributes:
        given: the arguments as the user gave them.
        known: the line could be parsed; otherwise only ``given`` is valid: git refuses the line, or it
            has an option that git does not list.
        options: the options in their order.
        operands: the other words before ``--``.
        paths: the words after ``--``; None without ``--``.
        fault: what git says of a line that could not be parsed, in one line.
    """

    given: tuple[str, ...]
    known: bool = True
    options: tuple[Option, ...] = ()
    operands: tuple[str, ...] = ()
    paths: tuple[str, ...] | None = None
    fault: str = ""

    def has(self, name: str) -> bool:
        """Return whether option ``name`` is given and not negated by a later ``--no-NAME``."""
        found = False
        for option in self.options:
            if option.name in (name, f"--no-{name[2:]}"):
                found = option.name == name
        return found

    def value(self, name: str) -> str | None:
        """Return the last value of option ``name``, or None."""
        return next((option.value for option in reversed(self.options) if option.name == name), None)

    def colours(self) -> str:
        """Return WHEN of the last ``--color[=WHEN]`` or ``--no-color``; empty without one."""
        found = [option for option in self.options if option.name in ("--color", "--no-color")]
        if not found:
            return ""
        return "never" if found[-1].name == "--no-color" else found[-1].value or "always"

    def only(self, *names: str) -> bool:
        """Return whether all options are among ``names``."""
        return all(option.name in names for option in self.options)

    @property
    def words(self) -> list[str]:
        """The operands and the paths."""
        return [*self.operands, *(self.paths or ())]

    @property
    def flags(self) -> list[str]:
        """The options as one word each."""
        return [option.word for option in self.options]

    @property
    def spelled(self) -> list[str]:
        """The whole line, with the options first, as one word each."""
        tail = [] if self.paths is None else ["--", *self.paths]
        return [*self.flags, *self.operands, *tail]

    def without(self, names: Iterable[str]) -> Arguments:
        """Return the line without the options ``names``."""
        gone = set(names)
        kept = replace(self, options=tuple(option for option in self.options if option.name not in gone))
        return replace(kept, given=tuple(kept.spelled))


def read(git: Git, command: str, args: Sequence[str], own: Iterable[str] = ()) -> Arguments:
    """Parse the arguments of ``git COMMAND``.

    ``own`` are additional options of theta: ``--json``, or ``--rule=`` for one with a value.
    """
    given = tuple(args)
    if not any(arg.startswith("-") and arg != "-" for arg in args):
        return Arguments(given, operands=given)
    own = tuple(own)
    if not own and (everyday := _everyday(given, _EVERYDAY.get(command, "").split())) is not None:
        return everyday
    spec = [*_of_git(git, command)]
    known = {name for item in spec for name in _names(item)}
    spec += [item for item in (name[2:] for name in own) if not known & _both(item.rstrip("="))]
    text = "theta\n--\n" + "".join(f"{item} .\n" for item in spec)
    words = [
        f"--max-count={arg[1:]}" if _COUNT.fullmatch(arg) and "n,max-count=" in spec else arg for arg in args
    ]
    command_line = ("rev-parse", "--parseopt", "--keep-dashdash", "--stuck-long", "--", *words)
    done = git.run(*command_line, stdin=text.encode(), check=False)
    if done.code:
        return Arguments(given, known=False, fault=done.stderr.decode(errors="replace").partition("\n")[0])
    return _parsed(given, shlex.split(done.text)[2:])


def _everyday(given: tuple[str, ...], spec: Sequence[str]) -> Arguments | None:
    """Parse the line if all its options are in ``spec`` and not abbreviated; otherwise None."""
    names = {name: item for item in spec for name in _names(item)}
    at = given.index("--") if "--" in given else len(given)
    options, operands = [], []
    waiting = iter(given[:at])
    for word in waiting:
        if not word.startswith("-") or word == "-":
            operands.append(word)
        elif (found := _spelled_out(word, waiting, names)) is None:
            return None
        else:
            options += found
    paths = given[at + 1 :] if at < len(given) else None
    return Arguments(given, True, tuple(options), tuple(operands), paths)


def _spelled_out(word: str, waiting: Iterator[str], names: Mapping[str, str]) -> list[Option] | None:
    """Return the options in ``word``, or None; an option may take its value from ``waiting``."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        option = _everyday_option(names.get(name, "") if name[1:] else "", value if equals else None, waiting)
        return [option] if option else None
    found: list[Option] = []
    for number, letter in enumerate(word[1:], 2):
        item = names.get(letter, "")
        value = word[number:] if item.endswith("=") else ""
        option = _everyday_option(item, value or None, waiting)
        if option is None:
            return None
        found.append(option)
        if value:
            break
    return found


def _everyday_option(item: str, value: str | None, waiting: Iterator[str]) -> Option | None:
    """Return the option ``item`` with its value; None when it is unknown or the value does not fit."""
    if item.endswith("=") and value is None:
        value = next(waiting, None)
    fits = {"=": value is not None, "?": True}.get(item[-1:], value is None)
    return Option(f"--{item.rstrip('=?').rpartition(',')[2]}", value) if item and fits else None


def _parsed(given: tuple[str, ...], words: list[str]) -> Arguments:
    """Parse the output of ``--parseopt``: options, ``--``, operands, and another ``--`` before paths."""
    at = words.index("--")
    operands = words[at + 1 :]
    paths = None
    if "--" in operands:
        place = operands.index("--")
        operands, paths = operands[:place], tuple(operands[place + 1 :])
    return Arguments(given, True, tuple(map(_option, words[:at])), tuple(operands), paths)


def _option(word: str) -> Option:
    if not word.startswith("--"):
        return Option(word[:2], word[2:] or None)
    name, equals, value = word.partition("=")
    if name.startswith("--no-no-"):  # git lists the option as --no-NAME
        name = f"--{name.removeprefix('--no-no-')}"
    return Option(name, value if equals else None)


def _names(item: str) -> set[str]:
    return set(item.rstrip("=?").split(","))


def _both(name: str) -> set[str]:
    """Return ``name`` and its negation: git's parser accepts both if one is listed."""
    return {name, f"no-{name}", name.removeprefix("no-")}


def _of_git(git: Git, command: str) -> list[str]:
    """Return the options of ``git COMMAND`` in the syntax of ``--parseopt``."""
    if command in _NOT_LISTED:
        return _NOT_LISTED[command].split()
    matches = map(_LISTED.match, git.run(command, "--help-all", check=False).text.splitlines())
    found = [match for match in matches if match and (match["letter"] or match["word"])]
    return [_item(match) for match in found]


def _item(match: re.Match[str]) -> str:
    names = ",".join(name for name in (match["letter"], match["word"]) if name)
    return names + {"[": "?", " ": "="}.get(match["value"], "")
