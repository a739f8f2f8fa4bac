"""Long histories of one tensor: restoring stays bounded, and a commit costs about what a step does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codecs.layer_cases import chunks_of, f32_to_bf16
from tests.store.test_snapshot import Store
from tests.support import Repo
from theta.codecs import chooser
from theta.codecs.base import TensorWords
from theta.git.repository import Repository
from theta.store.format.tensor_tree import MAX_LAYERS, Record
from theta.store.odb.objects import Objects
from theta.store.read.tensor_records import read_record
from theta.store.write.layer_plan import READ_BOUND

SHAPE = (384, 256)
Values = NDArray[np.floating[Any]]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    repo = Repo.create(tmp_path_factory.mktemp("history") / "repo")
    return Objects(Repository.discover(Path(repo.path)))


def tensor(values: Values) -> TensorWords:
    return TensorWords("bf16", values.shape, f32_to_bf16(values).ravel())


def file(new: TensorWords) -> bytes:
    entry = {"dtype": "BF16", "shape": list(new.shape), "data_offsets": [0, new.words.nbytes]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + new.words.tobytes()


def put(store: Store, new: TensorWords) -> Record:
    """Store a version and read it back."""
    manifest = store.put(file(new))
    assert store.get(manifest) == file(new)
    return read_record(store.objects, manifest.lines[0].tree)


def stored(objects: Objects, record: Record) -> int:
    return sum(map(objects.size, record.files.values()))


def test_a_fine_tuning_history(objects: Objects) -> None:
    rng, store = np.random.default_rng(0), Store(objects)
    values = rng.normal(0, 0.02, SHAPE).astype(np.float32)
    before = tensor(values)
    first = stored(objects, put(store, before))
    steps, costs = [], []
    for _ in range(18):
        values += rng.normal(0, 3e-5, SHAPE).astype(np.float32)
        new = tensor(values)
        steps.append(chooser.price(new, before, chunks_of(new)))
        record = put(store, new)
        costs.append(store.size)
        before = new
        assert len(record.layers) <= MAX_LAYERS
        assert stored(objects, record) <= 1.01 * READ_BOUND * first
    assert len(record.layers) > 1
    assert sum(costs) <= 1.3 * sum(steps)


def test_a_chain_of_adapters(objects: Objects) -> None:
    rng, store = np.random.default_rng(1), Store(objects)
    values = tensor(rng.normal(0, 0.02, SHAPE)).words.astype(np.uint32)
    first = stored(objects, put(store, TensorWords("bf16", SHAPE, values.astype(np.uint16))))
    codecs = []
    for _ in range(5):
        update = rng.normal(0, 1, (SHAPE[0], 2)) @ rng.normal(0, 2e-3, (2, SHAPE[1]))
        merged = (values << 16).view(np.float32).reshape(SHAPE) + update.astype(np.float32)
        new = tensor(merged)
        values = new.words.astype(np.uint32)
        record = put(store, new)
        codecs.append(record.layers[-1].codec)
        assert stored(objects, record) <= 1.01 * READ_BOUND * first
        assert store.size < 0.25 * new.words.nbytes
    assert codecs[:3] == ["lowrank/1"] * 3
    assert set(codecs) <= {"lowrank/1", "delta/1"}


def test_the_newest_version_may_return_to_an_old_one(objects: Objects) -> None:
    rng, store = np.random.default_rng(2), Store(objects)
    values = rng.normal(0, 0.02, SHAPE).astype(np.float32)
    kept = [values]
    put(store, tensor(values))
    for _ in range(4):
        values = values + rng.normal(0, 3e-4, SHAPE).astype(np.float32)
        kept.append(values)
        put(store, tensor(values))
    again = kept[0].copy()
    again[:2] = kept[-1][:2]
    put(store, tensor(again))
    assert store.size < 0.03 * tensor(again).words.nbytes
