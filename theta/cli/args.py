"""Arguments that theta hands on to git unchanged.

The option parser would swallow ``--`` and take what follows apart; so both are shielded before
it sees them and restored behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

PASS: Final[dict[str, Any]] = {**HELP, "allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that also takes git's own options."""

_MARK: Final = "\x01"


def shield(args: Sequence[str]) -> list[str]:
    """Mark ``--`` and all behind it."""
    if "--" not in args:
        return list(args)
    at = list(args).index("--")
    return [*args[:at], *(_MARK + arg for arg in args[at:])]


def plain(args: Sequence[str]) -> list[str]:
    """The inverse of :func:`shield`."""
    return [arg.removeprefix(_MARK) for arg in args]


def split_paths(args: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What stands before ``--``, and what behind it (none where there is no ``--``)."""
    args = list(args)
    if "--" not in args:
        return args, None
    at = args.index("--")
    return args[:at], args[at + 1 :]
