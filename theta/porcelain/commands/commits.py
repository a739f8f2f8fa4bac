"""Making a commit: staging the files that are asked for, committing by git, and the summary."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from theta.git import in_progress
from theta.git.options import Arguments, Option
from theta.git.run import DEFER, DEFER_FILES, Git
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Said
from theta.porcelain.look import version_changes
from theta.porcelain.look.version_changes import Summary
from theta.porcelain.merge import recording
from theta.porcelain.setup import installing
from theta.porcelain.setup.claims import Claim
from theta.porcelain.stage import adding
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace import agreement, coverage
from theta.porcelain.workspace.session import Session

_NO_NOTICE: Final = ("-c", "core.sparseCheckout=false")
"""The setting with which git does not tell the share of files that is checked out."""
_NO_HOOKS: Final = ("-c", f"core.hooksPath={os.devnull}")
"""The setting with which git does not start theta's hooks, where they would do nothing."""
_WRITTEN: Final = ("--message", "--file", "--reuse-message", "--fixup")
"""Options that say the message."""


@dataclass(frozen=True)
class CommitRequest:
    """A commit that is asked for: the arguments of git commit as git reads them."""

    line: Arguments

    @classmethod
    def saying(
        cls,
        message: str,
        paths: Sequence[str] = (),
        *,
        everything: bool = False,
        amend: bool = False,
        allow_empty: bool = False,
    ) -> CommitRequest:
        """Request a commit with ``message`` of ``paths``, of ``everything`` changed, or of what is staged."""
        flags = {"--all": everything, "--amend": amend, "--allow-empty": allow_empty}
        options = (*(Option(name) for name, given in flags.items() if given), Option("--message", message))
        line = Arguments((), True, options, (), tuple(paths) or None)
        return cls(line.without(()))

    @property
    def everything(self) -> bool:
        """Whether all that changed is to be staged, new files of tracked patterns too."""
        return self.line.has("--all")


@dataclass(frozen=True)
class CommitResult:
    """The result of a commit.

    Attributes:
        code: the exit code of git.
        added: the checkpoints that were staged for it.
        summary: what the new commit holds; None when none was made.
        left_out: new files of tracked patterns that are not in the commit.
        uncovered: files of the commit that look like checkpoints and that no pattern covers.
        to_lfs: such files that a line of attributes gives to Git LFS, with that line.
        said: what git printed, unless it had the terminal.
        full: git failed, and no space is left on the disk of the repository.
        notes: warnings of theta.
    """

    code: int
    added: Sequence[Added] = ()
    summary: Summary | None = None
    left_out: Sequence[str] = ()
    uncovered: Sequence[str] = ()
    to_lfs: Mapping[str, Claim] = field(default_factory=dict)
    said: Said = field(default_factory=Said)
    full: bool = False
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the new commit as plain data, with its branch; empty when none was made."""
        return {"branch": self.summary.branch, **self.summary.as_json()} if self.summary else {}


def commit(session: Session, request: CommitRequest, dialogue: Dialogue = NOBODY) -> CommitResult:
    """Stage what ``request`` asks for and let git make the commit."""
    before = session.repo.head()
    with session.change():
        with dialogue.progress("adding") as progress:
            paths, everything = request.line.words, request.everything
            added = adding.prepare_commit(session, paths, everything=everything, progress=progress)
        session.repo.identity()  # before an editor opens
        words = (*_settings(session, request), "commit", "--quiet", *request.line.given)
        agreement.watch(session)
        done = running.run(_git(session, request), *words, aloud=dialogue.aloud)
        running.unlock(session, done.code)
        result = CommitResult(
            done.code, tuple(added), said=done.said, full=running.is_full(session, done.code)
        )
        return result if result.full else _concluded(session, result, before, request)


def _concluded(
    session: Session, result: CommitResult, before: str | None, request: CommitRequest
) -> CommitResult:
    """Add the content of the new commit to ``result``, once all is in agreement with it."""
    notes = tuple(agreement.settle(session.again()))
    summary = version_changes.of_new(session, before)
    result = replace(result, summary=summary, notes=notes)
    if result.code or summary is None:
        return result
    # After 'commit -a' nothing is left: it takes new files too.
    left_out = [] if request.everything else coverage.newcomers(session, session.repo.git(), [":(top)"])
    uncovered = coverage.uncovered(session, summary.new_files)
    to_lfs = coverage.to_lfs(session, summary.new_files)
    return replace(result, left_out=tuple(left_out), uncovered=tuple(uncovered), to_lfs=to_lfs)


def _git(session: Session, request: CommitRequest) -> Git:
    """Return the git that commits, with hooks only where these alone see what is needed.

    The index of ``git commit PATH`` is a temporary one, which git names to its hooks alone.  The
    message of a merge may come from anywhere, and only a hook sees it.
    """
    extra = DEFER_FILES if _needs_hooks(session, request) else DEFER
    return session.repo.git(extra=extra).in_directory(session.cwd)


def _needs_hooks(session: Session, request: CommitRequest) -> bool:
    return bool(request.line.words) or recording.is_open(session)


def _settings(session: Session, request: CommitRequest) -> tuple[str, ...]:
    """Return the settings that silence the notice of sparse checkouts, and hooks that would do nothing.

    No other program may see them: a hook of the user, or an editor.
    """
    if installing.has_other_hooks(session.repo):
        return ()
    if _is_written(request.line):
        return _NO_NOTICE if _needs_hooks(session, request) else (*_NO_NOTICE, *_NO_HOOKS)
    return _NO_NOTICE if _commits_nothing(session, request.line) else ()


def _is_written(line: Arguments) -> bool:
    """Return whether the message is given, so that git opens no editor."""
    return any(line.value(name) for name in _WRITTEN) and not line.has("--edit")


def _commits_nothing(session: Session, line: Arguments) -> bool:
    """Return whether git will say that there is nothing to commit, before it opens an editor."""
    if line.words or line.has("--amend") or line.has("--allow-empty"):
        return False
    if in_progress.current(session.repo).name == "merge" or session.repo.head() is None:
        return False
    return session.repo.git().run("diff-index", "--cached", "--quiet", "HEAD", check=False).code == 0
