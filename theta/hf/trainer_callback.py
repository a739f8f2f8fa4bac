"""A callback of transformers' Trainer, which puts its checkpoints into a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback

from theta.api import policies
from theta.api.training_run import Run
from theta.hf.accelerate_state import agreed
from theta.porcelain.stage.run_steps import RunStep

_FOLDER: Final = "checkpoint-{}"
_NO_METRICS: Final = ("step", "total_flos")


class Callback(TrainerCallback):
    """Saves each checkpoint that a Trainer writes as a step of ``run``: the whole folder, as it is.

    That is model, optimizer, scheduler, random states, ``trainer_state.json``.  The files are stored behind
    the training, and pushed if the run has a remote; the Trainer may remove the folder meanwhile.  What the
    Trainer logged at the step are its metrics.

    The Trainer says when it saves; what the ``every`` of the run wants is saved too, and after a
    ``theta.preempted()`` the training ends with its last step saved.  A run without ``keep`` keeps what
    ``save_total_limit`` and ``metric_for_best_model`` leave of the Trainer's folders.

    With several processes all of them have the callback, and the first one saves.

    Args:
        run: the run.
        wait: let the training wait until each checkpoint is stored.  Otherwise one that comes before the one
            before it was begun takes its place.
    """

    def __init__(self, run: Run, *, wait: bool = False) -> None:
        self.run, self.wait = run, wait

    def on_train_begin(self, args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Take over how many checkpoints the Trainer keeps."""
        if self.run.keep is None and args.save_total_limit and args.save_total_limit > 0:
            self.run.keep = _rotation(args)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint that the run wants, and for the end when the process is to end."""
        if self.run.every is None:
            return
        asked = gather_object([(self.run.every.is_due(state.global_step), self.run.preempted)])
        control.should_save |= any(due for due, _ in asked)
        control.should_training_stop |= any(preempted for _, preempted in asked)

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Save the folder that the Trainer wrote."""
        PartialState().wait_for_everyone()  # all have written their random states
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / _FOLDER.format(state.global_step)
            saving = self.run.save_folder(state.global_step, folder, _metrics(state))
            if self.wait:
                saving.result()

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Wait until the last step is stored; raises what prevented it."""
        self.run.close()


def resume(run: Run, output_dir: str | os.PathLike[str], *, step: int | None = None) -> str | None:
    """Bring a checkpoint folder of ``run`` back below ``output_dir``, for ``resume_from_checkpoint=``.

    Args:
        run: the run.
        output_dir: that of the Trainer's arguments.
        step: a step of the run; by default the last one.

    Returns:
        The path of the folder; None when the run has not begun, which lets the Trainer begin.

    Raises:
        theta.errors.NotFoundError: there is no such step.
        theta.errors.WouldOverwriteError: the folder has files that are not those of the step.
    """
    found = agreed(run, step)
    if found is None:
        return None
    with PartialState().local_main_process_first():
        return str(found.write(Path(output_dir) / _FOLDER.format(found.step)))


@dataclass(frozen=True)
class Rotation:
    """The steps whose folders the Trainer keeps: the best one, and the newest, ``limit`` in all."""

    limit: int
    best: policies.best | None = None

    def kept(self, found: Sequence[RunStep], /) -> set[str]:
        """Return those steps."""
        chosen = {found[-1].commit} | (self.best.kept(found) if self.best else set())
        for item in reversed(found):
            if len(chosen) < self.limit:
                chosen.add(item.commit)
        return chosen


def _rotation(args: Any) -> Rotation:
    metric = args.metric_for_best_model
    if metric is None:
        return Rotation(args.save_total_limit)
    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    return Rotation(args.save_total_limit, policies.best(name, highest=bool(args.greater_is_better)))


def _metrics(state: Any) -> Mapping[str, float]:
    """Return what was logged at this step."""
    found: dict[str, float] = {}
    for logged in state.log_history:
        if logged.get("step") == state.global_step:
            numbers = {name: value for name, value in logged.items() if isinstance(value, (int, float))}
            found.update(numbers)
    return {name: value for name, value in found.items() if name not in _NO_METRICS}
