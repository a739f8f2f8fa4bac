"""What ``theta merge`` is told for git: revisions, flags, and where the message comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from theta.errors import UsageError

if TYPE_CHECKING:
    from theta.porcelain.commands.merge_request import GitOptions, TensorOptions

GO_ON: Final = "theta merge --continue"
_TAKES_VALUE: Final = {"-m", "--message", "-F", "--file", "-s", "--strategy", "--into-name", "--cleanup"}


def read(args: Sequence[str]) -> tuple[GitOptions, list[str]]:
    """Take ``args`` apart: git's options, and the revisions."""
    from theta.porcelain.commands.merge_request import GitOptions

    options: list[str] = []
    names: list[str] = []
    values: dict[str, str] = {}
    waiting = iter(args)
    for arg in waiting:
        if not arg.startswith("-"):
            names.append(arg)
            continue
        options.append(arg)
        if arg in _TAKES_VALUE:
            values[arg] = next(waiting, "")
            options.append(values[arg])
        elif arg.startswith("--") and "=" in arg:
            key, _, value = arg.partition("=")
            before = f"{values[key]}\n\n" if key == "--message" and key in values else ""
            values[key] = before + value
        elif arg[:2] in ("-m", "-F", "-s") and len(arg) > 2:
            values[arg[:2]] = arg[2:]
    return GitOptions(options, values), names


def check(names: Sequence[str], tensors: TensorOptions, commands: Mapping[str, bool]) -> None:
    """Refuse what cannot be done together; ``commands`` are the options that stand for a command."""
    from theta.porcelain.commands import decision

    chosen = [name for name, given in commands.items() if given]
    if len(chosen) > 1:
        raise UsageError("only one of --continue, --abort, --quit, --dry-run and --replay")
    if not chosen or chosen == ["--dry-run"]:
        return
    if names:
        raise UsageError(f"{chosen[0]} takes no revision beside it, such as {names[0]}")
    if chosen[0] != "--continue":
        decision.refuse(tensors.first(), f"{chosen[0]} decides nothing")
