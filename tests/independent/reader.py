"""A checkpoint of a revision becomes the file that was added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tests.independent import derived, manifest_text, skeletons
from tests.independent.manifest_text import Manifest
from tests.independent.odb import Objects
from tests.independent.primitives import require
from tests.independent.skeletons import Skeleton
from tests.independent.tensor_trees import StoredTensor


def restore(repository: Path, revision: str, path: str, out: BinaryIO) -> None:
    """Write the checkpoint at ``path`` of ``revision`` to a file that can be read and sought.

    A file whose table is not that of its tensors is refused before the first byte is written; what is wrong
    with a tensor shows when it is decoded, and ``out`` is worth nothing then.
    """
    with Objects(repository) as objects:
        manifest = manifest_text.parse(objects, objects.at_path(revision, path))
        skeleton, literals = skeletons.read(objects, manifest.skeleton)
        _check(manifest, skeleton)
        out.truncate(0)
        _write(out, skeleton.literals, literals)
        for name, entry in manifest.entries.items():
            _write_tensor(out, StoredTensor(objects, entry), [at for at, _ in skeleton.extents.get(name, [])])
        derived.fill(out, skeleton.fields)
        require(out.seek(0, 2) == skeleton.size, "a file has another size")


def _check(manifest: Manifest, skeleton: Skeleton) -> None:
    """Refuse a skeleton that is not one of these tensors."""
    for name, places in skeleton.extents.items():
        require(name in manifest.entries, f"the tensor {name!r} of a skeleton is not in the manifest")
        size = manifest.entries[name].size
        require(all(length == size for _, length in places), f"an extent of {name!r} has another length")
    for name, entry in manifest.entries.items():
        require(entry.size == 0 or name in skeleton.extents, f"the tensor {name!r} is nowhere in the file")


def _write(out: BinaryIO, places: list[tuple[int, int]], pieces: Iterator[bytes]) -> None:
    """Write literals to their places; all of them are used."""
    piece = b""
    for at, length in places:
        out.seek(at)
        while length:
            piece = piece or next(pieces, b"")
            require(bool(piece), "literals are missing")
            out.write(piece[:length])
            length, piece = length - min(length, len(piece)), piece[length:]
    require(not piece and next(pieces, None) is None, "literals are left over")


def _write_tensor(out: BinaryIO, tensor: StoredTensor, places: list[int]) -> None:
    done = 0
    for raw in tensor.values():
        for at in places:
            out.seek(at + done)
            out.write(raw)
        done += len(raw)
