"""Bases beyond a tensor's own history: renamed tensors, other checkpoints, layers that moved up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, random_tensors
from theta.formats.layout import BytesSource
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.format.manifest import Manifest
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read import tensor_records
from theta.store.read.reassembly import Restorer
from theta.store.write.snapshot import Snapshot

SHAPE = (96, 80)
NAMES = ("a", "b", "c", "d")
Tensors = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    repo = Repo.create(tmp_path_factory.mktemp("nearby") / "repo")
    return Objects(Repository.discover(Path(repo.path)))


def file(tensors: Tensors) -> bytes:
    header, offset = {}, 0
    for name, tensor in tensors.items():
        kind = {"float32": "F32", "float16": "F16", "int32": "I32"}[tensor.dtype.name]
        span = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": span}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values())


def put(objects: Objects, tensors: Tensors, store: str, *bases: Manifest) -> tuple[Manifest, int]:
    """Store a file with manifests of the parents; its manifest and the bytes that it took."""
    pack, source = objects.writer(), BytesSource(file(tensors))
    stored = Snapshot(objects, pack, bases).store(source, file_scan.scan(source, None, None), store, None)
    size = pack.size
    pack.finish()
    objects.refresh()
    assert bytes(Restorer(objects, stored.manifest).data()) == file(tensors)
    return stored.manifest, size


def record(objects: Objects, manifest: Manifest, name: str) -> Record:
    return tensor_records.read_record(objects, manifest.by_name[name].tree)


def model(seed: int) -> dict[str, NDArray[Any]]:
    return random_tensors(dict.fromkeys(NAMES, SHAPE), seed)


def tuned(tensors: Tensors, seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        name: (tensor + rng.normal(0, 1e-6, tensor.shape)).astype(np.float32)
        for name, tensor in tensors.items()
    }


@pytest.fixture(scope="module")
def base(objects: Objects) -> Manifest:
    return put(
        objects,
        model(1),
        "base",
    )[0]


def layers(objects: Objects, manifest: Manifest) -> dict[str, list[str]]:
    return {
        name: [layer.codec for layer in record(objects, manifest, name).layers] for name in manifest.by_name
    }


def test_a_renamed_tensor_that_changed(objects: Objects, base: Manifest) -> None:
    new = {f"model.{name}": tensor for name, tensor in tuned(model(1), 2).items()}
    found, size = put(objects, new, "base", base)
    assert layers(objects, found) == {name: ["dense/1", "delta/1"] for name in new}
    assert size < 0.5 * 4 * 96 * 80 * 4


def test_layers_that_moved_up(objects: Objects, base: Manifest) -> None:
    moved = dict(zip(NAMES, list(tuned(model(1), 3).values())[1:], strict=False))
    found, _ = put(objects, moved, "base", base)
    for name, source in zip("abc", "bcd", strict=True):
        files = record(objects, found, name).files
        assert files["0.0000"] == record(objects, base, source).files["0.0000"]
        assert len(files) == 2


def test_fine_tunes_of_one_base_share_it(objects: Objects, base: Manifest) -> None:
    first, _ = put(objects, tuned(model(1), 4), "first", base)
    second, _ = put(objects, tuned(model(1), 5), "second", base, first)
    for name in NAMES:
        shared = record(objects, base, name).files["0.0000"]
        assert record(objects, first, name).files["0.0000"] == shared
        assert record(objects, second, name).files["0.0000"] == shared


def test_the_nearer_parent_is_the_base(objects: Objects) -> None:
    ours, theirs = model(6), model(7)
    mine, _ = put(objects, ours, "m")
    other, _ = put(objects, theirs, "m")
    mixed = tuned({"a": ours["a"], "b": theirs["b"], "c": ours["c"], "d": theirs["d"]}, 8)
    merged, _ = put(objects, mixed, "m", mine, other)
    for name, parent in (("a", mine), ("b", other), ("c", mine), ("d", other)):
        kept = record(objects, parent, name).files["0.0000"]
        assert record(objects, merged, name).files["0.0000"] == kept


def test_unrelated_tensors_stand_alone(objects: Objects, base: Manifest) -> None:
    for store in ("base", "other"):
        found, _ = put(objects, model(9), store, base)
        assert layers(objects, found) == {name: ["dense/1"] for name in NAMES}


def test_a_cast_of_another_checkpoint(objects: Objects, base: Manifest) -> None:
    half = {name: tensor.astype(np.float16) for name, tensor in model(1).items()}
    found, size = put(objects, half, "half", base)
    assert layers(objects, found) == {name: ["dense/1", "cast/1"] for name in NAMES}
    assert size < 4000


def test_integers_are_compared_as_numbers(objects: Objects) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(-(2**30), 2**30, SHAPE).astype(np.int32)
    first, _ = put(objects, {"ids": ids}, "one")
    found, _ = put(objects, {"new": ids + rng.integers(0, 3, SHAPE).astype(np.int32)}, "two", first)
    assert layers(objects, found) == {"new": ["dense/1", "delta/1"]}


def test_what_is_damaged_or_missing_is_no_base(objects: Objects, base: Manifest) -> None:
    gone = base.by_name["a"].tree[::-1]
    lines = tuple(line.__class__(line.name, line.dtype, line.shape, line.digest, gone) for line in base.lines)
    lost = Manifest(base.format, "lost", base.skeleton, lines)
    found, _ = put(objects, tuned(model(1), 10), "new", lost)
    assert layers(objects, found) == {name: ["dense/1"] for name in NAMES}
