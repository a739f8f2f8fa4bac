"""A plugin for Lightning that keeps checkpoints in a run, not in files."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from theta.api.training_run import Resumed, Run
from theta.errors import NotFoundError, RefusedError
from theta.porcelain.stage.run_steps import RunStep

_FILE: Final = "checkpoint.ckpt"

StrPath = str | os.PathLike[str]


class CheckpointIO(TorchCheckpointIO):
    """Saves checkpoints of a Trainer as steps of ``run``, loads and removes them; no file is written.

        io = theta.lightning.CheckpointIO(run)
        trainer = lightning.Trainer(plugins=[io])
        trainer.fit(model, ckpt_path=io.last)

    A step goes by the path of the file that Lightning asks for, or its name (``epoch=1-step=8.ckpt``) alone.
    The score that is monitored is its metric.  What Lightning removes leaves the run, unless that has a
    ``keep`` of its own; the newest step always stays, and what another callback has too.

    A checkpoint is stored when ``save_checkpoint`` returns.  Wrapped in Lightning's ``AsyncCheckpointIO`` it
    is stored behind the training.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self._files = _Files()
        if run.keep is None:
            run.keep = self._files

    @property
    def last(self) -> str | None:
        """The newest checkpoint, for ``ckpt_path=``: ``theta:RUN@STEP``; None when the run has not begun."""
        found = self.run.steps()
        return f"{self._own}{found[-1].step or 0}" if found else None

    @property
    def _own(self) -> str:
        """The beginning of names that stand for steps and never for files."""
        return f"theta:{self.run.name}@"

    def save_checkpoint(self, checkpoint: dict[str, Any], path: StrPath, _: Any = None, **__: Any) -> None:
        """Save a checkpoint as a step."""
        file = io.BytesIO()
        torch.save(checkpoint, file)
        self._files.add(os.fspath(path), checkpoint)
        number, metrics = checkpoint.get("global_step", 0), _monitored(checkpoint)
        message = f"{Path(path).name}\n\n{os.fspath(path)}"
        self.run.save(number, {_FILE: file.getvalue()}, metrics, whole=True, message=message).result()

    def load_checkpoint(
        self,
        path: StrPath,
        map_location: Callable[..., Any] | Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load the file at ``path`` if there is one, or else the newest step of that path, or of that name.

        Objects that are not weights are loaded only if torch calls them safe, or ``weights_only`` is false.

        Raises:
            theta.errors.NotFoundError: there is neither.
            theta.errors.RefusedError: it holds objects that would run code.
        """
        name = os.fspath(path)
        if not name.startswith(self._own) and Path(path).exists():
            found: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
        else:
            found = _loaded(name, self._step(name), map_location, weights_only)
        self._files.begin(found)
        return found

    def remove_checkpoint(self, path: StrPath) -> None:
        """Let the step of that path go when the next one is saved, or at the end."""
        self._files.remove(os.fspath(path))

    def teardown(self) -> None:
        """Let go what was removed."""
        self.run.close()
        if self.run.keep is self._files and self._files.saved:  # of several ranks, the first one saves
            self.run.prune()

    def _step(self, path: str) -> Resumed:
        steps, name = self.run.steps(), Path(path).name
        named = [item for item in steps if path == f"{self._own}{item.step or 0}"]
        named = named or [item for item in steps if _path(item) == path]
        named = named or [item for item in steps if item.subject == name]
        if not named:
            raise NotFoundError(f"run {self.run.name} has no checkpoint {name}")
        return self.run.resumed(named[-1])


@dataclass
class _Files:
    """The steps that would be files: the newest of each path, unless it was removed.

    Two callbacks may save to one path, since no file is there that the second would see.  What one of them
    removes stays as long as the state of another names it, or else until all that saved it have removed it.
    """

    saved: Counter[str] = field(default_factory=Counter)
    removed: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    is_told: bool = False
    """Whether ``named`` is what callbacks have in this training."""

    def begin(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over what callbacks had when the training stopped that is gone on with."""
        if not self.is_told:
            self.named = set(_texts(checkpoint.get("callbacks")))

    def add(self, path: str, checkpoint: Mapping[str, Any]) -> None:
        """Count a save."""
        self.saved[path] += 1
        self.removed.discard(path)
        if "callbacks" in checkpoint:
            self.named, self.is_told = set(_texts(checkpoint["callbacks"])), True

    def remove(self, path: str) -> None:
        """Count a removal."""
        self.saved[path] -= 1
        self.removed.add(path)

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps."""
        newest = {_path(item): item.commit for item in found}
        return {commit for path, commit in newest.items() if not self._is_gone(path)}

    def _is_gone(self, path: str) -> bool:
        is_let_go = self.is_told or self.saved[path] <= 0
        return path in self.removed and path not in self.named and is_let_go


def _path(item: RunStep) -> str:
    return item.body or item.subject


def _texts(state: Any) -> Iterator[str]:
    """Yield the texts in the state of a callback, with the keys of its mappings; some are paths."""
    if isinstance(state, str):
        yield state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from (*_texts(key), *_texts(value))


def _loaded(name: str, step: Resumed, map_location: Any, weights_only: bool | None) -> dict[str, Any]:
    safe = weights_only is not False
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(step.read(_FILE)), map_location, weights_only=safe)
    except Exception as error:  # of the kinds that an unpickler has
        if not safe:
            raise
        raise RefusedError(
            f"{name} holds objects that would run code when they are loaded",
            hint="say weights_only=False if you trust who saved it",
        ) from error
    return found


def _monitored(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that callbacks monitor, as they are at this step."""
    found = {}
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, Mapping) and state.get("monitor") and state.get("current_score") is not None:
            found[state["monitor"]] = float(state["current_score"])
    return found
