"""``theta convert``: between formats, into shards and out of them, and what that costs to commit."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.checks import refused
from tests.support import Repo, make_model, random_tensors
from theta.errors import ChangedWhileReadError, FormatError, NotFoundError
from theta.formats import scan, sharded
from theta.formats.values import Value, values
from theta.porcelain.stage import staging
from theta.porcelain.tensors import converting, sources
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource

DATA = Path(__file__).parents[1] / "formats" / "data"
TENSORS = random_tensors({"a.w": (300, 40), "a.b": (40,), "c": (2, 3, 50), "s": ()}, seed=3)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repository with one committed safetensors file."""
    repo = Repo.create(tmp_path_factory.mktemp("convert") / "repo")
    repo.theta("track", "*.safetensors", "*.npz", "*.pt", "*.gguf")
    make_model(repo.path / "m.safetensors", TENSORS, {"format": "pt", "note": "é"})
    repo.theta("add", ".")
    repo.theta("commit", "-m", "all")
    return repo


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """All tensors of a file of any format, through theta's readers."""
    with FileSource(path) as source:
        found = values(scan(source), source)
        return {name: (v.dtype, v.shape, b"".join(v.chunks())) for name, v in found.items()}


EXPECTED = {name: ("f32", value.shape, value.tobytes()) for name, value in TENSORS.items()}


def convert(repo: Repo, name: str, out: Path) -> None:
    """``theta convert`` without a process."""
    with sources.opened(sources.parse(name, repo.path), repo.path) as model:
        converting.write(model, out)


@pytest.mark.parametrize("suffix", ["npz", "pt", "gguf", "safetensors"])
def test_every_format_holds_the_values(repo: Repo, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    convert(repo, "HEAD:m.safetensors", out)
    assert read(out) == EXPECTED
    back = tmp_path / "back.safetensors"
    convert(repo, str(out), back)
    loaded = load_file(back)
    assert set(loaded) == set(TENSORS)
    assert all((loaded[name] == TENSORS[name]).all() for name in TENSORS)


def test_numpy_opens_what_was_written(repo: Repo, tmp_path: Path) -> None:
    done = repo.theta("convert", "m.safetensors", "-o", str(tmp_path / "m.npz"))
    assert done.stdout == "4 tensors, 49.4 kB: m.npz\n"
    with np.load(tmp_path / "m.npz") as found:
        assert all((found[name] == TENSORS[name]).all() for name in TENSORS)


def test_metadata_goes_along_where_there_is_a_place(repo: Repo, tmp_path: Path) -> None:
    convert(repo, "m.safetensors", tmp_path / "same.safetensors")
    with sources.opened(sources.Named(None, "same.safetensors"), tmp_path) as model:
        assert model.metadata == {"format": "pt", "note": "é"}
    convert(repo, "m.safetensors", tmp_path / "m.pt")
    convert(repo, str(tmp_path / "m.pt"), tmp_path / "back.safetensors")
    with sources.opened(sources.Named(None, "back.safetensors"), tmp_path) as model:
        assert model.metadata == {"format": "pt"}  # without it transformers would refuse the file


def test_a_converted_file_beside_or_instead_of_the_old_one_costs_its_skeleton(tmp_path: Path) -> None:
    """The values are known: only the manifest and what is between the tensors is new."""
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors", "*.npz", "*.pt", "*.gguf")
    make_model(repo.path / "m.safetensors", TENSORS, {"format": "pt"})
    repo.theta("add", ".")
    repo.theta("commit", "-m", "all")
    before = repo.stored_bytes()
    names = [f"beside.{suffix}" for suffix in ("npz", "pt", "gguf", "safetensors")]
    raw = sum(value.nbytes for value in TENSORS.values())
    for name in names:
        convert(repo, "HEAD:m.safetensors", repo.path / name)
    skeletons = {name: (repo.path / name).stat().st_size - raw for name in names}
    session = Session.here(repo.path)
    with session.change():
        for item in staging.add_files(session, names):
            assert item.new == () and item.stored < 4096 + skeletons[item.path], item.path
    repo.theta("commit", "-m", "beside")
    repo.git("rm", "-q", "m.safetensors", *names[1:])
    repo.theta("commit", "-m", "instead")
    assert repo.stored_bytes() - before < 4 * 4096 + sum(skeletons.values())
    repo.theta("restore", "beside.npz")
    assert read(repo.path / "beside.npz") == EXPECTED


def test_shards_and_back(repo: Repo, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    repo.theta("convert", "m.safetensors", "-o", str(out), "--max-shard-size", "2kB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in TENSORS.values())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == sorted(set(index["weight_map"].values())) and len(shards) == 2
    loaded = {k: v for name in shards for k, v in load_file(tmp_path / name).items()}
    assert all((loaded[name] == TENSORS[name]).all() for name in TENSORS)
    repo.theta("convert", str(out) + ".index.json", "-o", str(tmp_path / "back.safetensors"))
    assert read(tmp_path / "back.safetensors") == EXPECTED
    repo.theta("convert", str(out), "-o", str(tmp_path / "again.npz"))
    assert read(tmp_path / "again.npz") == EXPECTED
    (tmp_path / "model.safetensors.index.json").unlink()  # as for split GGUF files, names are enough
    repo.theta("convert", str(out), "-o", str(tmp_path / "names.npz"))
    assert read(tmp_path / "names.npz") == EXPECTED


ONE, TWO = sharded.shard_names(2)


def joined(folder: Path, weight_map: dict[str, str], **files: str) -> dict[str, list[int]]:
    """The model of an index beside ``files``; each letter is a tensor of value 1 or 2, as its file."""
    index = folder / "model.safetensors.index.json"
    index.write_bytes(sharded.write_index(weight_map, 0))
    for number, (name, key) in enumerate(((ONE, "one"), (TWO, "two")), start=1):
        if key in files:
            make_model(folder / name, {letter: np.array([number], np.uint8) for letter in files[key]})
    with sources.opened(sources.Named(None, index.name), folder) as model:
        return {name: list(b"".join(value.chunks())) for name, value in model.values.items()}


def test_shards_are_joined_by_tensor(tmp_path: Path) -> None:
    found = joined(tmp_path, {"a": ONE, "b": TWO, "c": ONE}, one="ac", two="b")
    assert found == {"a": [1], "b": [2], "c": [1]}


def test_tensors_that_the_index_forgot_belong_to_the_model(tmp_path: Path) -> None:
    found = joined(tmp_path, {"a": ONE, "b": TWO}, one="ax", two="ba")
    assert found == {"a": [1], "b": [2], "x": [1]}
    with pytest.raises(FormatError, match="two shards have a tensor 'x'"):
        joined(tmp_path, {"a": ONE, "b": TWO}, one="ax", two="bx")


def test_tied_tensors_are_found_by_either_name(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes((DATA / "values.1.pt").read_bytes())
    found = joined(tmp_path, {"base": "x.bin", "tied": "x.bin"})
    assert found["base"] == found["tied"]


def test_what_the_index_promises_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=ONE):
        joined(tmp_path, {"a": ONE})
    with pytest.raises(FormatError, match="no shard has: 'a'"):
        joined(tmp_path, {"a": ONE}, one="b")


def test_split_gguf_files_are_one_model(repo: Repo, tmp_path: Path) -> None:
    for number, name in enumerate(("a.w", "c"), start=1):
        with sources.opened(sources.parse(f"HEAD:m.safetensors#{name}", repo.path), repo.path) as model:
            converting.write(model, tmp_path / f"q-0000{number}-of-00002.gguf")
    convert(repo, str(tmp_path / "q.gguf"), tmp_path / "one.gguf")
    assert read(tmp_path / "one.gguf") == {name: EXPECTED[name] for name in ("a.w", "c")}


def test_views_are_written_as_programs_see_them(tmp_path: Path) -> None:
    """Transposed, sliced, expanded and tied tensors of torch, whose storages lie otherwise."""
    out = tmp_path / "v.npz"
    kept = ("base", "tied", "transposed", "slice", "expanded", "scalar", "empty", "alone.transposed")
    with FileSource(DATA / "values.1.pt") as source:
        seen = values(scan(source), source)
        base = np.frombuffer(b"".join(seen["base"].chunks()), np.float32).reshape(2, 3)
        converting.write(converting.Model({name: seen[name] for name in kept}, frozenset({"torch"})), out)
    with np.load(out) as found:
        assert (found["transposed"] == base.T).all() and (found["tied"] == base).all()
        assert found["slice"].tolist() == [2, 3, 4]
        assert found["expanded"].tolist() == [1.0] * 5
        assert found["scalar"].shape == () and found["empty"].shape == (0, 3)
        assert found["alone.transposed"].shape == (3, 2)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["m.safetensors", "-o", "m.safetensors"], 14, ["m.safetensors"]),
        (["m.safetensors", "-o", "m.onnx"], 2, ["m.onnx"]),
        (["m.safetensors", "-o", "gone/m.npz"], 13, ["gone"]),
        (["m.safetensors", "-o", "x.npz", "--max-shard-size", "1MB"], 2, ["shards"]),
        (["m.safetensors", "-o", "x.safetensors", "--max-shard-size", "many"], 2, ["many"]),
        (["nothing.pt", "-o", "x.npz"], 13, ["nothing.pt"]),
        (["HEAD:nothing.pt", "-o", "x.npz"], 13, ["nothing.pt"]),
        (["HEAD:m.safetensors#zzz*", "-o", "x.npz"], 13, ["zzz*"]),
        (["code.py", "-o", "x.npz"], 3, ["code.py", "no tensors"]),
        ([str(DATA / "values.1.pt"), "-o", "x.npz"], 3, ["7 of the 31", "kinds.bfloat16", "4 more"]),
        ([str(DATA / "model.1.gguf"), "-o", "x.safetensors"], 3, ["cannot hold 4 of the 12", "quantised"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    repo: Repo, args: list[str], code: int, words: list[str]
) -> None:
    before = sorted(os.listdir(repo.path))
    refused(repo.theta("convert", *args, code=None), code, *words)
    assert sorted(os.listdir(repo.path)) == before


def test_a_failure_leaves_no_shard_behind(tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"1234"
        raise OSError("no more")

    good = Value("u8", (4,), lambda: iter([b"1234"]))
    bad = Value("u8", (8,), broken)
    model = converting.Model({"a": good, "b": bad}, frozenset({"npz"}))
    with pytest.raises(OSError, match="no more"):
        converting.write(model, tmp_path / "m.safetensors", shard_size=4)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_written_to_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors", TENSORS)
    with (
        pytest.raises(ChangedWhileReadError, match=r"m\.safetensors changed"),
        sources.opened(sources.Named(None, path.name), tmp_path) as model,
    ):
        time.sleep(0.02)  # the clock of the file system has ticks of up to 10 ms
        make_model(path, TENSORS)
        converting.write(model, tmp_path / "m.npz")
    assert [item.name for item in tmp_path.iterdir()] == ["m.safetensors"]


def test_memory_is_bounded(tmp_path: Path) -> None:
    data = np.arange(48 * 2**20 // 4, dtype=np.float32)
    path = make_model(tmp_path / "big.safetensors", {"w": data})
    named = sources.Named(None, path.name)
    tracemalloc.start()
    try:
        with sources.opened(named, tmp_path) as model:
            converting.write(model, tmp_path / "big.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20
    with np.load(tmp_path / "big.npz") as found:
        assert (found["w"] == data).all()
