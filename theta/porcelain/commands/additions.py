"""Staging files: checkpoints by theta, other files by git."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from theta.engine.executors import Engine
from theta.errors import NotFoundError, UsageError
from theta.git.options import Arguments, Option
from theta.git.run import Git
from theta.lazy import Module
from theta.parallel import submit
from theta.porcelain.commands.dialogue import NOBODY, Dialogue
from theta.porcelain.drive import running
from theta.porcelain.drive.running import Driven, Said
from theta.porcelain.setup.claims import Claim
from theta.porcelain.stage import adding
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace import coverage
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.porcelain.stage import named_models, updates, updating
else:
    named_models = Module("theta.porcelain.stage.named_models")
    updates = Module("theta.porcelain.stage.updates")
    updating = Module("theta.porcelain.stage.updating")


@dataclass(frozen=True)
class AddRequest:
    """The files to stage: the arguments of git add as git reads them, and what stores large ones."""

    line: Arguments
    executor: Executor | None = None

    @classmethod
    def of(
        cls, paths: Sequence[str] = (), *, everything: bool = False, update: bool = False, force: bool = False
    ) -> AddRequest:
        """Request ``paths``; ``everything``, or with ``update`` all that git knows already."""
        flags = {"--all": everything, "--update": update, "--force": force}
        options = tuple(Option(name) for name, given in flags.items() if given)
        return cls(Arguments((), True, options, (), tuple(paths)).without(()))

    @property
    def update(self) -> bool:
        """Whether only files are staged that git knows already."""
        return self.line.has("--update")

    @property
    def pathspecs(self) -> list[str]:
        """The given pathspecs, or the whole worktree; empty if the request names nothing."""
        everything = self.update or self.line.has("--all")
        return self.line.words or ([":(top)"] if everything else [])


@dataclass(frozen=True)
class UpdateRequest:
    """An update of one checkpoint: what it is added to, and where it comes from.

    Attributes:
        path: the checkpoint, from the directory of the session; of a sharded model its index, its name as
            one file, or its folder.
        data: a file, or the directory of a PEFT adapter; several are added up.
        kind: one of ``updates.KINDS``; empty when the data are to tell.
        weights: how much each of ``data`` counts; by default 1.
    """

    path: str
    data: Path | Sequence[Path]
    kind: str = ""
    weights: Sequence[float] = ()

    @property
    def weighted(self) -> list[tuple[Path, float]]:
        """The data with their weights; raises :class:`UsageError` when their numbers differ."""
        places = [self.data] if isinstance(self.data, Path) else list(self.data)
        weights = list(self.weights) or [1.0] * len(places)
        if len(weights) != len(places):
            raise UsageError(f"{len(weights)} weights for {len(places)} updates", hint="give one for each")
        if not all(map(math.isfinite, weights)):
            raise UsageError("a weight is a finite number")
        return list(zip(places, weights, strict=True))


@dataclass(frozen=True)
class AddResult:
    """The result of staging.

    Attributes:
        code: the exit code of git, which stages other files.
        added: the checkpoints.
        left_out: new files of tracked patterns that ``--update`` leaves out.
        uncovered: new files that look like checkpoints and that no pattern covers.
        to_lfs: such files that a line of attributes gives to Git LFS, with that line.
        said: what git printed, unless it had the terminal.
    """

    code: int
    added: Sequence[Added] = ()
    left_out: Sequence[str] = ()
    uncovered: Sequence[str] = ()
    to_lfs: Mapping[str, Claim] = field(default_factory=dict)
    said: Said = field(default_factory=Said)


def add(session: Session, request: AddRequest, dialogue: Dialogue = NOBODY) -> AddResult:
    """Stage what ``request`` names."""
    if not request.pathspecs:
        return AddResult(0)
    git, update = session.repo.git().in_directory(session.cwd), request.update
    adding.check_pathspecs(git, request.line.words)
    if request.executor is not None:
        session.use(Engine.of(request.executor))
    with session.change():
        force = request.line.has("--force")
        with adding.reading_ahead(session, request.line.words), dialogue.progress("adding") as progress:
            selection = adding.select(session, git, request.pathspecs, update=update, force=force)
            rest = [*request.pathspecs, *(f":(exclude,top,literal){path}" for path in selection.present)]
            with ThreadPoolExecutor(1) as beside:  # git looks for new files while tensors are stored
                unknown = submit(beside, _new_files, git, rest, force) if not update else None
                added = adding.add(session, selection, progress, damaged=force)
        new = unknown.result() if unknown is not None else []
        done = Driven(0)
        if new or _has_more(git, rest) or not (selection.present or selection.gone):
            done = running.run(git, "add", *request.line.flags, "--", *rest, aloud=dialogue.aloud)
            running.unlock(session, done.code)
    left_out = coverage.newcomers(session, session.repo.git(), [":(top)"]) if update else []
    uncovered = coverage.uncovered(session, new)
    to_lfs = coverage.to_lfs(session, new)
    return AddResult(done.code, tuple(added), tuple(left_out), tuple(uncovered), to_lfs, done.said)


def update(session: Session, request: UpdateRequest, dialogue: Dialogue = NOBODY) -> AddResult:
    """Apply an update to a checkpoint: its file becomes the updated model, and the factors are stored."""
    if request.kind and request.kind not in updates.KINDS:
        kinds = ", ".join(updates.KINDS)
        raise UsageError(f"there is no update type {request.kind!r}", hint=f"one of {kinds}")
    for place, _ in request.weighted:
        if not place.exists():
            raise NotFoundError(f"there is no {place}")
    paths = named_models.files_of(session, session.from_root(request.path))
    with session.change(), dialogue.progress("updating") as progress:
        added = updating.update_model(session, paths, request.kind or None, request.weighted, progress)
    return AddResult(0, tuple(added))


def _new_files(git: Git, pathspecs: list[str], force: bool) -> list[str]:
    """Return the untracked files among ``pathspecs``."""
    standard = [] if force else ["--exclude-standard"]
    return git.lines("ls-files", "-z", "--full-name", "-o", *standard, "--", *pathspecs)


def _has_more(git: Git, pathspecs: list[str]) -> bool:
    """Return whether known files among ``pathspecs`` changed, are gone or are in conflict.

    ``git ls-files -m`` compares a file before it asks whether the file is wanted: a checkpoint of now,
    which was just staged, through the filter.
    """
    return bool(git.lines("diff-files", "-z", "--name-only", "--ignore-submodules=dirty", "--", *pathspecs))
