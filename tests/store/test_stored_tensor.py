"""The one reader of a stored tensor: any part of it, proven, from a file when that has it, decoded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merging.stored import Store
from theta.codecs import dense
from theta.errors import CodecError, CorruptError, FormatError
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.chunk_cache import ChunkCache
from theta.store.read.coming_file import Place
from theta.store.read.stored_tensor import KEPT, StoredTensor

ROWS, COLUMNS = 3000, 1000
VALUES = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype("<f4")
RAW = VALUES.tobytes()
WORDS = VALUES.view("<u4").reshape(-1)


@dataclass
class Stored:
    """A tensor of three chunks, stored as a delta on another version."""

    objects: Objects
    line: Line

    def open(self, place: Place | None = None, kept: int = KEPT) -> StoredTensor:
        return StoredTensor(self.objects, self.line, place, kept=kept)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    store = Store(tmp_path_factory.mktemp("work"))
    base = store.put({"w": VALUES + np.float32(1e-3)})
    yield Stored(store.objects, store.put({"w": VALUES}, base).by_name["w"])


class InPlace:
    """A file that may have the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.dropped = data, len(data), 0

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > len(self.data):
            raise FormatError("shorter than it was")
        return self.data[offset : offset + length]

    def drop(self, offset: int, length: int) -> None:
        self.dropped += length


@given(start=st.integers(0, WORDS.size), length=st.integers(0, 2_500_000))
def test_any_words_and_any_bytes(stored: Stored, start: int, length: int) -> None:
    tensor, stop = stored.open(), min(start + length, WORDS.size)
    assert np.array_equal(tensor.read(start, stop), WORDS[start:stop])
    offset = min(start * 3, len(RAW) - length % 5)
    assert tensor.read_bytes(offset, length % 5) == RAW[offset : offset + length % 5]
    assert tensor.read_bytes(start, stop - start) == RAW[start:stop]


def test_the_whole_and_its_chunks(stored: Stored) -> None:
    tensor = stored.open()
    chunks = list(tensor.chunks())
    assert len(chunks) == len(tensor.record.chunks) == 3
    assert b"".join(chunks) == RAW
    assert [len(chunk) // 4 for chunk in chunks] == np.diff(tensor.starts).tolist()
    assert np.array_equal(tensor.whole().words, WORDS)
    assert np.array_equal(tensor.sample(5, 9), WORDS[5:9])


@pytest.mark.parametrize("kept", [0, layers._KEPT])
@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_in_whole_is_decoded_once_where_it_is_kept(
    stored: Stored, number: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_KEPT", kept)
    record, decoded = stored.open().record, list[int]()
    plain = layers.stack(stored.objects, record)[number]
    wanted = np.concatenate([plain.chunk(k) for k in range(len(plain.lengths))])
    real = dense.decode_words

    def counted(*args: Any) -> Any:
        decoded.append(1)
        return real(*args)

    monkeypatch.setattr(dense, "decode_words", counted)
    views = layers.stack(stored.objects, record)
    view = views[number]
    assert np.array_equal(view.whole(), wanted)
    once = len(decoded)
    assert once == len(plain.lengths)
    assert np.array_equal(view.whole(), wanted)
    assert np.array_equal(view.read(5, wanted.size - 3), wanted[5:-3])
    assert np.array_equal(views[0].read(0, 9), views[0].whole()[:9])
    assert (len(decoded) == once) == (kept > 0)
    with pytest.raises(CodecError):
        view.read(wanted.size - 3, wanted.size + 1)


def test_a_base_that_was_decoded_for_one_version_is_not_decoded_for_the_next(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, record = stored.objects.remembering(), stored.open().record
    base = layers.stack(stored.objects, record)[0]
    plain = np.concatenate([base.chunk(number) for number in range(3)])
    first = layers.top(objects, record)
    assert all(first.chunk(number).size for number in range(3))
    monkeypatch.setattr(dense, "decode_words", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(layers.stack(objects, record)[0].whole(), plain)


def test_a_tensor_without_bytes_reads_its_record_alone(stored: Stored) -> None:
    record = Record(stored.line.dtype, (0, 4), (), (), {})
    with stored.objects.writing() as pack:
        tree = pack.tree([(tensor_tree.RECORD, 0o100644, pack.blob(record.data()))])
    line = replace(stored.line, shape=(0, 4), digest=record.digest, tree=tree)
    tensor = StoredTensor(stored.objects, line)
    assert list(tensor.chunks()) == []
    assert tensor.whole().words.size == tensor.read(0, 0).size == 0


def test_what_is_stored_must_be_what_the_manifest_says(stored: Stored) -> None:
    with pytest.raises(CorruptError, match="w: the tensor tree is not of the value"):
        StoredTensor(stored.objects, replace(stored.line, digest="0" * 64))


def test_a_file_is_read_instead_as_far_as_it_has_the_bytes(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    really = StoredTensor._decoded

    def noted(self: StoredTensor, number: int) -> memoryview:
        decoded.append(number)
        return really(self, number)

    monkeypatch.setattr(StoredTensor, "_decoded", noted)
    damaged = bytearray(b"head" + RAW)
    damaged[-1] ^= 1
    for data, wanted in ((b"head" + RAW, []), (bytes(damaged), [2]), (b"", [0, 1, 2])):
        decoded.clear()
        file = InPlace(data)
        tensor = stored.open(Place(file, 4, stored.line))
        assert tensor.is_at_hand
        assert np.array_equal(tensor.read(0, WORDS.size), WORDS)
        assert decoded == wanted
        tensor.leave()
        assert file.dropped == len(RAW)


@pytest.mark.parametrize(("kept", "again"), [(len(RAW), 0), (0, 3)])
def test_chunks_are_kept_as_far_as_the_budget_goes(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, kept: int, again: int
) -> None:
    tensor = stored.open(kept=kept)
    assert not tensor.is_at_hand
    tensor.read(0, WORDS.size)
    assert tensor.is_at_hand == (not again)
    decoded: list[int] = []
    really = StoredTensor._decoded

    def noted(self: StoredTensor, number: int) -> memoryview:
        decoded.append(number)
        return really(self, number)

    monkeypatch.setattr(StoredTensor, "_decoded", noted)
    tensor.read(0, WORDS.size)
    assert len(decoded) == again
    tensor.forget()
    assert not tensor.is_at_hand


# -- the cache -----------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache, made = ChunkCache(250), []

    def chunk(number: int) -> None:
        def decode() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
            made.append(number)
            return np.full(100, number, np.uint8)

        assert cache.get(number, decode)[0] == number

    for number in (1, 2, 1, 3, 1, 2):
        chunk(number)
    assert made == [1, 2, 3, 2]
    assert cache.find(3) is None
    assert cache.find(1) is not None


def test_two_threads_wait_for_one_decoder() -> None:
    cache, made, gate = ChunkCache(1 << 20), [], threading.Barrier(4)

    def decode() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        made.append(1)
        return np.zeros(10, np.uint8)

    def want(_: int) -> int:
        gate.wait()
        return id(cache.get("key", decode))

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(want, range(4)))
    assert (len(found), made) == (1, [1])


def test_a_decoder_that_fails_leaves_room_for_the_next() -> None:
    cache = ChunkCache(100)
    with pytest.raises(ZeroDivisionError):
        cache.get(0, lambda: np.zeros(1 // 0))
    assert cache.get(0, lambda: np.ones(1))[0] == 1
    assert len(cache) == 1
