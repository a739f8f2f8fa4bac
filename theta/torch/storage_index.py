"""The index of a distributed checkpoint: what DCP's metadata says, as JSON.

It stands beside the files of the ranks, ``state/rank_00000.safetensors`` and so on, whose tensors are the
parts of the program's tensors that each rank wrote: ``{"version": 1, "tensors": {NAME: {"dtype", "size",
"chunks": [[OFFSETS, SIZES], ...]}}, "objects": [NAME, ...], "keys": {NAME: [KEY, ...]}, "places": [[NAME,
OFFSETS or null, FILE, TENSOR], ...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from theta.errors import FormatError, UsageError

FOLDER: Final = "state"
PATH: Final = f"{FOLDER}/index.json"
_VERSION: Final = 1
_TORCH: Final = "torch."


@dataclass(frozen=True)
class PartPlace:
    """The place of a part of a tensor: a file of the commit, and a tensor in it."""

    file: str
    tensor: str


def write(metadata: Metadata, places: Mapping[MetadataIndex, PartPlace]) -> bytes:
    """Return the index of a checkpoint; raises :class:`UsageError` for names that JSON cannot hold."""
    described = metadata.state_dict_metadata
    found = {
        "version": _VERSION,
        "tensors": {name: _tensor(one) for name, one in described.items() if _is_tensor(one)},
        "objects": [name for name, one in described.items() if not _is_tensor(one)],
        "keys": {name: _keys(name, path) for name, path in (metadata.planner_data or {}).items()},
        "places": [
            [index.fqn, None if index.offset is None else list(index.offset), place.file, place.tensor]
            for index, place in places.items()
        ],
    }
    return json.dumps(found).encode() + b"\n"


def read(data: bytes) -> Metadata:
    """Return what :func:`write` wrote; raises :class:`FormatError` for anything else."""
    try:
        found = json.loads(data)
        if found["version"] != _VERSION:
            raise FormatError(f"{PATH} has version {found['version']}", hint="a newer theta wrote it")
        described = {name: _described(one) for name, one in found["tensors"].items()}
        places = {MetadataIndex(name, at): PartPlace(file, one) for name, at, file, one in found["places"]}
        return Metadata(
            described | {name: BytesStorageMetadata() for name in found["objects"]},
            planner_data={name: tuple(path) for name, path in found["keys"].items()},
            storage_data=places,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{PATH} is not the index of a distributed checkpoint") from error


def _is_tensor(one: Any) -> bool:
    return isinstance(one, TensorStorageMetadata)


def _tensor(one: TensorStorageMetadata) -> dict[str, Any]:
    return {
        "dtype": str(one.properties.dtype).removeprefix(_TORCH),
        "size": list(one.size),
        "chunks": [[list(chunk.offsets), list(chunk.sizes)] for chunk in one.chunks],
    }


def _described(one: Mapping[str, Any]) -> TensorStorageMetadata:
    dtype = getattr(torch, one["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{one['dtype']} is no dtype")
    chunks = [
        ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in one["chunks"]
    ]
    return TensorStorageMetadata(TensorProperties(dtype), torch.Size(one["size"]), chunks)


def _keys(name: str, path: Any) -> list[str | int]:
    if not isinstance(path, (tuple, list)) or not all(isinstance(key, (str, int)) for key in path):
        raise UsageError(f"the planner names {name} by {path!r}, which is no list of text and numbers")
    return list(path)
