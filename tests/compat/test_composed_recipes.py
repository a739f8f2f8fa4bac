"""``theta merge --recipe`` with recipes of mergekit that compose a model: slices, documents of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import copied, merge_recipe, theta
from tests.support import Repo, make_model, read_model

MODEL, CONFIG = "model.safetensors", "config.json"
LAYERS, WIDTH = 4, 8
Tensors = dict[str, NDArray[Any]]


def tensors(seed: int, layers: int = LAYERS) -> Tensors:
    """The tensors of a small model, whose names are those of Llama."""
    random = np.random.default_rng(seed)
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    parts = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
    names += [f"model.layers.{number}.{part}" for number in range(layers) for part in parts]
    shapes = {name: (WIDTH,) if "norm" in name else (WIDTH, WIDTH) for name in names}
    return {name: random.standard_normal(shapes[name]).astype(np.float32) for name in names}


def config(layers: int = LAYERS, **more: object) -> dict[str, object]:
    """The configuration of such a model."""
    kinds = [f"kind {number}" for number in range(layers)]
    return {"model_type": "llama", "num_hidden_layers": layers, "layer_types": kinds, **more}


def saved(repo: Repo, found: Mapping[str, NDArray[Any]], settings: Mapping[str, object], name: str) -> None:
    """Commit a model and its configuration."""
    make_model(repo.path / MODEL, dict(found))
    repo.write(CONFIG, json.dumps(settings))
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches main, and b and c off it, each with a model of its own."""
    repo = Repo.create(tmp_path_factory.mktemp("models") / "repo")
    theta(repo, "track", "*.safetensors")
    saved(repo, tensors(0), config(author="main"), "main")
    for number, name in enumerate(("b", "c"), 1):
        theta(repo, "switch", "-q", "-c", name, "main")
        saved(repo, tensors(number), config(author=name), name)
    theta(repo, "switch", "-q", "main")
    return repo


@pytest.fixture
def repo(models: Repo, tmp_path: Path) -> Repo:
    """A copy with main checked out."""
    return copied(models, tmp_path / "repo")


def written(repo: Repo) -> Tensors:
    return read_model(repo.path / MODEL)


def settings(repo: Repo) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo.path / CONFIG).read_bytes())
    return found


def assert_again(repo: Repo) -> None:
    """The commit is whole, and its trailer gives the same tree."""
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "fsck")


def part(number: int, found: Tensors) -> list[NDArray[Any]]:
    """The tensors of one layer."""
    return [found[name] for name in sorted(found) if f".layers.{number}." in name]


STACK = """
merge_method: passthrough
slices:
  - sources: [{model: main, layer_range: [0, 3]}]
  - sources: [{model: b, layer_range: [1, 4]}]
"""


def test_layers_of_two_models_become_a_stack(repo: Repo) -> None:
    """d_slices: layers are renumbered, the head is that of the last slice, and config.json follows."""
    merge_recipe(repo, STACK)
    one, other, found = tensors(0), tensors(1), written(repo)
    origins = [part(n, one) for n in range(3)] + [part(n, other) for n in range(1, 4)]
    for number, origin in enumerate(origins):
        assert all(map(np.array_equal, part(number, found), origin)), number
    assert len(found) == 3 + 6 * 3
    assert np.array_equal(found["model.embed_tokens.weight"], one["model.embed_tokens.weight"])
    for name in ("model.norm.weight", "lm_head.weight"):
        assert np.array_equal(found[name], other[name])
    told = settings(repo)
    assert (told["num_hidden_layers"], told["author"]) == (6, "main")
    assert told["layer_types"] == [f"kind {number}" for number in (0, 1, 2, 1, 2, 3)]
    assert repo.git("rev-parse", "HEAD^1", "HEAD^2") == repo.git("rev-parse", "HEAD~1", "b")
    assert_again(repo)


def test_a_model_is_stacked_on_itself_and_shares_what_is_stored(repo: Repo) -> None:
    """d_depth_upscaling: the commit has one parent, and no tensor is stored again."""
    again = STACK.replace("model: b", "model: main").replace("[1, 4]", "[2, 4]")
    before = repo.git("rev-parse", "HEAD")
    rows = json.loads(merge_recipe(repo, again, "--dry-run", "--json"))["theta.merge/v1"]["checkpoints"][
        MODEL
    ]
    assert {(row["state"], row["stored"]) for row in rows} == {("taken", 0)}
    assert repo.git("rev-parse", "HEAD") == before
    merge_recipe(repo, again)
    assert repo.git("rev-parse", "HEAD^@") == before
    assert settings(repo)["num_hidden_layers"] == 5
    assert_again(repo)


def test_a_slice_that_is_not_the_whole_model_is_cut_out(repo: Repo) -> None:
    """d_slices: the only slice of a recipe is no whole model where the model has more layers."""
    merge_recipe(repo, "merge_method: passthrough\nslices: [{sources: [{model: main, layer_range: [0, 2]}]}]")
    assert (len(written(repo)), settings(repo)["num_hidden_layers"]) == (3 + 2 * 3, 2)


def test_parameters_of_slices_and_of_sources_go_before_those_of_all(repo: Repo) -> None:
    """d_slices: gradients run over the layers of each slice, and a filter scales a part of one source."""
    merge_recipe(
        repo,
        """
merge_method: linear
dtype: bfloat16
out_dtype: float32
slices:
  - sources:
      - {model: main, layer_range: [0, 2], parameters: {weight: 1}}
      - {model: b, layer_range: [2, 4]}
    parameters: {weight: [1, 3], normalize: true}
  - sources: [{model: c, layer_range: [3, 4]}, {model: main, layer_range: [0, 1]}]
parameters: {weight: 0.5, normalize: false}
""",
    )
    a, b, c, found = tensors(0), tensors(1), tensors(2), written(repo)
    assert settings(repo)["torch_dtype"] == "float32"
    assert np.allclose(part(0, found)[1], (part(0, a)[1] + part(2, b)[1]) / 2, atol=1e-6)
    assert np.allclose(part(1, found)[1], (part(1, a)[1] + 3 * part(3, b)[1]) / 4, atol=1e-6)
    assert np.allclose(part(2, found)[1], (part(3, c)[1] + part(0, a)[1]) / 2, atol=1e-6)
    assert np.allclose(found["lm_head.weight"], (c["lm_head.weight"] + a["lm_head.weight"]) / 2, atol=1e-6)


def test_the_only_source_of_a_slice_is_scaled_by_filters(repo: Repo) -> None:
    """d_depth_upscaling: new blocks begin as the identity where their output is scaled to zero."""
    merge_recipe(
        repo,
        f"{STACK.rstrip()}\n    parameters: {{scale: [{{filter: up_proj, value: 0}}, {{value: 1}}]}}\n",
    )
    found = written(repo)
    up = "model.layers.{}.mlp.up_proj.weight"
    assert not found[up.format(4)].any()
    assert found[up.format(1)].any()


def test_filters_of_an_input_see_the_names_of_its_own_model(repo: Repo) -> None:
    """d_slices: a layer of a source has its own number there, and filters of all inputs see that too."""
    merge_recipe(
        repo,
        """
merge_method: linear
slices:
  - sources:
      - {model: main, layer_range: [0, 2]}
      - {model: b, layer_range: [2, 4], parameters: {weight: [{filter: layers.2., value: 3}]}}
parameters: {weight: [{filter: layers.3., value: 4}, {filter: layers.1., value: 2}, {value: 1}]}
""",
    )
    a, b, found = tensors(0), tensors(1), written(repo)
    assert np.allclose(part(0, found)[1], (part(0, a)[1] + 3 * part(2, b)[1]) / 4, atol=1e-6)
    assert np.allclose(part(1, found)[1], (2 * part(1, a)[1] + 4 * part(3, b)[1]) / 6, atol=1e-6)
    assert_again(repo)


def test_the_base_of_a_slice_is_the_source_of_its_name(repo: Repo) -> None:
    """d_slices: task vectors are differences to the layers of the base in the same slice."""
    merge_recipe(
        repo,
        """
merge_method: task_arithmetic
base_model: main
slices:
  - sources:
      - {model: b, layer_range: [1, 3], parameters: {weight: 0.5}}
      - {model: main, layer_range: [0, 2]}
""",
    )
    a, b, found = tensors(0), tensors(1), written(repo)
    assert np.allclose(part(1, found)[1], (part(1, a)[1] + part(2, b)[1]) / 2, atol=1e-6)


DOCUMENTS = """
name: half
merge_method: linear
models: [{model: main}, {model: b}]
---
merge_method: task_arithmetic
base_model: main
models:
  - {model: half, parameters: {weight: 2}}
  - {model: c, parameters: {weight: 0.5}}
---
"""


def test_a_document_uses_the_result_of_another(repo: Repo) -> None:
    """d_multi: the names of documents are models, and only the last result is committed."""
    merge_recipe(repo, DOCUMENTS)
    a, b, c, found = tensors(0), tensors(1), tensors(2), written(repo)
    for name, value in found.items():
        half = (a[name] + b[name]) / 2
        assert np.allclose(value, a[name] + 2 * (half - a[name]) + (c[name] - a[name]) / 2, atol=1e-5)
    assert len(repo.git("rev-parse", "HEAD^@").split()) == 3
    assert_again(repo)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (STACK.replace("[1, 4]", "[1, 5]"), "has 4 layers, and layer_range [1, 5] is not in it"),
        (STACK.replace("[1, 4]", "[4, 1]"), "layer_range is [FIRST, END]"),
        (STACK.replace("model: b", "model: nowhere"), "nowhere"),
        (DOCUMENTS.replace("model: main}, {model: b}", "model: half}, {model: b}"), "made from itself"),
        (DOCUMENTS.replace("model: half", "model: b"), "the result half is used by no other"),
        (DOCUMENTS.replace("name: half\n", ""), "need a name of their own"),
        (f"{STACK}modules: {{}}\nwat: 1\n", "modules is not supported"),
        (f"{STACK}modules: {{}}\nwat: 1\n", "unknown key 'wat'"),
    ],
)
def test_what_no_model_can_be_made_of_is_told_and_nothing_is_changed(
    repo: Repo, recipe: str, told: str
) -> None:
    before = repo.git("rev-parse", "HEAD")
    assert told in merge_recipe(repo, recipe, code=13 if "nowhere" in recipe else 2)
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == (before, "")


def test_other_files_are_merged_and_what_is_not_committed_stays(repo: Repo) -> None:
    """A file of the other branch comes along; one that is not committed is never overwritten."""
    theta(repo, "switch", "-q", "b")
    repo.write("notes.txt", "of b")
    repo.git("add", "notes.txt")
    repo.git("commit", "-q", "-m", "notes")
    theta(repo, "switch", "-q", "main")
    repo.write("notes.txt", "mine")
    assert "notes.txt" in merge_recipe(repo, STACK, code=14)
    assert (repo.path / "notes.txt").read_text() == "mine"
    assert settings(repo)["num_hidden_layers"] == LAYERS
    (repo.path / "notes.txt").unlink()
    merge_recipe(repo, STACK, "-m", "stacked")
    assert (repo.path / "notes.txt").read_text() == "of b"
    assert repo.git("log", "-1", "--format=%s") == "stacked"


def test_a_model_in_shards_keeps_them(repo: Repo) -> None:
    """d_slices: each tensor stays in the file of its source, and the index names all of them."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (repo.path / MODEL).unlink()
    found = tensors(0)
    late = {name: value for name, value in found.items() if ".3." in name or "norm.w" in name}
    for name, own in zip(names, ({k: found[k] for k in found.keys() - late.keys()}, late), strict=True):
        make_model(repo.path / name, own)
    index = "model.safetensors.index.json"
    repo.write(index, json.dumps({"metadata": {"total_size": 1}, "weight_map": {}}))
    repo.git("add", "-A")
    theta(repo, "commit", "-q", "-am", "shards")
    merge_recipe(repo, STACK.replace("model: b", "model: main"))
    told = json.loads((repo.path / index).read_bytes())
    shards = [read_model(repo.path / name) for name in names]
    assert told["weight_map"] == {name: file for file, own in zip(names, shards, strict=True) for name in own}
    assert told["metadata"]["total_size"] == sum(value.nbytes for own in shards for value in own.values())
    assert len(told["weight_map"]) == 3 + 6 * 3
    assert "model.layers.5.mlp.up_proj.weight" in shards[1]
    assert_again(repo)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_configuration_tells_the_dtype_of_a_result_of_whole_models(repo: Repo, key: str) -> None:
    saved(repo, tensors(3), config() | {key: "float32"}, "told")
    models = "models: [{model: main, parameters: {weight: 0.5}}, {model: b, parameters: {weight: 0.5}}]\n"
    merge_recipe(repo, f"merge_method: linear\n{models}dtype: float32\nout_dtype: bfloat16\n")
    assert settings(repo)[key] == "bfloat16"
    theta(repo, "merge", "--replay", "HEAD")
