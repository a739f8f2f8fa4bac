"""The state of accelerate, with all that it prepared, as steps of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from theta.api.background import Saving
from theta.api.training_run import Resumed, Run
from theta.porcelain.stage.run_steps import RunStep


def save_state(
    accelerator: Any, run: Run, step: int, metrics: Mapping[str, float] | None = None, **options: Any
) -> Saving | None:
    """Save what ``accelerator.save_state`` writes as step ``step``: model, optimizer, random states, ...

    To be called by all processes; the first one commits, and the others get None.  The files are stored
    behind the training.

    Args:
        accelerator: the ``accelerate.Accelerator``.
        run: a run of one repository, on all processes.
        step: the number of the step.
        metrics: name -> value.
        options: those of ``accelerator.save_state``.
    """
    with _folder(accelerator, run) as folder:
        accelerator.save_state(str(folder), **options)
        accelerator.wait_for_everyone()
        return run.save_folder(step, folder, metrics) if accelerator.is_main_process else None


def load_state(accelerator: Any, run: Run, step: int | None = None, **options: Any) -> int | None:
    """Load a step by ``accelerator.load_state``, by default the last one; return its number.

    To be called by all processes, after ``accelerator.prepare``.  Returns None when the run has not begun.
    ``options`` are those of ``accelerator.load_state``.

    Raises :class:`theta.errors.NotFoundError` when there is no such step.
    """
    found = agreed(run, step)
    if found is None:
        return None
    with _folder(accelerator, run) as folder:
        if accelerator.is_main_process:
            found.write(folder)
        accelerator.wait_for_everyone()
        accelerator.load_state(str(folder), **options)
        accelerator.wait_for_everyone()
    return found.step


def agreed(run: Run, step: int | None = None) -> Resumed | None:
    """Return on all processes the step that the first one finds; a step may land while they look."""
    found = run.resume(step)
    known = [None if found is None else RunStep(found.commit, found.step, found.metrics, 0, "")]
    broadcast_object_list(known)
    return None if known[0] is None else run.resumed(known[0])


@contextlib.contextmanager
def _folder(accelerator: Any, run: Run) -> Iterator[Path]:
    """Create a folder that all processes know; the first one removes it at the end of the block."""
    with run.drafts() if accelerator.is_main_process else contextlib.nullcontext() as own:
        name = [str(own)]
        broadcast_object_list(name)
        yield Path(name[0])
