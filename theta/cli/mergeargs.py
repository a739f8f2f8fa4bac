"""What ``theta merge`` is told for git: revisions, flags, and where the message comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from theta.errors import NotFoundError, UsageError, did_you_mean

if TYPE_CHECKING:
    from theta.cli.deciding import Options
    from theta.porcelain.workspace.session import Session

_TAKES_VALUE: Final = {"-m", "--message", "-F", "--file", "-s", "--strategy", "--into-name", "--cleanup"}
_TO_COMMIT: Final = (
    "-S",
    "--gpg-sign",
    "--no-gpg-sign",
    "--no-verify",
    "--verify",
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
    def is_plain(self) -> bool:
        """Whether there is at most a message, and what is the default here anyway."""
        flags = [arg for arg in self.args if arg not in self.values.values()]
        return all(arg in _PLAIN or arg.startswith(("-m", "--message=")) for arg in flags)

    @property
    def to_commit(self) -> list[str]:
        """The options for the git that commits the merge."""
        edit = ["--edit"] if self.has("-e", "--edit") else ["--no-edit"]
        cleanup = [f"--cleanup={self.values['--cleanup']}"] if "--cleanup" in self.args else []
        return [*edit, *cleanup, *(arg for arg in self.args if arg.startswith(_TO_COMMIT))]

    def message(self) -> str | None:
        """The message that was given; None when there is none."""
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
            before = f"{found.values[key]}\n\n" if key == "--message" and key in found.values else ""
            found.values[key] = before + value
        elif arg[:2] in ("-m", "-F", "-s") and len(arg) > 2:
            found.values[arg[:2]] = arg[2:]
    return found


def check(args: MergeArgs, options: Options, commands: Mapping[str, bool]) -> None:
    """Refuse what cannot be done together; ``commands`` are the options that stand for a command."""
    chosen = [name for name, given in commands.items() if given]
    chosen += ["--quit"] if args.has("--quit") else []
    if len(chosen) + options.dry_run > 1:
        raise UsageError("only one of --continue, --abort, --quit, --dry-run and --replay")
    if not chosen:
        return
    if args.names:
        raise UsageError(f"{chosen[0]} takes no revision beside it, such as {args.names[0]}")
    if chosen[0] != "--continue":
        refuse_ours(options, f"{chosen[0]} decides nothing")


def refuse_ours(options: Options, why: str) -> None:
    """Refuse ``options`` that say how tensors are merged, where they would have no effect."""
    if given := options.first():
        raise UsageError(f"{given} would have no effect: {why}", hint=f"leave out {given}")


def refuse_parts(options: Options, parts: Sequence[str], *, everything: bool) -> None:
    """Refuse ``options`` that cannot be carried out since HEAD, or another branch, has all of ``parts``.

    ``everything``: nothing else is merged.  A recipe and statistics name their models one by one; the
    other options hold for whatever there is to merge.
    """
    one_by_one = options.recipe or ("--statistics" if options.statistics else "")
    asked = one_by_one or (options.only_ours() if everything else "")
    if parts and asked:
        raise UsageError(
            f"{asked} cannot be carried out: a merge joins branches, and all of {' and '.join(parts)} is "
            "part of HEAD already, or of another branch of this merge",
            hint="'theta branch NAME COMMIT' starts a branch at the older commit; commit there what to merge",
        )


def foreign(session: Session, args: MergeArgs, count: int) -> str:
    """The strategy of git, asked for or configured, that does not merge contents (``-s ours``), if any."""
    given = args.values.get("-s", args.values.get("--strategy"))
    key = "pull.octopus" if count > 1 else "pull.twohead"
    config = session.repo.config
    if given is None and key in config:
        given = config.get(key) or ""
        if count > 1 and given != "octopus":
            return given
    return "" if given is None or given in _OF_GIT else given


def check_statistics(options: Options, sides: int) -> None:
    """Refuse ``--statistics`` that are not one for each side."""
    if options.statistics and len(options.statistics) != sides:
        raise UsageError(
            f"--statistics is given {len(options.statistics)} times and the merge has {sides} sides",
            hint="one for each side, ours first",
        )


def check_rules(session: Session, options: Options, revisions: Sequence[str]) -> None:
    """Refuse a ``--rule`` whose pattern is the name of no tensor in any of ``revisions``."""
    if not options.rules:
        return
    found = (session.manifest_or_none(oid) for one in revisions for oid in session.in_tree(one).values())
    check_names(options, (line.name for manifest in found if manifest for line in manifest.lines))


def check_names(options: Options, tensors: Iterable[str]) -> None:
    """Refuse a ``--rule`` whose pattern matches none of ``tensors``."""
    from theta.merging import recipes
    from theta.merging.result_file import CONTAINER
    from theta.porcelain.merge.joining import FILE

    names = {*tensors}
    for rule in map(recipes.rule, options.rules):
        if names and not any(rule.matches(name) for name in (*names, CONTAINER, FILE)):
            raise UsageError(
                f"--rule '{rule}' matches no tensor",
                hint=did_you_mean(rule.glob, names) or "'theta show HEAD:PATH' lists the names",
            )


def commits(session: Session, names: Sequence[str]) -> list[str]:
    """The commits that ``names`` mean."""
    return [_commit(session, name) for name in names]


def upstream(session: Session) -> str:
    """The name of the upstream branch; raises :class:`UsageError` when there is none."""
    done = session.repo.git().run("rev-parse", "-q", "--abbrev-ref", "@{upstream}", check=False)
    if done.code or not done.text.strip():
        raise UsageError("nothing to merge: no revision and no upstream branch", hint="theta merge BRANCH")
    return done.text.strip()


def _commit(session: Session, name: str) -> str:
    session.repo.resolve(name)
    return session.repo.resolve(f"{name}^{{commit}}")
