"""What ``theta merge`` is told for git: revisions, flags, and where the message comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from theta.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from theta.porcelain.session import Session

_TAKES_VALUE: Final = {"-m", "--message", "-F", "--file", "-s", "--strategy", "--into-name", "--cleanup"}
_TO_COMMIT: Final = (
    "-S",
    "--gpg-sign",
    "--no-gpg-sign",
    "--no-verify",
    "--cleanup=",
    "--signoff",
    "--no-signoff",
)
_PLAIN: Final = {"-q", "--quiet", "--no-ff", "--no-edit", "--no-commit", "-n", "--no-stat", "--message"}
_OF_GIT: Final = ("ort", "recursive", "resolve", "octopus")


@dataclass(frozen=True)
class MergeArgs:
    """git's part of the command line, taken apart: ``args`` is all of it but the revisions."""

    args: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def has(self, *flags: str) -> bool:
        """Whether one of ``flags`` was given."""
        return any(flag in self.args for flag in flags)

    @property
    def foreign(self) -> bool:
        """Whether a strategy of git was asked for that does not merge contents (``-s ours``)."""
        return self.values.get("-s", self.values.get("--strategy", "ort")) not in _OF_GIT

    @property
    def is_plain(self) -> bool:
        """Whether there is at most a message, and what is the default here anyway."""
        flags = [arg for arg in self.args if arg not in self.values.values()]
        return all(arg in _PLAIN or arg.startswith(("-m", "--message=")) for arg in flags)

    @property
    def to_commit(self) -> list[str]:
        """The options that git commit is to have."""
        edit = [] if self.has("-e", "--edit") else ["--no-edit"]
        return [*edit, *(arg for arg in self.args if arg.startswith(_TO_COMMIT))]

    def message(self) -> str | None:
        """The message that was given, or none."""
        text = self.values.get("-m", self.values.get("--message"))
        place = self.values.get("-F", self.values.get("--file"))
        if text is not None or place is None:
            return text
        from pathlib import Path

        try:
            return Path(place).read_text()
        except OSError as error:
            raise NotFoundError(f"cannot read the message {place}: {error.strerror}") from error


def read(args: Sequence[str]) -> MergeArgs:
    """Take ``args`` apart."""
    found = MergeArgs()
    waiting = iter(args)
    for arg in waiting:
        if not arg.startswith("-"):
            found.names.append(arg)
            continue
        found.args.append(arg)
        if arg in _TAKES_VALUE:
            found.values[arg] = next(waiting, "")
            found.args.append(found.values[arg])
        elif arg.startswith("--") and "=" in arg:
            key, _, value = arg.partition("=")
            found.values[key] = value
        elif arg[:2] in ("-m", "-F", "-s") and len(arg) > 2:
            found.values[arg[:2]] = arg[2:]
    return found


def commits(session: Session, names: Sequence[str]) -> list[str]:
    """The commits that ``names`` mean; the upstream branch where there are none."""
    if names:
        return [_commit(session, name) for name in names]
    upstream = session.repo.git().run("rev-parse", "-q", "--verify", "@{upstream}", check=False).text.strip()
    if not upstream:
        raise UsageError("nothing to merge: no revision and no upstream branch", hint="theta merge BRANCH")
    return [upstream]


def _commit(session: Session, name: str) -> str:
    session.repo.resolve(name)
    return session.repo.resolve(f"{name}^{{commit}}")
