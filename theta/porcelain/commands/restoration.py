"""Bringing back checkpoints and files: checkpoints by theta, other files by git."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from theta.errors import UsageError
from theta.git.options import Arguments, Option
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.drive import restoring, running
from theta.porcelain.drive.running import Driven, Said
from theta.porcelain.workspace import unsettled
from theta.porcelain.workspace.session import Session
from theta.porcelain.workspace.unsettled import OURS


@dataclass(frozen=True)
class RestoreRequest:
    """The files to restore: the arguments of git restore as git reads them."""

    line: Arguments

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        source: str | None = None,
        *,
        staged: bool = False,
        worktree: bool = True,
        side: Literal["", "ours", "theirs"] = "",
    ) -> RestoreRequest:
        """Request ``paths`` as ``source`` has them: in the index (``staged``), the ``worktree``, or both."""
        flags = {"--staged": staged, "--worktree": worktree, f"--{side}": bool(side)}
        options = [Option(name) for name, given in flags.items() if given]
        options += [Option("--source", source)] if source else []
        return cls(Arguments((), True, tuple(options), (), tuple(paths)).without(()))

    @property
    def paths(self) -> list[str]:
        """The pathspecs, from the current directory."""
        return self.line.words

    @property
    def source(self) -> str | None:
        """The revision that was named; None when none was."""
        return self.line.value("--source")

    @property
    def staged(self) -> bool:
        """Whether the index is restored."""
        return self.line.has("--staged")

    @property
    def worktree(self) -> bool:
        """Whether files are restored, as they are where nothing is said."""
        return self.line.has("--worktree") or not self.staged

    @property
    def revision(self) -> str | None:
        """The revision that files come from; None when they come from the index."""
        return self.source or ("HEAD" if self.staged else None)

    @property
    def side(self) -> int:
        """The stage of a conflict to take, 0 when none was named."""
        return OURS if self.line.has("--ours") else 3 if self.line.has("--theirs") else 0


@dataclass(frozen=True)
class RestoreResult:
    """The result of restoring.

    Attributes:
        code: the exit code of git, which restores other files.
        checkpoints: the paths of the checkpoints.
        said: what git printed, unless it had the terminal.
    """

    code: int
    checkpoints: Sequence[str]
    said: Said = field(default_factory=Said)


def restore(session: Session, request: RestoreRequest, dialogue: Dialogue = NOBODY) -> RestoreResult:
    """Bring back what ``request`` names; a file that is what it should be stays untouched."""
    if request.line.has("--ours") and request.line.has("--theirs"):
        raise UsageError("--ours and --theirs do not go together")
    git, paths = session.repo.git().in_directory(session.cwd), request.paths
    with session.change():
        names = restoring.named(git, paths, request.revision)
        wanted = restoring.select(session, names, request.source, request.revision, side=request.side)
        if request.staged:
            restoring.unstage(session, wanted)
        with dialogue.progress("restoring") as progress:
            restoring.fill(session, wanted if request.worktree else {}, progress)
        if request.side == OURS:
            for path in wanted:
                unsettled.note_choice(session, path)
        done = Driven(0)
        if not wanted or not names <= wanted.keys():
            rest = (f":(exclude,top,literal){path}" for path in wanted)
            words = ("restore", *request.line.flags, "--", *paths, *rest)
            done = running.run(git, *words, aloud=dialogue.aloud)
            running.unlock(session, done.code)
    return RestoreResult(done.code, tuple(wanted), done.said)
