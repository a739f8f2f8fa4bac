"""Loading by torch.distributed.checkpoint, on any number of ranks: each reads the parts that it needs."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from theta.api.checkpoint import Checkpoint
from theta.api.lazy_tensor import LazyTensor
from theta.api.training_run import Resumed, Run
from theta.errors import ChangedWhileReadError, NotFoundError, RefusedError
from theta.torch import storage_index
from theta.torch.storage_index import PartPlace
from theta.torch.storage_writer import step_of


class StorageReader(dcp.StorageReader):
    """Loads a step that :class:`StorageWriter` saved: the last one, or that of the ``checkpoint_id``.

        dcp.load(state, storage_reader=theta.torch.StorageReader(run))

    The number of ranks may be another one than when it was saved.  Only the chunks that hold the parts of a
    rank are decoded, and fetched in a partial clone.

    Args:
        run: the run.
        trusted: whether objects that are no tensors may be unpickled although they run code.
    """

    def __init__(self, run: Run, *, trusted: bool = False) -> None:
        super().__init__()
        self.run, self.trusted = run, trusted
        self._number: int | None = None
        self._resumed: Resumed | None = None
        self._files: dict[str, Checkpoint] = {}
        self._metadata: Any = None

    @property
    def step(self) -> int | None:
        """The number of the step that is read."""
        return self._found().step

    def reset(self, checkpoint_id: str | os.PathLike[str] | int | None = None) -> None:
        """Take the number of the step."""
        self._number = None if checkpoint_id is None else step_of(checkpoint_id)
        self._resumed = None
        self._files = {}

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Return the index of the step."""
        return storage_index.read(self._found().read(storage_index.PATH))

    def set_up_storage_reader(self, metadata: Metadata, *_: Any, **__: Any) -> None:
        """Keep the index."""
        self._metadata = metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan, with the commit that it was made for."""
        return replace(plan, storage_data=self._found().commit)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are.

        Raises :class:`theta.errors.ChangedWhileReadError` when the ranks found the run at different steps.
        """
        if len({plan.storage_data for plan in plans}) > 1:
            raise ChangedWhileReadError(
                f"run {self.run.name} changed while its ranks looked; nothing was loaded",
                hint="load again, or say checkpoint_id=STEP",
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the parts of this rank to their places."""
        for item in plan.items:
            part = self._part(self._metadata.storage_data[item.storage_index])
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, self._object(item, part.tobytes()))
            else:
                self._tensor(planner, item, part)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str] | int) -> bool:
        """Return whether it is the number of a step."""
        return str(checkpoint_id).isdecimal()

    def _found(self) -> Resumed:
        if self._resumed is None:
            self._resumed = self.run.resume(self._number)
        if self._resumed is None:
            raise NotFoundError(f"run {self.run.name} has no step yet")
        return self._resumed

    def _part(self, place: PartPlace) -> LazyTensor:
        if place.file not in self._files:
            self._files[place.file] = self._found()[place.file]
        return self._files[place.file][place.tensor]

    def _object(self, item: ReadItem, data: bytes) -> io.BytesIO:
        """Return a pickled object for the planner, which runs what it says."""
        try:
            if not self.trusted:
                torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # of the kinds that an unpickler has
            raise RefusedError(
                f"{item.storage_index.fqn} is an object that would run code when it is loaded",
                hint="say StorageReader(run, trusted=True) if you trust who saved it",
            ) from error
        return io.BytesIO(data)

    def _tensor(self, planner: LoadPlanner, item: ReadItem, part: LazyTensor) -> None:
        target = planner.resolve_tensor(item).detach()
        key = tuple(
            slice(start, start + size) for start, size in zip(item.storage_offsets, item.lengths, strict=True)
        )
        dtype = self._metadata.state_dict_metadata[item.storage_index.fqn].properties.dtype
        data = bytearray(part[key].tobytes())
        values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        target.copy_(values.reshape(tuple(item.lengths)))
        planner.commit_tensor(item, target)
