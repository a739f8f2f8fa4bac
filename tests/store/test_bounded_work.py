"""D2: what a repository may make a reader do is bounded by the size of the file that comes of it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.store.test_skeleton import tree
from tests.store.test_snapshot import Store
from tests.support import Repo, make_model, random_tensors
from theta.codecs import dense, rows
from theta.errors import CodecError, CorruptError, FormatError, NewerFormatError
from theta.formats.fields import Derived, _Ranks, check_fields
from theta.formats.layout import BytesSource
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.format import skeleton, tensor_tree
from theta.store.format.tensor_tree import Chunk, Layer, Record
from theta.store.odb.objects import Objects
from theta.store.read import layers
from theta.store.read.coming_file import Memory
from theta.store.read.layers import Budget
from theta.store.read.reassembly import Restorer
from theta.store.read.stored_tensor import StoredTensor


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    repo = Repo.create(tmp_path_factory.mktemp("work") / "repo")
    return Objects(Repository.discover(repo.path))


def test_d2_many_fields_over_the_whole_file_are_refused_at_once(objects: Objects) -> None:
    size = 16 << 20
    count = 100_000
    rows_ = "".join(f"derived 4 crc32 little {n} {4 * count}+{size - 4 * count}\n" for n in range(count))
    table = f"theta skeleton 1\n{rows_}extent {size - 4 * count} w\n"
    start = time.process_time()
    with pytest.raises(CorruptError, match="100000 derived fields read"):
        skeleton.read(objects, tree(objects, table_0000=table.encode()))
    assert time.process_time() - start < 10


def test_d2_an_operation_of_a_newer_theta_is_named(objects: Objects) -> None:
    table = b"theta skeleton 1\nextent 8 w\nderived 4 sha1 little 0 0+8\n"
    with pytest.raises(NewerFormatError, match="'sha1', which is newer than this theta"):
        skeleton.read(objects, tree(objects, table_0000=table))


def test_d2_honest_files_pass() -> None:
    """A zip of thousands of members: a CRC over each, its copy, and a digest of all CRCs."""
    fields, offset, size = [], 0, 5000 * 4096
    for _ in range(5000):
        fields.append(Derived("crc32", offset + 4000, 4, ((offset, 4000),), "little"))
        fields.append(Derived("copy", offset + 4004, 4, ((offset + 4000, 4),), "little"))
        offset += 4096
    words = tuple((n * 4096 + 4000, 4) for n in range(5000))
    fields.append(Derived("fold-decimal", size, 20, words, "little"))
    check_fields(size + 20, (), tuple(fields))


@pytest.mark.parametrize("seed", range(5))
def test_d2_the_highest_rank_of_a_range(seed: int) -> None:
    found = np.random.default_rng(seed).permutation(5000).tolist()
    ranks = _Ranks(found)
    for start, stop in np.random.default_rng(seed).integers(0, 5001, (200, 2)).tolist():
        assert ranks.highest(start, stop) == max(found[start:stop], default=-1)


def test_d2_a_copy_of_nothing_is_refused() -> None:
    check_fields(8, (), (Derived("copy", 4, 4, ((0, 4),), "little"),))
    with pytest.raises(FormatError, match="copy has 0 bytes"):
        check_fields(8, (), (Derived("copy", 4, 0, ((0, 0),), "little"),))


def test_d2_fields_that_wait_for_later_ones_are_refused() -> None:
    early = Derived("crc32", 0, 4, ((4, 4),), "little")
    late = Derived("crc32", 4, 4, ((8, 4),), "little")
    check_fields(12, (), (late, early))
    with pytest.raises(FormatError, match="computed later"):
        check_fields(12, (), (early, late))


def test_d2_decoding_is_bounded() -> None:
    budget = Budget(1 << 20)
    budget.spend(layers.SLACK)
    budget.spend(layers.MOST_DECODED << 20)
    with pytest.raises(CodecError, match="too much work"):
        budget.spend(1)


def test_d2_rows_that_come_from_everywhere_end(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small value, each row of it from another chunk of a base of zeros, which costs nothing to store."""
    monkeypatch.setattr(layers, "SLACK", 16 << 20)
    chunk = tensor_tree.CHUNK
    count, width = 64, 1 << 18
    payload = dense.encode(bytes(chunk), "u8")
    per = chunk // width
    sources = np.arange(count, dtype=np.int64) * per
    pack = objects.writer()
    zero = pack.blob(payload)
    files = {tensor_tree.file_name(0, number): zero for number in range(count)}
    files[tensor_tree.shared_name(1)] = pack.blob(bytes(rows._pack(sources)))
    shape = (count, width)
    chunks = tuple(Chunk(n, bytes(32)) for n in tensor_tree.chunk_lengths("u8", shape))
    for number in range(len(chunks)):
        files[tensor_tree.file_name(1, number)] = pack.blob(b"")
    pack.finish()
    objects.refresh()
    stack = (Layer("dense/1", None, "u8", (count * per, width)), Layer("rows/1", 0, "u8", shape))
    record = Record("u8", shape, stack, chunks, files)
    view = layers.top(objects, record, Budget(0))
    with pytest.raises(CodecError, match="too much work"):
        for number in range(len(chunks)):
            view.chunk(number)


def test_d2_a_skeleton_that_could_not_be_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose literal bytes pass the limit of readers is stored as plain bytes."""
    header = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + b"abcd"
    assert file_scan.scan(BytesSource(data), None, None).layout.format == "safetensors"
    monkeypatch.setattr(skeleton, "_MAX_LITERAL", 16)
    found = file_scan.scan(BytesSource(data), None, None)
    assert (found.layout.format, found.note != "") == ("opaque", True)


def test_d2_layers_that_declare_too_much_are_refused_before_a_byte_is_decoded(objects: Objects) -> None:
    """A row of a base of 64 GiB of zeros."""
    shape = (1, 1 << 18)
    base, top = Layer("dense/1", None, "u8", (1 << 18, 1 << 18)), Layer("rows/1", 0, "u8", shape)
    record = Record("u8", shape, (base, top), (Chunk(1 << 18, bytes(32)),), {})
    assert layers.declared(record.layers) == (1 << 36) + (1 << 18)
    with pytest.raises(CodecError, match="too much work"):
        layers.top(objects, record)


def test_d2_a_file_of_too_many_tensors_is_refused_before_it_is_begun(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor is within its bound, all of them together are not."""
    names = [f"t{number}" for number in range(8)]
    model = make_model(tmp_path / "m", random_tensors(dict.fromkeys(names, (1000,))))
    manifest = Store(objects).put(model.read_bytes())
    monkeypatch.setattr(layers, "MOST_DECODED", 0)
    monkeypatch.setattr(layers, "SLACK", 4 * 4000)
    assert StoredTensor(objects, manifest.lines[0]).whole().words.nbytes == 4000
    restorer = Restorer(objects, manifest)
    target = Memory(restorer.plan)
    empty = bytes(target.content)
    with pytest.raises(CodecError, match="too much work"):
        restorer.write(target)
    assert target.content == empty
    monkeypatch.setattr(target, "holds", lambda line: line.name in names[:4])
    restorer.write(target)
    monkeypatch.setattr(layers, "SLACK", 8 * 4000)
    assert restorer.data() == model.read_bytes()


@pytest.mark.parametrize(("kept", "codec"), [(1 << 13, "rows/1"), (1 << 12, "dense/1")])
def test_d2_no_tensor_that_theta_stores_declares_too_much(objects: Objects, kept: int, codec: str) -> None:
    """A few rows are left of a tensor of zeros, which as a base costs nothing to read."""
    width = 64
    old = np.zeros(((1 << 18) - kept, width), np.uint8)
    rest = np.random.default_rng(3).integers(0, 255, (kept, width), np.uint8)
    store = Store(objects)
    store.put(safetensors_of(np.concatenate([old, rest])))
    new = safetensors_of(rest)
    manifest = store.put(new)
    assert store.get(manifest) == new
    assert StoredTensor(objects, manifest.lines[0]).record.layers[-1].codec == codec


def safetensors_of(tensor: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    rows, width = tensor.shape
    header = f'{{"t":{{"dtype":"U8","shape":[{rows},{width}],"data_offsets":[0,{tensor.nbytes}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + tensor.tobytes()
