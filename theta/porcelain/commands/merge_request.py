"""The request and the result of a merge: all that a command line or a program needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from theta.errors import NotFoundError
from theta.git.options import Arguments
from theta.merging.engine import RehearsedTensor
from theta.merging.recipe_files import RecipeFile
from theta.merging.recipes import Recipe
from theta.merging.states import Conflict
from theta.porcelain.drive.running import Said
from theta.porcelain.look.version_changes import Summary
from theta.porcelain.merge.joining import Merged
from theta.porcelain.workspace.session import Session

_OF_FILES_TOO: Final = ("ours", "theirs")
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
_PLAIN: Final = {"-q", "--quiet", "--no-ff", "--no-edit", "--no-commit", "-n", "--no-stat"}


@dataclass(frozen=True)
class TensorOptions:
    """How tensors in conflict are settled; what is None or empty is left to git's configuration.

    Attributes:
        strategies: at most one strategy such as ``ties:density=0.2``, and git's own ``-X`` options.
        rules: ``GLOB=STRATEGY`` for matching tensor names; the first match counts.
        recipe: a recipe file; it names the revisions that a merge joins.
        scope: ``conflicts`` or ``all``.
        seed: the random seed.
        allow_nan: results may have NaN or infinity that no input had.
        statistics: ``REV:PATH`` of the statistics of each side, ours first.
        dtype: the dtype of all floats of the checkpoints that are merged.
        align: ``weights`` or ``transport``: how theirs is reordered before it is merged.
        align_spec: what is known about the units of the model, in JSON or TOML.
        searched: the search that found the strategy, for readers of the commit.
    """

    strategies: Sequence[str] = ()
    rules: Sequence[str] = ()
    recipe: RecipeFile | None = None
    scope: str | None = None
    seed: str | None = None
    allow_nan: bool = False
    statistics: Sequence[str] = ()
    dtype: str | None = None
    align: str | None = None
    align_spec: str = ""
    searched: str = ""

    def first(self) -> str:
        """Return the first option that was given; "" when there is none."""
        given: dict[str, object] = {
            **{f"-X {option}": True for option in self.strategies if not is_gits(option)},
            **{f"--rule {rule}": True for rule in self.rules},
            "--recipe": self.recipe,
            "--scope": self.scope,
            "--seed": self.seed,
            "--allow-nan": self.allow_nan,
            "--statistics": self.statistics,
            "--dtype": self.dtype,
            "--align": self.align,
            "--align-spec": self.align_spec,
        }
        return next((name for name, value in given.items() if value), "")

    def only_ours(self) -> str:
        """Return the first option that is not git's too, as -X ours and -X theirs are."""
        return replace(self, strategies=[*filter(is_of_tensors, self.strategies)]).first()


def is_of_tensors(option: str) -> bool:
    """Return whether ``-X OPTION`` means nothing to git: ``ours`` and ``theirs`` do, for files."""
    return option not in _OF_FILES_TOO and not is_gits(option)


def is_gits(option: str) -> bool:
    """Return whether ``-X OPTION`` is one of git's own merge strategy that says nothing about tensors."""
    names = ("ignore", "renormalize", "no-renormalize", "find-renames", "no-renames", "subtree", "patience")
    return option.startswith((*names, "diff-algorithm", "rename-threshold", "histogram"))


@dataclass(frozen=True)
class GitOptions:
    """The options of ``git merge``: one word each in ``args``, and the ``values`` of those that take one.

    They go by the names that git lists first, ``--message`` and not ``-m``.
    """

    args: Sequence[str] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: Arguments) -> GitOptions:
        """Return the options of a line of ``git merge``; several messages become paragraphs of one."""
        values: dict[str, str] = {}
        for name, value in ((option.name, option.value) for option in line.options):
            if value is not None:
                paragraphs = f"{values[name]}\n\n" if name == "--message" and name in values else ""
                values[name] = paragraphs + value
        return cls(line.flags, values)

    def has(self, *flags: str) -> bool:
        """Return whether one of ``flags`` was given."""
        return any(flag in self.args for flag in flags)

    @property
    def is_plain(self) -> bool:
        """Whether there is at most a message, and what is the default here anyway."""
        return all(arg in _PLAIN or arg.startswith("--message=") for arg in self.args)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to be told about what a fast-forward brings."""
        return self.has("-q", "--quiet", "-n", "--stat", "--no-stat", "--summary", "--no-summary")

    @property
    def to_commit(self) -> list[str]:
        """The options for the git that commits the merge."""
        edit = ["--edit"] if self.has("-e", "--edit") else ["--no-edit"]
        return [*edit, *(arg for arg in self.args if arg.startswith(_TO_COMMIT))]

    def message(self, session: Session) -> str | None:
        """Return the message that was given, or the text of the file that was; None when there is neither."""
        text, place = self.values.get("--message"), self.values.get("--file")
        if text is not None or place is None:
            return text
        try:
            return (session.cwd / place).read_text()
        except OSError as error:
            raise NotFoundError(f"cannot read the message {place}: {error.strerror}") from error


@dataclass(frozen=True)
class MergeRequest:
    """The branches to merge into HEAD, and how.

    Attributes:
        revisions: what to merge; none means the models of the recipe, or the upstream branch.
        tensors: how tensors in conflict are settled.
        git: further options of git merge.
        base: the revision to compare with in place of the merge base.
        message: the message of the commit; None leaves it to ``git``, or to git.
        no_commit: stop before the commit.
        squash: leave one change in index and worktree, of a commit that will have one parent.
        dry_run: only tell what would become of each tensor.
    """

    revisions: Sequence[str] = ()
    tensors: TensorOptions = field(default_factory=TensorOptions)
    git: GitOptions = field(default_factory=GitOptions)
    base: str | None = None
    message: str | None = None
    no_commit: bool = False
    squash: bool = False
    dry_run: bool = False

    @property
    def for_git(self) -> GitOptions:
        """All options for git."""
        args, values = [*self.git.args], {**self.git.values}
        if self.message is not None:
            args.append(f"--message={self.message}")
            values["--message"] = self.message
        args += ["--squash"] if self.squash and "--squash" not in args else []
        return GitOptions(args, values)


@dataclass(frozen=True)
class SettledFile:
    """A checkpoint that was settled.

    Attributes:
        path: where it is.
        tensors: how many it has; None when it was removed.
        decided: tensor -> the strategy that settled it, of those that no rule of git settles.
    """

    path: str
    tensors: int | None
    decided: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settlement:
    """The checkpoints that were settled, and those that were not.

    Attributes:
        settled: the checkpoints that were settled.
        conflicts: path -> the tensors in conflict, of checkpoints that were not.
        unmerged: all paths in conflict, those of other files too.
        asked: the recipe that was followed.
        go_on: the command that concludes the unfinished operation; empty if there is none.
        idle: nothing was in conflict.
        stash: no operation is unfinished, and git keeps a stash, which may have conflicted.
    """

    settled: Sequence[SettledFile] = ()
    conflicts: Mapping[str, Sequence[Conflict]] = field(default_factory=dict)
    unmerged: Sequence[str] = ()
    asked: Recipe = field(default_factory=Recipe)
    go_on: str = ""
    idle: bool = False
    stash: bool = False

    @classmethod
    def of(cls, merged: Merged, asked: Recipe, unmerged: Iterable[str] = (), go_on: str = "") -> Settlement:
        """Return the settlement of ``merged``, with the decisions of ``asked``."""
        settled = [
            SettledFile(path, len(manifest.lines), dict(merged.decided.get(path, {})))
            for path, manifest in merged.resolved.items()
        ]
        settled += [SettledFile(path, None) for path in merged.removed]
        conflicts = {path: tuple(found) for path, found in merged.conflicts.items()}
        return cls(tuple(settled), conflicts, tuple(unmerged), asked, go_on)


class Ending(Enum):
    """How a merge ended."""

    UP_TO_DATE = "up to date"
    FORWARDED = "fast-forwarded"
    MERGED = "merged"
    """A commit has the result."""
    PREPARED = "prepared"
    """Index and worktree have the result, and no commit has it."""
    CONFLICTS = "conflicts"
    """Something is in conflict in the index."""
    OPEN = "open"
    """Several branches cannot be joined without a decision; nothing was changed."""
    REFUSED = "refused"
    """The merge was not begun; nothing was changed."""
    REHEARSED = "rehearsed"
    ABORTED = "aborted"


@dataclass(frozen=True)
class MergeResult:
    """The result of a merge.

    Attributes:
        ending: how it ended.
        code: the exit code of the command line.
        before: HEAD before it; None on an unborn branch.
        commit: HEAD after it.
        settlement: how each checkpoint was settled, and what is in conflict.
        summary: what the new commit holds; None when there is none.
        said: what git said of it, where git did not have the terminal.
        notes: warnings.
        left: what is left of an earlier merge that was not concluded; the merge was refused for it.
        staged: files that are staged and in the way; the merge was refused for them.
        full: no space is left on the disk of the repository.
        base: the commit that was compared with; of a rehearsal.
        rows: path -> what would become of each tensor; of a rehearsal.
        texts: the files of text, such as a configuration, that it would write; of a rehearsal.
        forward: the commit that HEAD would be fast-forwarded to; of a rehearsal.
    """

    ending: Ending
    code: int = 0
    before: str | None = None
    commit: str | None = None
    settlement: Settlement = field(default_factory=Settlement)
    summary: Summary | None = None
    said: Said = field(default_factory=Said)
    notes: Sequence[str] = ()
    left: str = ""
    staged: Sequence[str] = ()
    full: bool = False
    base: str | None = None
    rows: Mapping[str, Sequence[RehearsedTensor]] = field(default_factory=dict)
    texts: Sequence[str] = ()
    forward: str = ""

    @property
    def is_up_to_date(self) -> bool:
        """Whether HEAD had all of what was to be merged."""
        return self.ending is Ending.UP_TO_DATE
