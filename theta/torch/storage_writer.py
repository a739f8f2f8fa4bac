"""Saving by torch.distributed.checkpoint: each rank stores its own pack, the first one commits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from theta.api.training_run import Run
from theta.errors import UsageError
from theta.porcelain.stage.saved_tree import StoredFile
from theta.torch import storage_index
from theta.torch.storage_index import PartPlace


@dataclass(frozen=True)
class _Written:
    """A part that a rank stored: its place, and the file that it is in."""

    place: PartPlace
    file: StoredFile


class StorageWriter(dcp.StorageWriter):
    """Saves what ``torch.distributed.checkpoint`` plans as a step of ``run``.

        writer = theta.torch.StorageWriter(run)
        dcp.save(state, checkpoint_id=step, storage_writer=writer)

    Every rank has a run of the same repository.  Each writes the parts that it is to write as a safetensors
    file into a pack of its own; the coordinator makes the commit, when all have.  The number of the step is
    the ``checkpoint_id``.  Parts that are no tensors are what torch makes of them.

    Args:
        run: the run.
        metrics: name -> value at the step; may be set again before each save.
        files: other files of the step, as in :meth:`theta.Repository.save`, that the coordinator saves; may
            be set again before each save.
    """

    def __init__(
        self, run: Run, metrics: Mapping[str, float] | None = None, files: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.run, self.metrics, self.files = run, dict(metrics or {}), dict(files or {})
        self._step: int | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | int | None = None) -> None:
        """Take the number of the step."""
        if checkpoint_id is not None:
            self._step = step_of(checkpoint_id)

    def set_up_storage_writer(self, *_: Any, **__: Any) -> None:
        """Do nothing: a run is ready."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans, with the names of the files that they become."""
        return [
            replace(plan, storage_data=f"{storage_index.FOLDER}/rank_{rank:05}.safetensors")
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store the parts of this rank."""
        arrays = dict(_arrays(plan, planner))
        future: Future[list[WriteResult]] = Future()
        stored = self.run.store(plan.storage_data, arrays) if arrays else None
        future.set_result(
            [
                WriteResult(
                    item.index, arrays[name].nbytes, _Written(PartPlace(plan.storage_data, name), stored)
                )
                for item, name in ((item, _name(item)) for item in plan.items)
                if stored is not None
            ]
        )
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit what the ranks stored."""
        if self._step is None:
            raise UsageError("the step has no number", hint="say checkpoint_id=STEP")
        written = {result.index: result.storage_data for found in results for result in found}
        files: dict[str, Any] = {one.place.file: one.file for one in written.values()}
        index = storage_index.write(metadata, {at: one.place for at, one in written.items()})
        ours = {**files, storage_index.PATH: index}
        if taken := sorted(self.files.keys() & ours):
            raise UsageError(f"{taken[0]} is a file of the state", hint="give it another name")
        self.run.save(self._step, {**self.files, **ours}, self.metrics, whole=True).result()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str] | int) -> bool:
        """Return whether it is the number of a step."""
        return str(checkpoint_id).isdecimal()


def step_of(checkpoint_id: str | os.PathLike[str] | int) -> int:
    """Return the number of the step; raises :class:`UsageError` for anything else."""
    if not str(checkpoint_id).isdecimal():
        raise UsageError(f"the checkpoint_id {checkpoint_id!r} is not the number of a step")
    return int(str(checkpoint_id))


def _arrays(plan: SavePlan, planner: SavePlanner) -> Iterator[tuple[str, Any]]:
    for item in plan.items:
        data = planner.resolve_data(item)
        if item.type == WriteItemType.BYTE_IO:
            yield _name(item), np.frombuffer(data.getvalue(), np.uint8)
        else:
            yield _name(item), data.detach()


def _name(item: WriteItem) -> str:
    """Return the name of a part in its file: that of the tensor, with the part's rows unless it is whole."""
    said = item.tensor_data
    if said is None or said.chunk.sizes == said.size:
        return str(item.index.fqn)
    ranges = zip(said.chunk.offsets, said.chunk.sizes, strict=True)
    return f"{item.index.fqn}[{', '.join(f'{start}:{start + size}' for start, size in ranges)}]"
