"""The file that a checkpoint becomes: written in any order, from what an old file has where that is right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store
from theta import _fs
from theta.formats.layout import BytesSource
from theta.store.format.manifest import Manifest
from theta.store.format.skeleton import Extent, Literal, Skeleton
from theta.store.read import coming_file, reassembly
from theta.store.read.coming_file import ComingFile, Memory
from theta.store.read.layers import LayerView
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor

SMALL = {f"layer.{number:02d}": np.full((40, 3), number, np.float32) for number in range(30)}
LARGE = {"w": np.random.default_rng(2).normal(size=(3000, 1000)).astype(np.float32)}


class Old:
    """A file that is being replaced."""

    def __init__(self, data: bytes) -> None:
        self.inner, self.size = BytesSource(data), len(data)
        self.dropped: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        return self.inner.read(offset, length)

    def drop(self, offset: int, length: int) -> None:
        self.dropped.append((offset, length))


class Told:
    """How many bytes it was told of."""

    nbytes = 0

    def step(self, verb: str, total: int, of: str = "") -> None:
        raise AssertionError(f"{verb} {of}: no step begins here, of {total} bytes")

    def __call__(self, nbytes: int) -> None:
        self.nbytes += nbytes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def manifest(store: Store) -> Manifest:
    return store.put(SMALL | LARGE)


@pytest.mark.parametrize("batch", [1, 1000, 1 << 20])
def test_pieces_may_come_in_any_order(
    store: Store, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Every byte is written once, whatever a thread is given at once; the old file's pages make room."""
    monkeypatch.setattr(reassembly, "_BATCH", batch)
    restorer, whole = Restorer(store.objects, manifest), store.file(manifest)
    old, told = Old(bytes(len(whole))), Told()
    with _fs.AtomicFile(tmp_path / "new") as file:
        coming = ComingFile(file, manifest.skeleton, restorer.plan, old)
        restorer.write(coming, told)
    assert (tmp_path / "new").read_bytes() == whole
    spans = [(offset, length) for _, offset, length in restorer.plan.extents()]
    assert told.nbytes == sum(length for _, length in spans) == sum(length for _, length in old.dropped)
    assert {offset for offset, _ in spans} <= {offset for offset, _ in old.dropped}


def test_what_an_old_file_has_is_read_there_and_proven(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    really = StoredTensor._decoded

    def noted(self: StoredTensor, number: int) -> memoryview:
        decoded.append(self.line.name)
        return really(self, number)

    whole = store.file(manifest)
    monkeypatch.setattr(StoredTensor, "_decoded", noted)
    wrong = bytearray(whole)
    wrong[-1] ^= 1
    for data, expected in ((whole, 0), (bytes(wrong), 1), (whole[:-1], 33), (b"", 33)):
        decoded.clear()
        restorer = Restorer(store.objects, manifest)
        target = Memory(restorer.plan)
        restorer.write(target, places=coming_file.places(store.objects, manifest, Old(data)))
        assert target.content == whole
        assert len(decoded) == expected


@pytest.mark.parametrize("damaged", [False, True])
def test_a_value_is_decoded_on_what_the_old_file_has_where_that_is_right(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """The base that is stored is not read then; where the file has changed it is, and the result is right."""
    step = LARGE["w"] + np.random.default_rng(3).normal(size=(3000, 1000)).astype(np.float32) / 4096
    new = store.put(SMALL | {"w": step}, manifest)
    whole, old = store.file(new), bytearray(store.file(manifest))
    alone: list[int] = []
    really = LayerView._alone

    def noted(self: LayerView, number: int, payload_id: str) -> NDArray[Any]:
        alone.append(number)
        return really(self, number, payload_id)

    monkeypatch.setattr(LayerView, "_alone", noted)
    old[-1] ^= damaged
    restorer = Restorer(store.objects, new)
    target = Memory(restorer.plan)
    restorer.write(target, places=coming_file.places(store.objects, manifest, Old(bytes(old))))
    assert target.content == whole
    assert alone == ([2] if damaged else [])


def test_a_tensor_that_stands_twice_is_written_twice(tmp_path: Path) -> None:
    plan = Skeleton((Extent(4, "w"), Literal(1), Extent(4, "w")), b"|")
    with _fs.AtomicFile(tmp_path / "new") as file:
        coming = ComingFile(file, "", plan)
        coming.put("w", 2, b"cd")
        coming.put("w", 0, b"ab")
        coming.put("not in this file", 0, b"?")
    assert (tmp_path / "new").read_bytes() == b"abcd|abcd"


def test_no_thread_writes_any_more_once_it_failed(
    store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target may be closed then, and its number be that of another file."""
    monkeypatch.setattr(reassembly, "_BATCH", 1)
    restorer = Restorer(store.objects, manifest)
    target = Memory(restorer.plan)
    ended: list[bool] = []
    late: list[int] = []
    really = Memory.patch

    def patch(self: Memory, offset: int, data: bytes | memoryview) -> None:
        time.sleep(0.02)
        if ended:
            late.append(offset)
        really(self, offset, data)

    class Interrupting(Told):
        def __call__(self, nbytes: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Memory, "patch", patch)
    with pytest.raises(KeyboardInterrupt):
        restorer.write(target, Interrupting())
    ended.append(True)
    time.sleep(0.1)
    assert not late
