"""From a file to a commit and back: the same bytes, and only what is new is stored."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Repo
from theta.errors import ChangedWhileReadError, CorruptError, MissingObjectsError, ThetaError
from theta.formats.layout import BytesSource
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.format import manifest as manifests
from theta.store.format import skeleton
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects
from theta.store.read.reassembly import Restorer
from theta.store.write.snapshot import Snapshot

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F8_E8M0": 8,
    "F4": 4,
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    repo = Repo.create(tmp_path_factory.mktemp("store") / "repo")
    yield Objects(Repository.discover(repo.path))


class Store:
    """Stores files one after the other, each with the one before as its base."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.manifest: Manifest | None = None
        self.size = 0
        self.new: list[str] = []

    def put(self, data: bytes) -> Manifest:
        pack = self.objects.writer()
        kept = skeleton.read(self.objects, self.manifest.skeleton) if self.manifest else None
        source = BytesSource(data)
        found = file_scan.scan(source, self.manifest, kept)
        bases = [self.manifest] if self.manifest else []
        stored = Snapshot(self.objects, pack, bases).store(source, found, "m", self.manifest)
        self.size, self.new = pack.size, stored.new
        pack.finish()
        self.objects.refresh()
        self.manifest = manifests.parse(stored.manifest.data)
        assert found.equals(self.manifest, skeleton.read(self.objects, self.manifest.skeleton))
        return self.manifest

    def get(self, manifest: Manifest) -> bytes:
        return bytes(Restorer(self.objects, manifest).data())


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    """Any valid file: every dtype, rank and order, odd names, metadata, padding."""
    names = draw(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=5))
    entries: dict[str, Any] = {}
    if draw(st.booleans()):
        entries["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3))
    offset, body = 0, b""
    for name in [name for name in names if name != "__metadata__"]:
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.integers(0, 6), max_size=4))
        if BITS[dtype] < 8:
            shape = [*shape, 2]
        size = int(np.prod(shape, dtype=np.int64)) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        body += draw(st.one_of(st.binary(min_size=size, max_size=size), st.just(b"\0" * size)))
        offset += size
    keys = draw(st.permutations(list(entries)))
    text = json.dumps({key: entries[key] for key in keys}, ensure_ascii=draw(st.booleans())).encode()
    text += b" " * draw(st.integers(0, 9))
    return len(text).to_bytes(8, "little") + text + body


@given(safetensors())
def test_any_safetensors_file_comes_back(objects: Objects, data: bytes) -> None:
    store = Store(objects)
    manifest = store.put(data)
    assert store.get(manifest) == data
    assert manifest.format == "safetensors"


@given(st.binary(max_size=600))
def test_any_bytes_come_back(objects: Objects, data: bytes) -> None:
    store = Store(objects)
    assert store.get(store.put(data)) == data


@given(safetensors(), st.binary(max_size=20), st.integers(0, 200))
def test_any_damaged_file_comes_back(objects: Objects, data: bytes, junk: bytes, at: int) -> None:
    store = Store(objects)
    damaged = data[:at] + junk + data[at + len(junk) // 2 :]
    store.put(data)
    assert store.get(store.put(damaged)) == damaged
    first = store.manifest
    assert store.put(damaged) == first, "storing it again changes nothing"


@given(st.lists(safetensors(), min_size=2, max_size=4))
def test_a_chain_of_versions_comes_back(objects: Objects, chain: list[bytes]) -> None:
    store = Store(objects)
    versions = [(store.put(data), data) for data in chain]
    for manifest, data in versions:
        assert store.get(manifest) == data


def model(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    entries, offset = {}, 0
    for name, array in arrays.items():
        kind = {"float32": "F32", "uint16": "BF16", "int64": "I64"}[str(array.dtype)]
        span = [offset, offset + array.nbytes]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        offset += array.nbytes
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values())


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


def test_a_file_that_did_not_change_stores_nothing(objects: Objects) -> None:
    store = Store(objects)
    data = model({"a": normal(300, 100), "b": normal(50)})
    first = store.put(data)
    assert store.put(data) == first
    assert (store.size, store.new) == (0, [])


def test_a_changed_tensor_costs_itself_only(objects: Objects) -> None:
    store = Store(objects)
    arrays = {f"layers.{n}": normal(100, 100, seed=n) for n in range(10)}
    store.put(model(arrays))
    whole = store.size
    arrays["layers.3"] = normal(100, 100, seed=99)
    data = model(arrays)
    manifest = store.put(data)
    assert store.new == ["layers.3"]
    assert store.size < whole * 0.13
    assert store.get(manifest) == data


def test_a_few_changed_rows_of_a_large_tensor_cost_a_chunk_at_most(objects: Objects) -> None:
    store = Store(objects)
    array = normal(12_000, 512)
    store.put(model({"a": array}))
    whole = store.size
    array[5:8] += 1
    data = model({"a": array})
    manifest = store.put(data)
    assert store.size < whole / 5, "24 MB are cut into 6 chunks, of which one changed"
    assert store.get(manifest) == data


def test_the_same_value_under_another_name_is_stored_once(objects: Objects) -> None:
    store = Store(objects)
    array = normal(200, 200, seed=41)
    store.put(model({"a": array, "tied": array}))
    assert store.size < array.nbytes * 1.1
    store.put(model({"renamed": array}))
    assert store.size < 3000
    assert store.new == []


def test_the_encoder_is_repeatable(tmp_path: Path) -> None:
    data = model({"a": normal(700, 300), "b": normal(3, 3), "c": np.arange(900, dtype=np.int64)})
    found = []
    for number in range(3):
        repo = Repo.create(tmp_path / f"{number}")
        found.append(Store(Objects(Repository.discover(repo.path))).put(data).data)
    assert len(set(found)) == 1


class Shifty:
    """A file whose bytes are others when they are read a second time."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        piece = self.data[offset : offset + length]
        return piece if self.reads == 0 else bytes(byte ^ 1 for byte in piece)


def test_bytes_that_change_between_hashing_and_storing_are_refused(objects: Objects) -> None:
    source = Shifty(model({"a": normal(100, 100, seed=1234)}))
    found = file_scan.scan(source, None, None)
    source.reads = 1
    before = set(objects.directory.iterdir())
    with pytest.raises(ChangedWhileReadError), objects.writing() as pack:
        Snapshot(objects, pack, []).store(source, found, "m", None)
    assert set(objects.directory.iterdir()) == before


def test_a_lost_or_damaged_object_is_named(repo: Repo) -> None:
    objects = Objects(Repository.discover(repo.path))
    store = Store(objects)
    data = model({"a": normal(100, 100, seed=7)})
    manifest = store.put(data)
    [pack] = objects.directory.glob("*.pack")
    good = pack.read_bytes()
    pack.chmod(0o644)
    dice = random.Random(3)
    seen = {"exact": 0, "error": 0}
    for _ in range(150):
        at = dice.randrange(12, len(good) - 20)
        pack.write_bytes(good[:at] + bytes([good[at] ^ 1 << dice.randrange(8)]) + good[at + 1 :])
        try:
            assert Store(Objects(Repository.discover(repo.path))).get(manifest) == data
            seen["exact"] += 1
        except ThetaError:
            seen["error"] += 1
    assert seen["error"] > 130, seen
    pack.write_bytes(good)
    for file in objects.directory.glob("pack-*"):
        file.unlink()
    with pytest.raises(MissingObjectsError):
        Store(Objects(Repository.discover(repo.path))).get(manifest)


def test_a_manifest_with_the_digest_of_another_value_is_refused(objects: Objects) -> None:
    """Two tensors of one shape, their trees swapped: P4 says that this is never restored silently."""
    store = Store(objects)
    manifest = store.put(model({"a": normal(10, 10, seed=1), "b": normal(10, 10, seed=2)}))
    one, two = manifest.by_name["a"], manifest.by_name["b"]
    lines = (replace(one, tree=two.tree), replace(two, tree=one.tree))
    with pytest.raises(CorruptError):
        store.get(Manifest(manifest.format, manifest.store, manifest.skeleton, lines))
