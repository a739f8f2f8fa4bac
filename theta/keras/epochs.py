"""A callback of Keras that saves epochs as steps of a run, and goes on from the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import keras

from theta.api.training_run import Resumed, Run

_FILE: Final = "model.weights.h5"
_SEEDS: Final = "seeds.safetensors"


class Checkpoint(keras.callbacks.Callback):  # to those who train; theta.api.checkpoint has the tensors
    """Saves the weights at the end of an epoch as a step of ``run``, with the optimizer's and seeds.

    The step is the number of epochs that are done; its metrics are what Keras logs.  The ``every`` of the run
    counts epochs.  The model and its optimizer must be built before ``fit``.

    After a ``theta.preempted()`` the training ends with the epoch.

    Args:
        run: the run.
        resume: go on from the last step of the run, if there is one; ``fit`` then begins with the epoch after
            it, as with ``initial_epoch``.
    """

    def __init__(self, run: Run, *, resume: bool = True) -> None:
        super().__init__()
        self.run, self.resume = run, resume

    def on_train_begin(self, _: Mapping[str, Any] | None = None) -> None:
        """Bring the last step back."""
        found = self.run.resume() if self.resume else None
        if found is not None:
            restore(self.model, found)
            self.model._initial_epoch = found.step or 0  # as keras.callbacks.BackupAndRestore does it

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save the epoch if it is due."""
        if self.run.every is None or self.run.every.is_due(epoch + 1):
            with self.run.drafts() as folder:
                self.model.save_weights(folder / _FILE)
                metrics = {name: float(value) for name, value in (logs or {}).items()}
                self.run.save(epoch + 1, {_FILE: folder / _FILE, **_seeds_of(self.model)}, metrics)
        if self.run.preempted:
            self.model.stop_training = True

    def on_train_end(self, _: Mapping[str, Any] | None = None) -> None:
        """Wait until the last step is stored; raises what prevented it."""
        self.run.close()


def restore(model: Any, step: Resumed) -> None:
    """Load a step that :class:`Checkpoint` saved: weights, seeds, and the optimizer's variables."""
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    with step.files() as folder:
        model.load_weights(folder / _FILE)
        if (folder / _SEEDS).exists():
            for number, seed in enumerate(_seeds(model)):
                seed.assign(step[_SEEDS][str(number)].numpy())


def _seeds(model: Any) -> list[Any]:
    """Return the states of random layers, which Keras leaves out of its files of weights."""
    weights = {id(one) for one in model.weights}
    return [one for one in model.variables if id(one) not in weights]


def _seeds_of(model: Any) -> dict[str, Any]:
    """Return the file of them, or none."""
    arrays = {str(at): keras.ops.convert_to_numpy(one) for at, one in enumerate(_seeds(model))}
    return {_SEEDS: arrays} if arrays else {}
