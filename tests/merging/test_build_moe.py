"""Mixtures of experts out of versions of a model, as mergekit-moe makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store
from tests.support import Repo, make_model, read_model
from theta.errors import UsageError
from theta.merging.mixtures import kinds
from theta.merging.mixtures.building import ExpertMixture

Array = NDArray[Any]
MODEL = "m.safetensors"
CONFIG = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 12,
    "rope_theta": 1e4,
}
MATRICES = {"gate_proj": (12, 8), "up_proj": (12, 8), "down_proj": (8, 12)}


def model(seed: int) -> dict[str, Array]:
    """A Mistral in small, of which the seed makes all but the norms."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (9, 8), "lm_head.weight": (9, 8)}
    for layer in ("model.layers.0", "model.layers.1"):
        shapes |= {f"{layer}.self_attn.{one}_proj.weight": (8, 8) for one in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}.weight": shape for name, shape in MATRICES.items()}
        shapes[f"{layer}.input_layernorm.weight"] = (8,)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def expected(kind: str, base: dict[str, Array], experts: list[dict[str, Array]]) -> dict[str, Array]:
    """The tensors that mergekit 0.1.5 writes, experts one by one; without gates."""
    found = {name: value for name, value in base.items() if ".mlp." not in name}
    for layer in ("model.layers.0", "model.layers.1"):
        for number, expert in enumerate(experts):
            for matrix, short in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
                value = expert[f"{layer}.mlp.{matrix}.weight"]
                if kind == "mixtral":
                    found[f"{layer}.block_sparse_moe.experts.{number}.{short}.weight"] = value
                else:
                    found[f"{layer}.mlp.experts.{number}.{matrix}.weight"] = value
    return found


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_are_the_mlps_of_their_models(tmp_path: Path, kind: str) -> None:
    """Tensor by tensor what mergekit-moe writes, and no value is stored again."""
    store, models = Store(tmp_path), [model(seed) for seed in range(3)]
    base, *experts = [store.put(one) for one in models]
    mixture = ExpertMixture(kinds.KINDS[kind], [base], [[one] for one in experts], seed=3)
    with store.objects.writing() as pack:
        made = mixture.store(store.objects, pack, "m")
    found = store.get(made)
    gates = {name: value for name, value in found.items() if name.endswith("gate.weight")}
    assert sorted(gates) == [mixture.kind.gate.format(layer=f"model.layers.{n}") for n in range(2)]
    for gate in gates.values():
        assert gate.shape == (2, 8)
        assert 0 < np.abs(gate).max() <= 1 / np.sqrt(8)
    for name, value in expected(kind, models[0], models[1:]).items():
        np.testing.assert_array_equal(found.pop(name), value, err_msg=name)
    assert found.keys() == gates.keys()
    trees = {line.tree for manifest in (base, *experts) for line in manifest.lines}
    assert {line.name for line in made.lines if line.tree not in trees} == gates.keys()


def test_qwen2_moe_has_a_shared_expert_and_biases(tmp_path: Path) -> None:
    """Those that a Llama lacks are zero; the gate of the shared expert is one vector."""
    store, models = Store(tmp_path), [model(seed) for seed in range(3)]
    base, expert, shared = [store.put(one) for one in models]
    vectors = np.arange(1.0, 2 * 2 * 8 + 1).reshape(2, 2, 8)
    mixture = ExpertMixture(kinds.KINDS["qwen2_moe"], [base], [[expert]], [shared], vectors)
    with store.objects.writing() as pack:
        made = mixture.store(store.objects, pack, "m")
    found = store.get(made)
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for number, name in enumerate(("gate", "shared_expert_gate")):
            unit = vectors[number, layer] / np.linalg.norm(vectors[number, layer])
            np.testing.assert_allclose(found[f"{prefix}.mlp.{name}.weight"], [unit], rtol=1e-7)
        for matrix in MATRICES:
            plain = f"{prefix}.mlp.{matrix}.weight"
            name = f"{prefix}.mlp.shared_expert.{matrix}.weight"
            np.testing.assert_array_equal(found[name], models[2][plain])
        for role in "qkv":
            assert not found[f"{prefix}.self_attn.{role}_proj.bias"].any()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model.layers.0.mlp.up_proj.weight": np.zeros((3, 8), np.float32)}, "in the base and f32"),
        ({"model.layers.0.mlp.up_proj.weight": np.zeros((12, 8), np.float16)}, "in the base and f16"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Array], error: str) -> None:
    store = Store(tmp_path)
    base, expert = store.put(model(0)), store.put(model(1) | change)
    with store.objects.writing() as pack, pytest.raises(UsageError, match=error):
        ExpertMixture(kinds.KINDS["mixtral"], [base], [[expert]]).store(store.objects, pack, "m")


def test_gates_of_another_shape_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    base = store.put(model(0))
    mixture = ExpertMixture(kinds.KINDS["mixtral"], [base], [[base]], gates=np.zeros((1, 3, 8)))
    with store.objects.writing() as pack, pytest.raises(UsageError, match=r"\[1, 2, 8\]"):
        mixture.store(store.objects, pack, "m")


def test_a_configuration_means_what_that_of_the_base_meant() -> None:
    """Defaults differ: a Mixtral without rope_theta turns by a million, a Llama by ten thousand."""
    llama = {"model_type": "llama", "num_attention_heads": 4, "intermediate_size": 12}
    made = kinds.config(kinds.kind("", llama), llama, 3, 2)
    assert made["architectures"] == ["MixtralForCausalLM"]
    assert (made["num_local_experts"], made["num_experts_per_tok"]) == (3, 2)
    assert (made["rope_theta"], made["rms_norm_eps"], made["num_key_value_heads"]) == (1e4, 1e-6, 4)
    qwen = {"model_type": "qwen3", "rope_parameters": {"rope_theta": 5e5}, "intermediate_size": 12}
    made = kinds.config(kinds.kind("", qwen), qwen, 3, 1)
    assert (made["model_type"], made["moe_intermediate_size"], "rope_theta" in made) == (
        "qwen3_moe",
        12,
        False,
    )
    with pytest.raises(UsageError, match="made of qwen3"):
        kinds.kind("qwen3_moe", llama)


def test_a_mixture_is_committed_and_built_again(repo: Repo) -> None:
    """Gates in a commit are named by it; those of a file could not be found by a replay."""
    (repo.path / "config.json").write_text(json.dumps(CONFIG))
    repo.theta("track", "*.safetensors", "*.npy")
    make_model(repo.path / MODEL, model(0))
    np.save(repo.path / "gates.npy", np.ones((1, 2, 8), np.float32))
    repo.theta("add", ".")
    repo.theta("commit", "-qm", "base")
    repo.theta("switch", "-qc", "code")
    make_model(repo.path / MODEL, model(1))
    repo.theta("commit", "-qam", "code")
    repo.theta("switch", "-q", "main")
    ask = ("build-moe", "code", "--path", MODEL, "--experts-per-token", "1", "--commit")
    assert "in no commit" in repo.theta(*ask, "--gates", "gates.npy", code=2).stderr
    repo.theta(*ask, "--gates", "HEAD:gates.npy")
    found = read_model(repo.path / MODEL)
    gate = found["model.layers.1.block_sparse_moe.gate.weight"]
    np.testing.assert_allclose(gate, np.full((1, 8), 1 / np.sqrt(8)), rtol=1e-6)
    assert json.loads((repo.path / "config.json").read_text())["num_local_experts"] == 1
    assert "the same model" in repo.theta("build-moe", "--replay", "HEAD").stdout
    assert "built: mixtral of 1 experts" in repo.theta("lineage", MODEL).stdout
    repo.theta("fsck")
    trailers = repo.git("log", "-1", "--format=%B")
    repo.write("other.py", "evil")
    repo.theta("add", "other.py")
    repo.theta("commit", "-q", "--amend", "-m", trailers)
    assert "the same model" not in repo.theta("build-moe", "--replay", "HEAD", code=1).stdout
    repo.theta("commit", "-q", "--amend", "-m", trailers.replace("--gates ", "--gates gates.npy --was "))
    assert "malformed" in repo.theta("build-moe", "--replay", "HEAD", code=2).stderr
