"""``theta add --update-type``: the file becomes the updated model, the commit stores the factors."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.docs.pages import Block
from tests.support import Repo, make_model, random_tensors, read_model, sha256
from theta.errors import NotFoundError, ThetaError, UsageError, WouldOverwriteError
from theta.porcelain.stage import updating
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace.session import Session
from theta.store.read.tensor_records import read_record

BF16 = ml_dtypes.bfloat16
SHAPES = {
    "model.embed.weight": (90, 64),
    "model.q.weight": (96, 80),
    "model.q.bias": (96,),
    "model.up.weight": (128, 80),
    "model.conv.weight": (24, 16, 3, 3),
    "model.step": (2,),
}
Tensors = Mapping[str, NDArray[Any]]


def model(dtype: Any) -> dict[str, NDArray[Any]]:
    tensors = random_tensors(SHAPES, 3, dtype)
    return tensors | {"model.step": np.array([1, 2], np.int64)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One repository with three committed models; tests put them back."""
    repo = Repo.create(tmp_path_factory.mktemp("updates") / "repo")
    repo.theta("track", "*.safetensors")
    for name, dtype in (("f32", np.float32), ("bf16", BF16), ("f16", np.float16)):
        make_model(repo.path / f"{name}.safetensors", model(dtype))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "models")
    return repo


@pytest.fixture
def updated(base: Repo) -> Any:
    """Puts everything back after a test."""
    yield base
    base.git("reset", "-q", "--hard")


def bring(repo: Repo, path: str, kind: str | None, data: Path) -> Added:
    return updating.update(Session.here(repo.path), path, kind, data)


def codecs(repo: Repo, added: Added) -> dict[str, tuple[str, ...]]:
    session = Session.here(repo.path)
    records = {name: read_record(session.objects, added.manifest.by_name[name].tree) for name in added.new}
    return {name: tuple(layer.codec for layer in record.layers) for name, record in records.items()}


def wide(array: NDArray[Any]) -> NDArray[np.float64]:
    return array.astype(np.float64)


def is_sum(
    found: NDArray[Any], old: NDArray[Any], u: NDArray[Any], v: NDArray[Any], scale: float = 1
) -> bool:
    """Return whether ``found`` is ``old + scale * u @ v``, rounded once; the sum here is one in float64."""
    eps, smallest = {
        "float32": (2.0**-23, 2.0**-126),
        "float16": (2.0**-10, 2.0**-14),
        "bfloat16": (2.0**-7, 2.0**-126),
    }[found.dtype.name]
    wanted = wide(old) + scale * wide(u) @ wide(v)
    units = np.ldexp(eps, np.frexp(np.maximum(np.abs(wanted), smallest))[1] - 1)
    return bool((np.abs(wide(found) - wanted) <= 0.5 * units + 2.0**-48).all())


def noise(shape: tuple[int, ...], seed: int, dtype: Any = np.float32, size: float = 0.1) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(0, size, shape).astype(dtype)


@pytest.mark.parametrize("name", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("factors", [np.float32, BF16, np.float16])
def test_factors_with_the_names_of_git_theta(updated: Repo, tmp_path: Path, name: str, factors: Any) -> None:
    r, c = noise((96, 4), 1, factors), noise((4, 80), 2, factors)
    data = make_model(tmp_path / "u.safetensors", {"model.q.weight/R": r, "model.q.weight/C": c})
    path = updated.path / f"{name}.safetensors"
    old = read_model(path)
    added = bring(updated, path.name, "low-rank", data)
    new = read_model(path)
    assert is_sum(new["model.q.weight"], old["model.q.weight"], r, c)
    assert [k for k in old if old[k].tobytes() != new[k].tobytes()] == ["model.q.weight"]
    assert codecs(updated, added) == {"model.q.weight": ("dense/1", "lowrank/1")}
    rows = updated.git("status", "--porcelain").splitlines()
    assert [row for row in rows if ".theta/" not in row] == [f"M  {name}.safetensors"]
    assert all(row[1] == " " for row in rows)


def adapter(place: Path, config: Mapping[str, Any], tensors: Tensors) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(config))
    prefixed = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    make_model(place / "adapter_model.safetensors", prefixed)
    return place


@pytest.mark.parametrize("kind", [None, "low-rank"])
@pytest.mark.parametrize("given", [".", "adapter_model.safetensors"])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_of_peft(
    updated: Repo, tmp_path: Path, rslora: bool, given: str, kind: str | None
) -> None:
    """Its directory, and the file of its weights, whose scale the configuration beside it tells."""
    parts = {
        "model.q.lora_A.weight": noise((4, 80), 1),
        "model.q.lora_B.weight": noise((96, 4), 2),
        "model.up.lora_A.weight": noise((2, 80), 3),
        "model.up.lora_B.weight": noise((128, 2), 4),
        "model.conv.lora_A.weight": noise((2, 16, 3, 3), 5),
        "model.conv.lora_B.weight": noise((24, 2, 1, 1), 6),
        "model.embed.lora_embedding_A": noise((3, 90), 7),
        "model.embed.lora_embedding_B": noise((64, 3), 8),
        "model.q.bias": noise((96,), 9),
    }
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": rslora}
    config |= {"rank_pattern": {"up": 2, "conv": 2, "embed": 3}, "alpha_pattern": {"model.up": 3}}
    place = adapter(tmp_path / "adapter", config, parts)
    old = read_model(updated.path / "bf16.safetensors")
    added = bring(updated, "bf16.safetensors", kind, place / given)
    new = read_model(updated.path / "bf16.safetensors")

    for module, alpha, rank in (("q", 6, 4), ("up", 3, 2), ("conv", 6, 2)):
        b = parts[f"model.{module}.lora_B.weight"].reshape(-1, rank)
        a = parts[f"model.{module}.lora_A.weight"].reshape(rank, -1)
        was, now = (file[f"model.{module}.weight"].reshape(b.shape[0], -1) for file in (old, new))
        assert is_sum(now, was, b, a, alpha / (rank**0.5 if rslora else rank))
    a, b = (parts[f"model.embed.lora_embedding_{letter}"] for letter in "AB")
    scale = 6 / (3**0.5 if rslora else 3)
    assert is_sum(new["model.embed.weight"], old["model.embed.weight"], a.T, b.T, scale)
    assert new["model.q.bias"].tobytes() == parts["model.q.bias"].astype(BF16).tobytes()
    assert {chain[-1] for name, chain in codecs(updated, added).items() if name != "model.q.bias"} == {
        "lowrank/1"
    }


def test_an_adapter_of_a_layer_that_is_stored_transposed(updated: Repo, tmp_path: Path) -> None:
    a, b = noise((4, 96), 1), noise((80, 4), 2)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "fan_in_fan_out": True}
    place = adapter(tmp_path / "a", config, {"q.lora_A.weight": a, "q.lora_B.weight": b})
    old = read_model(updated.path / "f32.safetensors")["model.q.weight"]
    bring(updated, "f32.safetensors", "low-rank", place)
    new = read_model(updated.path / "f32.safetensors")["model.q.weight"]
    assert is_sum(new, old, a.T, b.T)


def test_ia3_of_peft_scales_biases_too(updated: Repo, tmp_path: Path) -> None:
    rows, columns = noise((96, 1), 1, size=1), noise((1, 80), 2, size=1)
    place = adapter(tmp_path / "a", {"peft_type": "IA3"}, {"model.q.ia3_l": rows, "model.up.ia3_l": columns})
    old = read_model(updated.path / "bf16.safetensors")
    added = bring(updated, "bf16.safetensors", "ia3", place)
    new = read_model(updated.path / "bf16.safetensors")
    for name, factors in (("q.weight", rows), ("up.weight", columns), ("q.bias", rows[:, 0])):
        wanted = (wide(old[f"model.{name}"]) * wide(factors)).astype(BF16)
        np.testing.assert_array_equal(new[f"model.{name}"].view(np.uint16), wanted.view(np.uint16))
    assert codecs(updated, added)["model.q.weight"] == ("dense/1", "scaled/1")
    assert codecs(updated, added)["model.up.weight"] == ("dense/1", "scaled/1")


@pytest.mark.parametrize("name", ["f32", "bf16"])
def test_sparse_values_with_the_names_of_git_theta(updated: Repo, tmp_path: Path, name: str) -> None:
    indices = np.array([0, 5, 7679], np.int64)
    data = np.array([1.0, -2.0, 0.25], np.float32)
    parts: Tensors = {
        "data": data,
        "indices": indices,
        "indptr": np.array([0, 3]),
        "shape": np.array([96, 80]),
    }
    file = make_model(
        tmp_path / "u.safetensors", {f"model.q.weight/{key}": part for key, part in parts.items()}
    )
    old = read_model(updated.path / f"{name}.safetensors")["model.q.weight"]
    bring(updated, f"{name}.safetensors", "sparse", file)
    new = read_model(updated.path / f"{name}.safetensors")["model.q.weight"]
    wanted = wide(old).reshape(-1)
    wanted[indices] += data
    np.testing.assert_array_equal(new, wanted.astype(old.dtype).reshape(96, 80))


def test_dense_updates_replace_tensors(updated: Repo, tmp_path: Path) -> None:
    new = noise((96,), 1)
    file = make_model(tmp_path / "u.safetensors", {"model.q.bias": new, "model.step": np.array([3, 4])})
    bring(updated, "f16.safetensors", "dense", file)
    found = read_model(updated.path / "f16.safetensors")
    np.testing.assert_array_equal(found["model.q.bias"], new.astype(np.float16))
    np.testing.assert_array_equal(found["model.step"], [3, 4])


def test_what_does_not_fit_is_listed_and_nothing_changes(updated: Repo, tmp_path: Path) -> None:
    parts = {
        "model.q.weight/R": noise((96, 4), 1),
        "model.q.weight/C": noise((4, 81), 2),
        "model.up.weight/R": noise((96, 4), 1),
        "model.gone.weight/R": noise((96, 4), 1),
        "model.gone.weight/C": noise((4, 80), 1),
        "model.step/R": noise((2, 1), 1),
        "model.step/C": noise((1, 1), 1),
    }
    before = sha256(updated.path / "f32.safetensors")
    with pytest.raises(UsageError) as caught:
        bring(updated, "f32.safetensors", "low-rank", make_model(tmp_path / "u.safetensors", parts))
    assert str(caught.value) == "the update does not fit: model.up.weight: R without the other factor"
    text = "; ".join(caught.value.details)
    assert "model.gone.weight names no tensor" in text
    assert "the checkpoint has names such as model." in text
    assert "model.q.weight is [96, 80], the factors are for [96, 81]" in text
    assert "model.step is i64" in text
    assert "\n" not in text
    assert sha256(updated.path / "f32.safetensors") == before
    assert updated.git("status", "--porcelain") == ""


BAD: list[tuple[str | None, Tensors]] = [
    ("sparse", {"model.q.weight/data": noise((2,), 1), "model.q.weight/indices": np.array([0, 7680])}),
    ("sparse", {"model.q.weight/data": noise((2,), 1), "model.q.weight/indices": np.array([0])}),
    ("sparse", {"model.q.weight/data": noise((2,), 1)}),
    ("ia3", {"model.q.weight/ia3": noise((81,), 1)}),
    ("ia3", {"model.q.weight/ia3": np.full((80,), np.nan, np.float32)}),
    ("ia3", {"model.q.bias": noise((96,), 1)}),
    ("low-rank", {"model.q.bias": noise((96,), 1)}),
    ("dense", {"model.q.bias": noise((97,), 1)}),
    ("dense", {"model.step": noise((2,), 1)}),
    (None, {"model.q.bias": noise((96,), 1)}),
]


@pytest.mark.parametrize(("kind", "parts"), BAD)
def test_what_is_wrong_is_refused(updated: Repo, tmp_path: Path, kind: str | None, parts: Tensors) -> None:
    file = make_model(tmp_path / "u.safetensors", parts)
    with pytest.raises(UsageError):
        bring(updated, "f32.safetensors", kind, file)
    assert updated.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "PREFIX_TUNING"},
        {"peft_type": "LORA", "use_dora": True},
        {"peft_type": "LORA", "r": 4, "rank_pattern": {"q": 5}},
        {"peft_type": "LORA", "alpha_pattern": {"(": 5}},
        {"peft_type": "LORA", "lora_alpha": float("nan")},
        {"peft_type": "LORA", "lora_alpha": "much"},
        {"peft_type": "IA3"},
        [],
    ],
)
def test_adapters_that_cannot_be_merged(updated: Repo, tmp_path: Path, config: Any) -> None:
    parts = {"model.q.lora_A.weight": noise((4, 80), 1), "model.q.lora_B.weight": noise((96, 4), 2)}
    with pytest.raises(UsageError):
        bring(updated, "f32.safetensors", None, adapter(tmp_path / "a", config, parts))
    assert updated.git("status", "--porcelain") == ""


def test_the_named_file_of_two_is_read(updated: Repo, tmp_path: Path) -> None:
    """PEFT itself takes the safetensors of a folder, and so does a folder that is named."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    b, a = noise((96, 4), 2), noise((4, 80), 1)
    place = adapter(tmp_path / "a", config, {"model.q.lora_A.weight": a, "model.q.lora_B.weight": 3 * b})
    other = adapter(tmp_path / "b", config, {"model.q.lora_A.weight": a, "model.q.lora_B.weight": b})
    shutil.copy(other / "adapter_model.safetensors", place / "adapter_model.bin")
    old = read_model(updated.path / "f32.safetensors")["model.q.weight"]
    bring(updated, "f32.safetensors", None, place / "adapter_model.bin")
    assert is_sum(read_model(updated.path / "f32.safetensors")["model.q.weight"], old, b, a, 2.0)


@pytest.mark.parametrize("given", [".", "adapter_model.safetensors"])
def test_factors_of_peft_without_their_configuration_have_no_scale(
    updated: Repo, tmp_path: Path, given: str
) -> None:
    parts = {"model.q.lora_A.weight": noise((4, 80), 1), "model.q.lora_B.weight": noise((96, 4), 2)}
    place = adapter(tmp_path / "a", {"peft_type": "LORA", "r": 4}, parts)
    (place / "adapter_config.json").unlink()
    with pytest.raises(UsageError, match=r"has no adapter_config\.json, which has the scale"):
        bring(updated, "f32.safetensors", "low-rank", place / given)
    assert updated.git("status", "--porcelain") == ""


def test_only_a_committed_checkpoint_is_updated(updated: Repo, tmp_path: Path) -> None:
    file = make_model(tmp_path / "u.safetensors", {"model.q.bias": noise((96,), 1)})
    make_model(updated.path / "new.safetensors", model(np.float32))
    with pytest.raises(NotFoundError):
        bring(updated, "new.safetensors", "dense", file)
    (updated.path / "new.safetensors").unlink()
    changed = model(np.float32) | {"model.q.bias": noise((96,), 5)}
    before = sha256(make_model(updated.path / "f32.safetensors", changed))
    for _ in range(2):
        with pytest.raises(WouldOverwriteError):
            bring(updated, "f32.safetensors", "dense", file)
        updated.theta("add", "f32.safetensors")
    assert sha256(updated.path / "f32.safetensors") == before


def test_a_commit_of_an_update_is_its_factors(updated: Repo, tmp_path: Path) -> None:
    factors = {"big/R": noise((768, 8), 1, BF16), "big/C": noise((8, 768), 2, BF16)}
    file = make_model(tmp_path / "u.safetensors", factors)
    path = updated.path / "big.safetensors"
    make_model(path, random_tensors({"big": (768, 768)}, 1, BF16))
    updated.theta("add", "big.safetensors")
    updated.theta("commit", "-q", "-m", "big")
    before = updated.stored_bytes()
    updated.theta("add", "--update-type", "low-rank", "--update-data", str(file), "big.safetensors")
    digest = sha256(path)
    updated.theta("commit", "-q", "-m", "update")
    index = 1200  # of the new pack, which is not content
    assert updated.stored_bytes() - before <= 1.1 * sum(t.nbytes for t in factors.values()) + index
    path.unlink()
    updated.theta("restore", "big.safetensors")
    assert sha256(path) == digest


def test_the_command_line_says_what_it_wants(updated: Repo, tmp_path: Path) -> None:
    file = make_model(tmp_path / "u.safetensors", {"model.q.bias": noise((96,), 1)})
    for args in (
        ["--update-type", "magic", "--update-data", str(file), "f32.safetensors"],
        ["--update-type", "dense", "f32.safetensors"],
        ["--update-type", "dense", "--update-data", str(file), "f32.safetensors", "f16.safetensors"],
        ["--update-type", "dense", "--update-data", str(file), "-A", "f32.safetensors"],
    ):
        done = updated.theta("add", *args, code=2)
        assert done.stderr.startswith("error: ")
        assert "hint" in done.stderr or "one model" in done.stderr
    updated.theta("add", "--update-type", "dense", "--update-data", "nowhere", "f32.safetensors", code=13)


def test_an_update_that_changes_nothing(updated: Repo, tmp_path: Path) -> None:
    bias = read_model(updated.path / "f32.safetensors")["model.q.bias"]
    added = bring(
        updated, "f32.safetensors", "dense", make_model(tmp_path / "u.safetensors", {"model.q.bias": bias})
    )
    assert added.new == ()
    assert updated.git("status", "--porcelain") == ""


def test_errors_are_those_of_theta(updated: Repo, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00" * 100)
    with pytest.raises(ThetaError):
        bring(updated, "f32.safetensors", "low-rank", tmp_path / "garbage")


def test_how_tensors_are_stored_is_shown(updated: Repo, tmp_path: Path) -> None:
    data = make_model(
        tmp_path / "u.safetensors",
        {"model.q.weight/R": noise((96, 4), 1), "model.q.weight/C": noise((4, 80), 2)},
    )
    bring(updated, "bf16.safetensors", "low-rank", data)
    updated.git("commit", "-q", "-m", "adapter")
    try:
        rows = json.loads(updated.theta("show", "--codecs", "--json", "HEAD:bf16.safetensors").stdout)
        found = {row["tensor"]: row for row in rows["theta.codecs/v1"]}
        assert sorted(found) == sorted(SHAPES)
        layers = found["model.q.weight"]["layers"]
        assert [(layer["codec"], layer["base"]) for layer in layers] == [("dense/1", None), ("lowrank/1", 0)]
        assert found["model.q.weight"]["stored"] == sum(layer["stored"] for layer in layers)
        assert found["model.q.weight"]["bytes"] == 2 * 96 * 80
        table = updated.theta("show", "--codecs", "HEAD:bf16.safetensors").stdout
        assert "dense + lowrank" in table
        assert f"{len(SHAPES)} tensors" in table
        one = updated.theta("show", "--codecs", "HEAD:bf16.safetensors#model.q.bias").stdout
        assert "model.q.bias" in one
        assert "model.up" not in one
        updated.theta("show", "--codecs", "HEAD:bf16.safetensors#nothing", code=13)
        updated.theta("show", "--codecs", "HEAD:code.py", code=13)
        updated.theta("show", "--codecs", "HEAD", code=2)
    finally:
        updated.git("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.page("storage", "console")
def test_the_page_on_storage_has_commands_that_run(updated: Repo, page_blocks: list[Block]) -> None:
    commands = [line for block in page_blocks for line in block.commands]
    assert len(commands) == 3
    make_model(updated.path / "model.safetensors", model(np.float32))
    parts = {"model.q.lora_A.weight": noise((4, 80), 1), "model.q.lora_B.weight": noise((96, 4), 2)}
    adapter(updated.path / "adapter", {"peft_type": "LORA", "r": 4}, parts)
    updated.theta("add", "model.safetensors")
    updated.theta("commit", "-q", "-m", "model")
    for command in commands:
        printed = updated.theta(*shlex.split(command)[1:]).stdout
    assert "dense + lowrank" in printed
    shutil.rmtree(updated.path / "adapter")
    updated.git("reset", "-q", "--hard", "HEAD~2")


def test_many_names_of_no_tensor_are_one_short_line(updated: Repo, tmp_path: Path) -> None:
    """Twelve modules that the checkpoint lacks made an error of twelve clauses."""
    parts: dict[str, Any] = {}
    for k in range(12):
        parts |= {f"h.{k}.attn.weight/R": noise((96, 4), k), f"h.{k}.attn.weight/C": noise((4, 80), k)}
    parts |= {"model.q.weight/R": noise((96, 4), 1), "model.q.weight/C": noise((4, 7), 2)}
    make_model(tmp_path / "u.safetensors", parts)
    line = ("--update-type", "low-rank", "--update-data", str(tmp_path / "u.safetensors"))
    done = updated.theta("add", "f32.safetensors", *line, code=2)
    error, *hints = done.stderr.rstrip("\n").split("\n")
    head = "error: the update does not fit: h.0.attn.weight, h.1.attn.weight, h.2.attn.weight"
    assert error == f"{head} and 9 more: each names no tensor"
    assert all(one.startswith("hint: ") for one in hints)
    assert "the checkpoint has names such as model." in hints[0]
    assert any("the factors are for [96, 7]" in one for one in hints)
    assert hints[-1] == "hint: nothing was changed"
