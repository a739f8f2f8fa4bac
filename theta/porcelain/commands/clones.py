"""Cloning: git clones, theta is set up in the new repository and fills in its checkpoints."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from theta.git.options import Arguments
from theta.git.run import DEFER, Git, redirected
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.drive import cloning, running
from theta.porcelain.drive.running import Driven, Said
from theta.porcelain.setup import installing
from theta.porcelain.tensors import scanning
from theta.porcelain.workspace import agreement
from theta.porcelain.workspace.session import LAZY, Session


@dataclass(frozen=True)
class CloneRequest:
    """A clone to make: the arguments of git clone as git reads them, and the current directory.

    ``lazy``: history is fetched, but no tensors before they are asked for.
    """

    line: Arguments
    cwd: Path
    lazy: bool = False

    @classmethod
    def of(cls, url: str, place: Path, *, lazy: bool = False) -> CloneRequest:
        """Request a clone of the repository at ``url`` in ``place``."""
        words = (url, str(place.absolute()))
        return cls(Arguments(("--", *words), True, (), words), place.absolute().parent, lazy)

    @property
    def words(self) -> list[str]:
        """The arguments of git clone, with those that make a lazy clone."""
        if not self.lazy:
            return [*self.line.given]
        filtered = [] if self.line.value("--filter") else ["--filter=blob:none"]
        # git ignores a filter where it copies the files of a directory
        return ["-c", f"{LAZY}=true", "--no-local", *filtered, *self.line.given]


@dataclass(frozen=True)
class CloneResult:
    """The result of a clone.

    Attributes:
        code: the exit code of git.
        place: the worktree, or the bare repository; None when git failed, or read the line otherwise.
        hints: what was set up that the user may want to undo.
        said: what git printed, unless it had the terminal.
        notes: warnings of theta.
    """

    code: int
    place: Path | None = None
    hints: Sequence[str] = ()
    said: Said = field(default_factory=Said)
    notes: Sequence[str] = ()


def clone(request: CloneRequest, dialogue: Dialogue = NOBODY) -> CloneResult:
    """Clone, in submodules that are checked out too."""
    line, token = request.line, uuid.uuid4().hex
    if not line.known or redirected():  # git puts the worktree elsewhere, where the next command finds it
        done = running.run(Git(request.cwd), "clone", *request.words, aloud=dialogue.aloud)
        return CloneResult(done.code, said=done.said)
    done = _by_git(request, token, aloud=dialogue.aloud)
    if done.code:
        return CloneResult(done.code, said=done.said)
    place = cloning.find(token, line.given, request.cwd)
    session = Session.here(place)
    session.repo.git().run("config", "--local", "--unset", cloning.MARK)
    result = CloneResult(0, place, said=done.said)
    if not session.repo.is_bare and cloning.has_checkpoints(session.repo):
        return _set_up(session, result, dialogue)
    cloning.drop_patterns(session.repo)
    return result if session.repo.is_bare else _with_submodules(session, result, dialogue)


def _by_git(request: CloneRequest, token: str, *, aloud: bool) -> Driven:
    """Let git clone; the new repository bears ``token``."""
    with contextlib.ExitStack() as stack:
        environment = dict(DEFER)
        # --sparse has patterns of its own, which leave .theta/ out.
        if not request.line.has("--sparse"):
            environment["GIT_TEMPLATE_DIR"] = str(stack.enter_context(cloning.template()))
        words = ("clone", "-c", f"{cloning.MARK}={token}", *request.words)
        return running.run(Git(request.cwd, extra=environment), *words, aloud=aloud)


def _set_up(session: Session, result: CloneResult, dialogue: Dialogue) -> CloneResult:
    """Set up the new clone, and fill in what git checked out."""
    with session.change():
        installing.ensure(session.repo)
        result = replace(result, hints=tuple(installing.ensure_durable(session.repo)))
        if session.repo.head() is None or not session.repo.index_path.exists():
            return result
        with dialogue.progress("writing checkpoints") as progress:
            notes = agreement.settle(session, progress)
        notes += scanning.warnings(session.repo.worktree, session.index)
    return _with_submodules(session, replace(result, notes=tuple(notes)), dialogue)


def _with_submodules(session: Session, result: CloneResult, dialogue: Dialogue) -> CloneResult:
    notes = running.fill_submodules(session, dialogue.progress)
    return replace(result, notes=(*result.notes, *notes))
