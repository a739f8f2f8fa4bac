"""An adapter on a model in shards, and several adapters at once: names are found across files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.formats import sharded
from theta.porcelain.stage import named_models
from theta.porcelain.workspace.session import Session

INDEX = "llama/model.safetensors.index.json"
NAMES = sharded.shard_names(3)
"""The shards: model-00001-of-00003.safetensors and so on."""


def weight(number: int) -> NDArray[Any]:
    """The matrix of a layer."""
    return np.random.default_rng(number).standard_normal((48, 32)).astype("f4")


def factors(number: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A (4 x 32) and B (48 x 4) of a layer."""
    rng = np.random.default_rng([number, seed])
    a, b = (0.1 * rng.standard_normal(shape) for shape in ((4, 32), (48, 4)))
    return a.astype("f4"), b.astype("f4")


def adapter(place: Path, layers: range, seed: int, alpha: float = 8) -> Path:
    """Write a PEFT adapter for these layers."""
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": alpha}))
    found = {}
    for number in layers:
        a, b = factors(number, seed)
        found[f"base_model.model.layers.{number}.q.lora_A.weight"] = a
        found[f"base_model.model.layers.{number}.q.lora_B.weight"] = b
    make_model(place / "adapter_model.safetensors", found)
    return place


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A committed model of six layers in three shards, with its index, beside another model."""
    repo = Repo.create(tmp_path_factory.mktemp("shards") / "repo")
    repo.theta("track", "*.safetensors")
    places = {f"layers.{n}.q.weight": NAMES[n // 2] for n in range(6)}
    for shard in NAMES:
        tensors = {name: weight(int(name.split(".")[1])) for name, at in places.items() if at == shard}
        make_model(repo.path / "llama" / shard, tensors)
    (repo.path / INDEX).write_bytes(sharded.write_index(places, 6 * 48 * 32 * 4))
    make_model(repo.path / "other.safetensors", {"layers.0.q.weight": weight(9)})
    repo.theta("add", ".")
    repo.theta("commit", "-qm", "a model")
    return repo


@pytest.fixture
def base(template: Repo, tmp_path: Path) -> Repo:
    """A copy of that repository."""
    return template.copy(tmp_path / "repo")


def layers(repo: Repo) -> dict[int, NDArray[Any]]:
    """The matrices in the files, by layer."""
    found = {}
    for shard in NAMES:
        for name, value in read_model(repo.path / "llama" / shard).items():
            found[int(name.split(".")[1])] = value
    return found


@pytest.mark.parametrize("named", [INDEX, "llama", "llama/", "llama/model.safetensors", "llama/*-of-*"])
def test_c1_an_adapter_of_a_model_in_shards(base: Repo, tmp_path: Path, named: str) -> None:
    """Every real 7B is sharded, and no way of naming it took an adapter."""
    place = adapter(tmp_path / "adapter", range(1, 4), 0)
    before = {shard: (base.path / "llama" / shard).read_bytes() for shard in NAMES}
    base.theta("add", named, "--update-data", str(place))
    found = layers(base)
    for number in range(6):
        a, b = factors(number, 0)
        wanted = weight(number).astype("f8") + (2.0 * b.astype("f8") @ a if number in range(1, 4) else 0)
        close = 6e-8 * np.abs(wanted).max() if number in range(1, 4) else 0
        np.testing.assert_allclose(found[number], wanted, rtol=0, atol=close)
    assert (base.path / "llama" / NAMES[2]).read_bytes() == before[NAMES[2]]
    base.theta("commit", "-qm", "with the adapter")
    assert base.git("status", "--porcelain") == ""
    changed = base.git("diff", "--name-only", "HEAD~", "--", ":!.theta").splitlines()
    assert changed == [f"llama/{NAMES[0]}", f"llama/{NAMES[1]}"]
    base.theta("fsck", "--read-data")


def test_c1_a_name_in_no_shard_changes_none(base: Repo, tmp_path: Path) -> None:
    place = adapter(tmp_path / "adapter", range(4, 8), 0)
    said = base.theta("add", "llama", "--update-data", str(place), code=2).stderr
    assert "layers.6.q" in said
    assert base.git("status", "--porcelain") == ""
    assert "2 models" in base.theta("add", ".", "--update-data", str(place), code=2).stderr


def test_shards_under_other_names_are_those_of_the_index(base: Repo) -> None:
    for number, shard in enumerate(NAMES):
        base.git("mv", f"llama/{shard}", f"llama/part{number}.safetensors")
    text = (base.path / INDEX).read_text()
    for number, shard in enumerate(NAMES):
        text = text.replace(shard, f"part{number}.safetensors")
    base.write(INDEX, text)
    wanted = [f"llama/part{number}.safetensors" for number in range(3)]
    assert named_models.files_of(Session.here(base.path), INDEX) == wanted
    base.write(INDEX, "{")
    assert named_models.files_of(Session.here(base.path), INDEX) == [INDEX]


def test_several_adapters_are_added_up_with_weights(base: Repo, tmp_path: Path) -> None:
    """The sum is that of PEFT's ``add_weighted_adapter(combination_type="cat")``, rounded once."""
    places = [adapter(tmp_path / "one", range(3), 1), adapter(tmp_path / "two", range(2, 6), 2, alpha=4)]
    data = [word for place in places for word in ("--update-data", str(place))]
    base.theta("add", "llama", *data, "--weight", "0.7", "--weight", "-0.25")
    found = layers(base)
    for number in range(6):
        total = weight(number).astype("f8")
        for seed, share, scale, those in ((1, 0.7, 2.0, range(3)), (2, -0.25, 1.0, range(2, 6))):
            a, b = factors(number, seed)
            total += share * scale * (b.astype("f8") @ a.astype("f8")) if number in those else 0
        np.testing.assert_allclose(found[number], total, rtol=0, atol=1.5e-7 * np.abs(total).max())
    base.theta("commit", "-qm", "both")
    assert base.git("status", "--porcelain") == ""


def test_updates_without_a_sum_are_refused(base: Repo, tmp_path: Path) -> None:
    name = "layers.0.q.weight"
    whole = [make_model(tmp_path / f"{n}.safetensors", {name: weight(20 + n)}) for n in range(2)]
    data = [word for place in whole for word in ("--update-data", str(place))]
    kind = ("--update-type", "dense")
    assert "different values" in base.theta("add", "other.safetensors", *kind, *data, code=2).stderr
    one = ("--update-data", str(whole[0]), "--weight", "0.5")
    assert "counts wholly" in base.theta("add", "other.safetensors", *kind, *one, code=2).stderr
    for bad in ("nan", "inf"):
        said = base.theta("add", "other.safetensors", *kind, *one[:3], bad, code=2).stderr
        assert "a finite number" in said
    one_each = base.theta("add", "other.safetensors", *kind, *data, "--weight", "1", code=2).stderr
    assert "1 weights for 2 updates" in one_each
    assert base.git("status", "--porcelain") == ""
