"""The part of ``theta merge``'s line for git: revisions, flags, and the source of the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from theta.errors import UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.porcelain.commands import decision
    from theta.porcelain.commands import merge_request as requests
    from theta.porcelain.commands.merge_request import GitOptions, TensorOptions
else:
    decision = Module("theta.porcelain.commands.decision")
    requests = Module("theta.porcelain.commands.merge_request")

GO_ON: Final = "theta merge --continue"


def read(line: Arguments) -> tuple[GitOptions, list[str]]:
    """Return git's options of ``line``, and the revisions."""
    values: dict[str, str] = {}
    for name, value in ((option.name, option.value) for option in line.options):
        if value is not None:
            paragraphs = f"{values[name]}\n\n" if name == "--message" and name in values else ""
            values[name] = paragraphs + value
    return requests.GitOptions(line.flags, values), line.words


def check(names: Sequence[str], tensors: TensorOptions, commands: Mapping[str, bool]) -> None:
    """Refuse what cannot be done together; ``commands`` are the options that stand for a command."""
    chosen = [name for name, given in commands.items() if given]
    if len(chosen) > 1:
        raise UsageError("only one of --continue, --abort, --quit, --dry-run and --replay")
    if not chosen or chosen == ["--dry-run"]:
        return
    if names:
        raise UsageError(f"{chosen[0]} takes no revision beside it, such as {names[0]}")
    if chosen[0] != "--continue":
        decision.refuse(tensors.first(), f"{chosen[0]} decides nothing")
