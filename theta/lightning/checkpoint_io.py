"""A plugin for Lightning that keeps checkpoints in a run, not in files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
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

    A step goes by the name of the file that Lightning asks for (``epoch=1-step=8.ckpt``), in whatever folder.
    The one that is monitored is its metric.  What Lightning removes leaves the run, unless that has a
    ``keep`` of its own; the newest step always stays.

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
        """The name of the newest checkpoint, for ``ckpt_path=``; None when the run has not begun."""
        found = self.run.steps()
        return found[-1].subject if found else None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: StrPath, _: Any = None, **__: Any) -> None:
        """Save a checkpoint as a step."""
        name, file = Path(path).name, io.BytesIO()
        torch.save(checkpoint, file)
        self._files.removed.discard(name)
        number, metrics = checkpoint.get("global_step", 0), _monitored(checkpoint)
        self.run.save(number, {_FILE: file.getvalue()}, metrics, whole=True, message=name).result()

    def load_checkpoint(
        self,
        path: StrPath,
        map_location: Callable[..., Any] | Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load the file at ``path`` if there is one, or else the newest step of that name.

        Objects that are not weights are loaded only if torch calls them safe, or ``weights_only`` is false.

        Raises:
            theta.errors.NotFoundError: there is neither.
            theta.errors.RefusedError: it holds objects that would run code.
        """
        if Path(path).exists():
            found: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
            return found
        return _loaded(Path(path).name, self._step(Path(path).name), map_location, weights_only)

    def remove_checkpoint(self, path: StrPath) -> None:
        """Let the step of that name go when the next one is saved, or at the end."""
        self._files.removed.add(Path(path).name)

    def teardown(self) -> None:
        """Let go what was removed."""
        self.run.close()
        if self.run.keep is self._files:
            self.run.prune()

    def _step(self, name: str) -> Resumed:
        named = [item for item in self.run.steps() if item.subject == name]
        if not named:
            raise NotFoundError(f"run {self.run.name} has no checkpoint {name}")
        return self.run.resumed(named[-1])


@dataclass
class _Files:
    """The steps that would be files: the newest of each name, unless it was removed."""

    removed: set[str] = field(default_factory=set)

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps."""
        newest = {item.subject: item.commit for item in found}
        return {commit for name, commit in newest.items() if name not in self.removed}


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
