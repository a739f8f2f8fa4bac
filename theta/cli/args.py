"""The command line of a command that hands its options on to git.

theta looks for its own options only, by their exact names; git's own parser says which words are
options and which are values of others.  The option parser gets to see nothing else: all other words
are shielded before it and restored behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta.errors import UsageError

if TYPE_CHECKING:
    from theta.git.options import Arguments

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

_MARK: Final = "\x01"
_READ_BY_THETA: Final = ("merge", "cherry-pick", "revert", "rebase")
"""Commands whose options of git theta follows too: they get them spelled out."""


@dataclass(frozen=True)
class Given:
    """The arguments of command ``name`` for git."""

    name: str
    args: Sequence[str]

    def of_git(self) -> Arguments:
        """Read the line as git's own parser does."""
        return read(self.name, self.args)


def operands(given: Given) -> list[str]:
    """Return the words of a line on which no option can be git's; behind ``--`` each one is a word.

    Raises :class:`UsageError` for an option before it.
    """
    before, behind = parted(given.args)
    if unknown := [arg for arg in before if arg.startswith("-")]:
        raise UsageError(f"no such option: {unknown[0]}", hint=f"theta {given.name} --help")
    return [*before, *behind]


def parted(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before ``--``, among which options are, and those behind it."""
    at = list(args).index("--") if "--" in args else len(args)
    return [*args[:at]], [*args[at + 1 :]]


def shield(name: str, args: Sequence[str], own: Mapping[str, bool]) -> list[str] | None:
    """Return the arguments of ``theta NAME`` with all but the options of theta marked.

    ``own`` are those: name -> whether it takes a value.  Git's part stays word for word as it was given
    if there is none of them among it.  None of a line that is git's to refuse.
    """
    if name not in _READ_BY_THETA and not any(is_own(arg, own) for arg in args):
        return [_MARK + arg for arg in args]
    if (found := _without_gits(args, own)) is not None:
        return found
    line = read(
        name, args, [option + "=" * takes for option, takes in own.items() if option.startswith("--")]
    )
    if not line.known:
        return list(_by_name(args, own)) if any(is_own(arg, own) for arg in args) else None
    if name not in _READ_BY_THETA and not any(option.name in own for option in line.options):
        return [_MARK + arg for arg in args]
    return [arg if is_own(arg, own) else _MARK + arg for arg in line.flags] + [
        _MARK + arg for arg in line.spelled[len(line.flags) :]
    ]


def _without_gits(args: Sequence[str], own: Mapping[str, bool]) -> list[str] | None:
    """Return a line on which no option can be git's, theta's options in front; None for any other line."""
    options: list[str] = []
    words: list[str] = []
    waiting = iter(args)
    for arg in waiting:
        if not arg.startswith("-"):
            words.append(_MARK + arg)
            continue
        if not is_own(arg, own):
            return None
        options.append(arg)
        if own.get(arg):
            value = next(waiting, None)
            if value is None or value.startswith("-"):
                return None
            options.append(value)
    return options + words


def is_own(arg: str, own: Mapping[str, bool]) -> bool:
    """Return whether ``arg`` is one of theta's options ``own`` (name -> whether it takes a value)."""
    name, equals, _ = arg.partition("=") if arg.startswith("--") else (arg[:2], arg[2:], "")
    return name in own and (own[name] or not equals)


def _by_name(args: Sequence[str], own: Mapping[str, bool]) -> Iterator[str]:
    """Yield the arguments as :func:`shield` does, of a line that git's parser refuses and will report."""
    waiting, rest = iter(args), False
    for arg in waiting:
        rest = rest or arg == "--"
        if rest or not is_own(arg, own):
            yield _MARK + arg
            continue
        yield arg
        if own.get(arg) and (value := next(waiting, None)) is not None:
            yield value


def plain(args: Sequence[str]) -> list[str]:
    """Return the arguments for git, of those that were marked."""
    return [arg.removeprefix(_MARK) for arg in args]


def read(name: str, args: Sequence[str], own: Sequence[str] = ()) -> Arguments:
    """Read the arguments of ``git NAME`` as git's own parser does."""
    from theta.git import options
    from theta.git.run import plain as git

    return options.read(git(Path.cwd()), name, args, own)
