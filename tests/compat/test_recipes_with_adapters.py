"""``theta merge --recipe`` with models that have an adapter: ``MODEL+ADAPTER`` and mergekit's mappings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import copied, merge_recipe, theta
from tests.porcelain.test_adapter_kinds import (
    EXPERTS,
    LORA,
    SHAPES,
    TARGETS,
    TOKENS,
    WIDTH,
    factors,
    noise,
    of_experts,
)
from tests.support import Repo, make_model, read_model

Array = NDArray[Any]
MODEL, CONFIG, WEIGHTS = "model.safetensors", "adapter_config.json", "adapter_model.safetensors"
Q = "model.q.weight"
GATE = "fused.mlp.experts.base_layer"
KINDS: Mapping[str, tuple[dict[str, Array], dict[str, Any]]] = {
    "lora": (factors("model.q", 16, WIDTH)[0], {}),
    "rslora": (
        factors("model.q", 16, WIDTH)[0],
        {"r": 4, "rank_pattern": {"q": 2}, "alpha_pattern": {"model.q": 5}, "use_rslora": True},
    ),
    "dora": (
        factors("model.q", 16, WIDTH)[0] | {"model.q.lora_magnitude_vector": np.abs(noise(16, seed=5))},
        {"use_dora": True},
    ),
    "bias": (
        factors("model.q", 16, WIDTH)[0] | {"model.q.lora_B.bias": noise(16, seed=8)},
        {"lora_bias": True},
    ),
    "transposed": (factors("model.c_attn", 24, WIDTH)[0], {"fan_in_fan_out": True}),
    "tokens": (
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": noise(2, WIDTH, seed=3)},
        {"trainable_token_indices": [7, 2]},
    ),
    "experts": (of_experts(GATE, 2 * WIDTH, WIDTH)[0], {"target_parameters": TARGETS[:1]}),
    "router": (
        factors("model.mlp.gate", EXPERTS, WIDTH)[0],
        {"target_parameters": ["mlp.gate.weight"]},
    ),
    "head": (
        factors("model.q", 16, WIDTH)[0] | {"score.weight": noise(2, WIDTH, seed=3)},
        {"modules_to_save": ["score"]},
    ),
    "rows": (
        {
            "model.embed_tokens.base_layer.weight": noise(TOKENS + 2, WIDTH, seed=5),
            "lm_head.weight": noise(TOKENS + 2, WIDTH, seed=6),
        }
        | factors("model.q", 16, WIDTH)[0],
        {},
    ),
    "ia3": ({"model.q.ia3_l.weight": noise(16, 1, seed=4)}, {"peft_type": "IA3", "feedforward_modules": []}),
}
"""Adapters of each kind: their tensors, and what their configuration has beside that of LoRA."""


def adapter(repo: Repo, folder: str, kind: str) -> None:
    """Write an adapter as PEFT does."""
    found, config = KINDS[kind]
    (repo.path / folder).mkdir(parents=True, exist_ok=True)
    repo.write(f"{folder}/{CONFIG}", json.dumps(config if "peft_type" in config else {**LORA, **config}))
    named = {f"base_model.model.{name}": tensor for name, tensor in found.items()}
    make_model(repo.path / folder / WEIGHTS, named)


def save(repo: Repo, message: str) -> None:
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", message)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branch main with a model, b with a fine-tune of it, and a branch with an adapter of each kind."""
    repo = Repo.create(tmp_path_factory.mktemp("models") / "repo")
    theta(repo, "track", "*.safetensors")
    tensors = {name: noise(*shape, seed=n) for n, (name, shape) in enumerate(SHAPES.items())}
    make_model(repo.path / MODEL, tensors)
    repo.write("config.json", json.dumps({"tie_word_embeddings": False, "vocab_size": TOKENS}))
    save(repo, "main")
    for kind in KINDS:
        theta(repo, "switch", "-q", "-c", kind, "main")
        adapter(repo, f"adapters/{kind}", kind)
        save(repo, kind)
    theta(repo, "switch", "-q", "-c", "b", "main")
    make_model(repo.path / MODEL, {name: value + np.float32(0.5) for name, value in tensors.items()})
    save(repo, "b")
    theta(repo, "switch", "-q", "main")
    return repo


@pytest.fixture
def repo(models: Repo, tmp_path: Path) -> Repo:
    """A copy with main checked out."""
    return copied(models, tmp_path / "repo")


def with_added(repo: Repo, kind: str, start: str = "main") -> bytes:
    """Return the model of ``start`` after ``theta add --update-data``; nothing of that stays."""
    outside = repo.path.parent / "outside"
    outside.mkdir()
    for name in (CONFIG, WEIGHTS):
        theta(repo, "restore", "--source", kind, f"adapters/{kind}/{name}")
        (repo.path / f"adapters/{kind}/{name}").rename(outside / name)
    theta(repo, "switch", "-q", "--detach", start)
    theta(repo, "add", MODEL, "--update-data", str(outside))
    found = (repo.path / MODEL).read_bytes()
    theta(repo, "reset", "-q", "--hard")
    theta(repo, "switch", "-q", "main")
    return found


def assert_again(repo: Repo) -> None:
    """The commit is whole, and its trailer gives the same tree."""
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "fsck")


def only(model: str) -> str:
    return f"merge_method: passthrough\nmodels:\n  - model: {model}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_folded_in_as_add_does(repo: Repo, kind: str) -> None:
    """d_base_lora: each kind of adapter gives the file of ``theta add --update-data``, byte for byte."""
    wanted = with_added(repo, kind)
    merge_recipe(repo, only(f"main+{kind}"))
    found = (repo.path / MODEL).read_bytes()
    assert found == wanted
    assert repo.git("rev-parse", "HEAD^1", "HEAD^2") == repo.git("rev-parse", "HEAD~1", kind)
    rows = json.loads((repo.path / "config.json").read_text())["vocab_size"]
    assert rows == TOKENS + 2 * (kind == "rows")
    assert_again(repo)


FORMS = {
    "a revision": "- model: main+lora",
    "a folder of a revision": "- model: main:model.safetensors+lora:adapters/lora",
    "a file of a revision": f"- model: main+lora:adapters/lora/{WEIGHTS}",
    "a folder beside the model": "- model: lora:model.safetensors+adapters/lora",
    "lora beside model": "- {model: main, lora: lora}",
    "a mapping": "- model: {model: main, lora: lora}",
    "paths": "- model: {model: {path: model.safetensors, revision: main}, "
    "lora: {path: adapters/lora, revision: lora}}",
    "a path beside lora": "- {model: {path: main}, lora: {path: lora, revision: null}}",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_model_and_its_adapter_are_named_as_mergekit_names_them(repo: Repo, form: str) -> None:
    """d_base_lora: every form is the same merge, and the trailer has ids of commits."""
    merge_recipe(repo, f"merge_method: linear\nmodels:\n  {FORMS[form]}\n  - model: b\n")
    wanted = stored(Q) + (factors("model.q", 16, WIDTH)[1] + 0.5) / 2
    assert np.allclose(read_model(repo.path / MODEL)[Q], wanted, atol=1e-6)
    trailer = repo.git("log", "-1", "--format=%(trailers:key=Theta-Recipe,valueonly)")
    assert repo.git("rev-parse", "lora").strip() + ":adapters/lora" in trailer
    assert {"b", "lora"} <= {
        repo.git("name-rev", "--name-only", "--exclude=tags/*", one).strip()
        for one in repo.git("rev-parse", "HEAD^2", "HEAD^3").split()
    }
    assert_again(repo)


def stored(name: str) -> Array:
    """The tensor of main; that of b is larger by a half."""
    return noise(*SHAPES[name], seed=list(SHAPES).index(name)).astype("f8")


def test_two_adapters_of_one_base_are_two_models(repo: Repo) -> None:
    """d_base_lora: they are merged as differences to the base, which may be a mapping too."""
    merge_recipe(
        repo,
        """
merge_method: task_arithmetic
base_model: {model: {path: main}}
models:
  - {model: main+lora, parameters: {weight: 0.5}}
  - {model: main+bias, parameters: {weight: 0.25}}
""",
    )
    wanted = stored(Q) + 0.75 * factors("model.q", 16, WIDTH)[1]
    assert np.allclose(read_model(repo.path / MODEL)[Q], wanted, atol=1e-6)
    assert_again(repo)


def test_the_result_of_a_document_takes_an_adapter(repo: Repo) -> None:
    """d_base_lora, d_multi: the model before the plus sign may be the name of another result."""
    merge_recipe(
        repo,
        "name: half\nmerge_method: linear\nmodels: [{model: main}, {model: b}]\n---\n" + only("half+lora"),
    )
    wanted = stored(Q) + 0.25 + factors("model.q", 16, WIDTH)[1]
    assert np.allclose(read_model(repo.path / MODEL)[Q], wanted, atol=1e-6)
    assert_again(repo)


def test_a_plus_sign_may_be_a_part_of_a_branch_or_a_path(repo: Repo) -> None:
    """The whole name comes first, then the one split whose parts are both there."""
    repo.git("branch", "main+lora", "b")
    repo.git("branch", "a+b", "main")
    merge_recipe(repo, only("main+lora"))
    assert np.allclose(read_model(repo.path / MODEL)[Q], stored(Q) + 0.5)
    theta(repo, "reset", "-q", "--hard", "HEAD~1")
    merge_recipe(repo, only("a+b+lora"))
    assert_again(repo)
    theta(repo, "reset", "-q", "--hard", "HEAD~1")
    repo.git("branch", "main+x", "main")
    repo.git("branch", "x+lora", "lora")
    repo.git("branch", "x", "b")
    told = merge_recipe(repo, only("main+x+lora"), code=2)
    assert "main+x+lora can be read in several ways" in told


@pytest.mark.parametrize(
    ("model", "told", "code"),
    [
        ("main+nowhere", "there is no adapter nowhere", 13),
        ("nowhere+lora", "nowhere+lora", 13),
        ("main+b", "there is no adapter b", 13),
        ("main+lora:config.json", "there is no adapter lora:config.json", 13),
        ("main+", "main+: there is no adapter", 13),
        ("main+../lora", "there is no adapter ../lora", 13),
        ("main+all", "all has 2 adapters", 2),
        ("main+odd", "model.q.weight is [16, 8], the factors are for [17, 8]", 2),
        ("main+broken", "is not the configuration of an adapter", 2),
        ("main+empty", "has no adapter_model.safetensors or adapter_model.bin", 13),
        ("main+text", "is not a file of tensors", 2),
        ("main" + "+x" * 9, "more than 8 plus signs", 2),
        ("{model: main, lora: lora, size: 3}", "unknown key 'size' of a model", 2),
        ("{model: {path: 3}, lora: lora}", "a model is REVISION", 2),
        ("{model: main, lora: []}", "a model is REVISION", 2),
    ],
)
def test_adapters_that_are_none_are_told_and_nothing_is_changed(
    mistaken: Repo, tmp_path: Path, model: str, told: str, code: int
) -> None:
    """Hostile and mistaken: one line, the exit code of bad input, and the repository as it was."""
    repo = copied(mistaken, tmp_path / "repo")
    before = repo.git("rev-parse", "HEAD")
    said = merge_recipe(repo, only(model), code=code)
    assert told in said
    assert "Traceback" not in said
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == (before, "")


@pytest.fixture(scope="module")
def mistaken(models: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``models`` and branches with adapters that do not fit."""
    repo = copied(models, tmp_path_factory.mktemp("mistaken") / "repo")
    for name in ("all", "odd", "broken", "empty", "text"):
        theta(repo, "switch", "-q", "-c", name, "main")
        adapter(repo, "adapters/one", "lora")
        if name == "all":
            adapter(repo, "adapters/two", "bias")
        elif name == "odd":
            found = factors("model.q", 17, WIDTH)[0]
            make_model(repo.path / "adapters/one" / WEIGHTS, found)
        elif name == "broken":
            repo.write(f"adapters/one/{CONFIG}", "[" * 5000)
        else:
            (repo.path / "adapters/one" / WEIGHTS).unlink()
            repo.write(CONFIG, (repo.path / f"adapters/one/{CONFIG}").read_text())
            (repo.path / f"adapters/one/{CONFIG}").unlink()
            if name == "text":
                repo.write("adapter_model.bin", "no tensors at all")
        repo.git("add", "-A")
        theta(repo, "commit", "-q", "-a", "-m", name)
    theta(repo, "switch", "-q", "main")
    return repo


def test_an_adapter_that_is_a_plain_file_of_git_is_read(repo: Repo) -> None:
    """d_base_lora: the other name that PEFT looks for, which theta does not track here."""
    theta(repo, "switch", "-q", "-c", "plain", "main")
    (repo.path / "old").mkdir()
    repo.write(f"old/{CONFIG}", json.dumps(LORA))
    make_model(repo.path / "old/adapter_model.bin", KINDS["lora"][0])
    repo.git("add", "old")
    repo.git("commit", "-q", "-m", "plain")
    theta(repo, "switch", "-q", "main")
    wanted = with_added(repo, "lora")
    merge_recipe(repo, only("main+plain:old"))
    assert (repo.path / MODEL).read_bytes() == wanted
    assert_again(repo)


def test_a_model_in_shards_takes_an_adapter(repo: Repo) -> None:
    """d_base_lora: names are found across the shards, and each keeps its tensors."""
    found = read_model(repo.path / MODEL)
    (repo.path / MODEL).unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    late = {name: value for name, value in found.items() if name > "model.d"}
    for name, own in zip(names, ({k: found[k] for k in found.keys() - late.keys()}, late), strict=True):
        make_model(repo.path / name, own)
    repo.git("add", "-A")
    theta(repo, "commit", "-q", "-am", "shards")
    merge_recipe(repo, only("main+lora"))
    new = read_model(repo.path / names[1])
    assert new.keys() == late.keys()
    product = factors("model.q", 16, WIDTH)[1]
    assert np.allclose(new["model.q.weight"], late["model.q.weight"] + product, atol=1e-6)
    assert_again(repo)
    theta(repo, "reset", "-q", "--hard", "HEAD~1")
    assert "a model in shards gets no new tensors" in merge_recipe(repo, only("main+head"), code=2)


def test_other_names_and_doubtful_ties_are_told(repo: Repo) -> None:
    """d_base_lora: what ``theta add`` warns of, with the name of the model in the recipe."""
    told = merge_recipe(repo, only("main+router"))
    assert "warning: main+router: the file has other names than the adapter: model.mlp.gate is" in told
    assert_again(repo)


def test_what_is_stored_is_as_small_as_the_adapter(repo: Repo) -> None:
    """d_base_lora: a dry run tells that the sum is stored as factors, and changes nothing."""
    before = repo.git("rev-parse", "HEAD")
    told = json.loads(merge_recipe(repo, only("main+lora"), "--dry-run", "--json"))
    rows = told["theta.merge/v1"]["checkpoints"]
    assert {row["name"] for row in rows[MODEL]} == set(SHAPES)
    assert repo.git("rev-parse", "HEAD") == before
