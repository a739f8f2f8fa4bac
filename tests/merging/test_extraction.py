"""Adapters from the difference of two models."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from theta.errors import UsageError
from theta.merging.adapters.extraction import LoraAdapter, Pair, extract, factors

Array = NDArray[Any]


def pairs(base: dict[str, Array], tuned: dict[str, Array], dtype: str = "f32") -> list[Pair]:
    def pair(name: str) -> Pair:
        before = base.get(name)
        value = tuned[name]
        return Pair(
            name,
            dtype,
            value.shape,
            before is None or before.tobytes() != value.tobytes(),
            lambda: value,
            None if before is None else (lambda: before),
            None if before is None else before.shape,
        )

    return [pair(name) for name in tuned]


def model() -> tuple[dict[str, Array], dict[str, Array]]:
    random = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (20, 8),
        "model.layers.0.q_proj.weight": (6, 8),
        "model.layers.0.q_proj.bias": (6,),
        "model.layers.0.k_proj.weight": (6, 8),
        "model.layers.0.up.weight": (10, 8),
        "model.norm.weight": (8,),
        "lm_head.weight": (20, 8),
    }
    base = {name: random.normal(size=shape).astype("<f4") for name, shape in shapes.items()}
    tuned = dict(base)
    tuned["model.layers.0.q_proj.weight"] = base["model.layers.0.q_proj.weight"] + np.outer(
        np.arange(6), np.arange(8)
    ).astype("<f4")
    tuned["model.layers.0.up.weight"] = base["model.layers.0.up.weight"] + random.normal(size=(10, 8)).astype(
        "<f4"
    )
    tuned["model.norm.weight"] = base["model.norm.weight"] + 1
    tuned["model.embed_tokens.weight"] = base["model.embed_tokens.weight"] + 1
    return base, tuned


def rebuilt(base: dict[str, Array], adapter: LoraAdapter) -> dict[str, Array]:
    """Return what PEFT makes of a base with an adapter: W + alpha / r B A, or the saved module."""
    found = dict(base)
    for name in base:
        module = name.rpartition(".")[0]
        low = f"base_model.model.{module}.lora_A.weight"
        if name.endswith(".weight") and low in adapter.tensors:
            a, b = adapter.tensors[low], adapter.tensors[low.replace("lora_A", "lora_B")]
            r = adapter.config["rank_pattern"].get(module, adapter.config["r"])
            alpha = adapter.config["alpha_pattern"].get(module, adapter.config["lora_alpha"])
            assert a.shape[0] == b.shape[1] == r
            found[name] = base[name] + alpha / r * (b @ a)
        elif f"base_model.model.{name}" in adapter.tensors:
            assert module in adapter.config["modules_to_save"]
            found[name] = adapter.tensors[f"base_model.model.{name}"]
    return found


def test_an_adapter_of_full_rank_is_the_fine_tune() -> None:
    base, tuned = model()
    adapter = extract(pairs(base, tuned), 8, epsilon=1e-5)  # float32 leaves singular values of its own
    again = rebuilt(base, adapter)
    for name, values in tuned.items():
        np.testing.assert_allclose(again[name], values, atol=1e-5, err_msg=name)
    assert adapter.ranks == {"model.layers.0.q_proj": 1, "model.layers.0.up": 8}
    assert adapter.config["target_modules"] == ["model.layers.0.q_proj", "model.layers.0.up"]
    assert adapter.config["rank_pattern"] == {"model.layers.0.q_proj": 1}
    assert adapter.config["modules_to_save"] == ["model.embed_tokens", "model.norm"]
    assert adapter.left_out == {}


def test_the_rank_is_a_limit_and_the_best_there_is() -> None:
    base, tuned = model()
    adapter = extract(pairs(base, tuned), 3)
    name = "model.layers.0.up.weight"
    gap = rebuilt(base, adapter)[name] - tuned[name]
    singular = np.linalg.svd(tuned[name] - base[name], compute_uv=False)
    assert np.linalg.norm(gap) == pytest.approx(np.sqrt((singular[3:] ** 2).sum()), rel=1e-4)


def test_factors_are_the_reference_and_split_evenly() -> None:
    difference = np.array([[0.5, -1, 0], [2, 0.25, -0.125]])
    a, b = factors(difference, 1)
    wanted = [[0.497702, 0.000286, -0.029285], [2.000572, 0.001149, -0.117714]]
    np.testing.assert_allclose(b @ a, wanted, atol=1e-6)
    assert np.linalg.norm(a) ** 2 == pytest.approx(2.065117, abs=1e-6)
    assert np.linalg.norm(b) ** 2 == pytest.approx(2.065117, abs=1e-6)
    assert factors(difference, 5)[0].shape == (2, 3)
    assert factors(difference, 5, epsilon=0.6)[0].shape == (1, 3)
    assert factors(np.zeros((2, 3)), 5)[0].shape == (0, 3)


def test_what_no_adapter_can_hold_is_refused_by_name() -> None:
    """A reshaped matrix, a tensor of no module, one of a module with others in it: all at once."""
    base, tuned = model()
    tuned["model.layers.0.k_proj.weight"] = np.zeros((7, 8), "<f4")
    tuned["loose"] = np.ones(3, "<f4")
    tuned["model.layers.0.A_log"] = np.ones(3, "<f4")
    with pytest.raises(UsageError) as caught:
        extract(pairs(base, tuned), 4)
    for name in ("model.layers.0.k_proj.weight", "loose", "model.layers.0.A_log"):
        assert name in str(caught.value)


def test_whole_numbers_are_left_out_and_told() -> None:
    base, tuned = model()
    counts = pairs({"bn.count": np.zeros(1, "<i8")}, {"bn.count": np.ones(1, "<i8")}, "i64")
    adapter = extract([*pairs(base, tuned), *counts], 4)
    assert adapter.left_out == {"bn.count": "i64 values are no weights"}


# -- A3: matrices that are stored transposed -------------------------------------------------------


def conv1d() -> dict[str, Array]:
    """GPT-2's block: all matrices are [in, out], and one is square."""
    random = np.random.default_rng(1)
    shapes = {"attn.c_attn": (8, 24), "attn.c_proj": (8, 8), "mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8)}
    found = {}
    for module, shape in shapes.items():
        found[f"h.0.{module}.weight"] = random.normal(size=shape).astype("<f4")
        found[f"h.0.{module}.bias"] = random.normal(size=shape[1]).astype("<f4")
    return found


@pytest.mark.parametrize("only", ["", "attn.c_proj"])
def test_a3_matrices_of_conv1d_are_turned_as_peft_wants_them(only: str) -> None:
    """lora_A is [r, in] and lora_B [out, r], whatever the file has; the square one as its likes."""
    base, random = conv1d(), np.random.default_rng(2)
    tuned = dict(base)
    for name in [name for name in base if only in name and "weight" in name]:
        tuned[name] = base[name] + random.normal(size=base[name].shape).astype("<f4")
    adapter = extract(pairs(base, tuned), 32)
    assert adapter.config["fan_in_fan_out"] is True
    for module in adapter.ranks:
        a, b = (adapter.tensors[f"base_model.model.{module}.lora_{letter}.weight"] for letter in "AB")
        again = base[f"{module}.weight"] + (b @ a).T
        np.testing.assert_allclose(again, tuned[f"{module}.weight"], atol=1e-5)
    assert adapter.error < 1e-5


def test_a3_a_square_matrix_among_both_kinds_is_refused_by_name() -> None:
    base = conv1d() | {"x.lin.weight": np.zeros((5, 8), "<f4"), "x.lin.bias": np.zeros(5, "<f4")}
    base |= {"y.square.weight": np.zeros((8, 8), "<f4"), "y.square.bias": np.zeros(8, "<f4")}
    with pytest.raises(UsageError, match=r"y\.square\.weight: it is square"):
        extract(pairs(base, base | {"y.square.weight": np.ones((8, 8), "<f4")}), 4)


def test_a3_a_layer_without_a_bias_is_no_conv1d() -> None:
    """GPT-2's classifier is a linear layer beside transposed ones, which all have biases."""
    base = conv1d() | {"score.weight": np.zeros((3, 8), "<f4")}
    tuned = base | {"score.weight": np.ones((3, 8), "<f4")}
    adapter = extract(pairs(base, tuned), 4)
    assert adapter.tensors["base_model.model.score.lora_A.weight"].shape[1] == 8


# -- A4: codes ------------------------------------------------------------------------------------


def test_a4_codes_are_refused_by_name() -> None:
    codes, scale = np.zeros((4, 4), ml_dtypes.float8_e4m3fn), np.ones(4, "<f4")
    known = [
        Pair("q.weight", "f8_e4m3", (4, 4), True, lambda: codes, lambda: codes, (4, 4)),
        Pair("q.weight_scale_inv", "f32", (4,), True, lambda: scale, lambda: scale, (4,)),
    ]
    with pytest.raises(
        UsageError, match=r"q\.weight: it holds codes whose scales are in q\.weight_scale_inv"
    ):
        extract(known, 4)


# -- A5: ties -------------------------------------------------------------------------------------


def test_a5_a_tied_embedding_is_saved_for_the_head_too() -> None:
    """PEFT gives a module that it saves a copy of its own: the head would keep the base's values."""
    base, tuned = model()
    for tensors in (base, tuned):
        del tensors["lm_head.weight"]
    adapter = extract(pairs(base, tuned), 8, tied=("model.embed_tokens", "lm_head"))
    assert adapter.config["modules_to_save"] == ["lm_head", "model.embed_tokens", "model.norm"]
    for module in ("lm_head", "model.embed_tokens"):
        found = adapter.tensors[f"base_model.model.{module}.weight"]
        np.testing.assert_array_equal(found, tuned["model.embed_tokens.weight"])


# -- A6: biases, and the error ----------------------------------------------------------------------


@pytest.mark.parametrize("with_weight", [True, False])
def test_a6_biases_are_saved_where_peft_keeps_them(with_weight: bool) -> None:
    base, tuned = model()
    if not with_weight:
        tuned["model.layers.0.q_proj.weight"] = base["model.layers.0.q_proj.weight"]
    tuned["model.layers.0.q_proj.bias"] = base["model.layers.0.q_proj.bias"] + 1
    adapter = extract(pairs(base, tuned), 8)
    layer = "q_proj.base_layer" if with_weight else "q_proj"
    found = adapter.tensors[f"base_model.model.model.layers.0.{layer}.bias"]
    np.testing.assert_array_equal(found, tuned["model.layers.0.q_proj.bias"])
    assert adapter.config["bias"] == "all"
    assert adapter.left_out == {}


def test_a6_a_bias_of_a_module_with_others_in_it() -> None:
    """BERT's head has one: no copy in full, which would take the modules inside along."""
    base, tuned = model()
    base["model.layers.bias"], tuned["model.layers.bias"] = np.zeros(4, "<f4"), np.ones(4, "<f4")
    adapter = extract(pairs(base, tuned), 8)
    assert adapter.tensors["base_model.model.model.layers.bias"].tolist() == [1, 1, 1, 1]
    assert "model.layers" not in adapter.config["modules_to_save"]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a6_the_error_of_what_was_written_is_computed(dtype: str) -> None:
    base, tuned = model()
    if dtype == "bf16":
        base, tuned = ({n: v.astype(ml_dtypes.bfloat16) for n, v in m.items()} for m in (base, tuned))
    for rank in (1, 3, 8):
        adapter = extract(pairs(base, tuned, dtype), rank)
        again = rebuilt(base, adapter)
        gaps = {
            name: float(np.abs(again[name].astype(values.dtype).astype("f8") - values.astype("f8")).max())
            for name, values in tuned.items()
        }
        assert adapter.error == pytest.approx(max(gaps.values()), rel=0.02, abs=1e-6)
        assert not adapter.worst or gaps[adapter.worst] == pytest.approx(adapter.error, rel=0.02, abs=1e-6)


# -- B2, B3, B5 -------------------------------------------------------------------------------------


def test_b2_without_a_matrix_that_changed_one_gets_factors_of_zeros() -> None:
    """PEFT refuses an adapter without a target."""
    base, tuned = model()
    only = base | {"model.norm.weight": tuned["model.norm.weight"]}
    only["model.layers.0.q_proj.bias"] = base["model.layers.0.q_proj.bias"] + 1
    adapter = extract(pairs(base, only), 4)
    assert adapter.config["target_modules"] == ["model.layers.0.q_proj"]
    assert adapter.config["rank_pattern"] == {"model.layers.0.q_proj": 1}
    assert not adapter.tensors["base_model.model.model.layers.0.q_proj.lora_B.weight"].any()
    assert "base_model.model.model.layers.0.q_proj.base_layer.bias" in adapter.tensors
    assert adapter.config["modules_to_save"] == ["model.norm"]
    assert adapter.error == 0


def test_b2_a_model_without_a_matrix_is_refused() -> None:
    base = {"norm.weight": np.ones(4, "<f4")}
    with pytest.raises(UsageError, match="nothing that changed is a matrix"):
        extract(pairs(base, {"norm.weight": np.zeros(4, "<f4")}), 4)


@pytest.mark.parametrize(
    "name",
    [
        "l.0.mlp.experts.3.up_proj.weight",
        "l.0.block_sparse_moe.gate.weight",
        "l.0.block_sparse_moe.experts.0.w1.weight",
        "l.0.mlp.experts.gate_up_proj",
    ],
)
def test_b3_experts_that_are_not_whole_are_refused_by_name(name: str) -> None:
    base, tuned = model()
    more = {"l.0.mlp.experts.0.up_proj.weight": np.zeros((4, 4), "<f4"), name: np.zeros((4, 4), "<f4")}
    with pytest.raises(UsageError, match=f"{name}: experts and routers have other names"):
        extract(pairs(base | more, tuned | more | {name: np.ones((4, 4), "<f4")}), 4)
    assert extract(pairs(base | more, tuned | more), 4).ranks  # what else changed is no matter of theirs


def test_b5_a_vocabulary_that_grew_is_told() -> None:
    base, tuned = model()
    tuned["model.embed_tokens.weight"] = np.zeros((24, 8), "<f4")
    adapter = extract(pairs(base, tuned), 4)
    assert adapter.tensors["base_model.model.model.embed_tokens.weight"].shape == (24, 8)
    assert adapter.rows == {"model.embed_tokens": 24}


def test_bfloat16_is_decomposed_in_float32() -> None:
    base, tuned = ({n: v.astype(ml_dtypes.bfloat16) for n, v in m.items()} for m in model())
    adapter = extract(pairs(base, tuned, "bf16"), 8)
    assert adapter.tensors["base_model.model.model.layers.0.up.lora_A.weight"].dtype == np.float32
    assert adapter.tensors["base_model.model.model.norm.weight"].dtype == ml_dtypes.bfloat16


def test_nothing_to_extract_is_an_error() -> None:
    base, _ = model()
    with pytest.raises(UsageError, match="do not differ"):
        extract(pairs(base, dict(base)), 4)
    with pytest.raises(UsageError, match="a rank is"):
        extract([], 0)
    with pytest.raises(UsageError, match="NaN"):
        factors(np.full((2, 2), np.nan), 1)


def moe(kind: str, seed: int) -> dict[str, Array]:
    """A layer of three experts under the names of Mixtral or Qwen3-MoE, or in one tensor as (in, out)."""
    random = np.random.default_rng(seed)
    block, (gate, up, down) = {
        "mixtral": ("l.0.block_sparse_moe", ("w1", "w3", "w2")),
        "qwen": ("l.0.mlp", ("gate_proj", "up_proj", "down_proj")),
        "fused": ("l.0.mlp", ("", "", "")),
    }[kind]
    shapes: dict[str, tuple[int, ...]] = {f"{block}.gate.weight": (3, 8), "l.0.q.weight": (8, 8)}
    for number in range(3):
        shapes |= {f"{block}.experts.{number}.{part}.weight": (6, 8) for part in (gate, up)}
        shapes[f"{block}.experts.{number}.{down}.weight"] = (8, 6)
    if kind == "fused":
        shapes = {f"{block}.experts.gate_up_proj": (3, 8, 12), f"{block}.experts.down_proj": (3, 6, 8)}
        shapes["l.0.q.weight"] = (8, 8)
    return {name: random.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


def products(adapter: LoraAdapter, module: str) -> Array:
    """The product that PEFT adds to a parameter of three experts, as (experts, out, in)."""
    a, b = (adapter.tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    rank = adapter.config["r"]
    found: Array = np.einsum("ore,eri->eoi", b.reshape(b.shape[0], rank, -1), a.reshape(-1, rank, a.shape[1]))
    return found


@pytest.mark.parametrize("kind", ["mixtral", "qwen", "fused"])
def test_b3_experts_are_factors_of_parameters(kind: str) -> None:
    """PEFT failed to load names of a file that transformers does not have in memory."""
    base, tuned = moe(kind, 0), moe(kind, 1)
    adapter = extract(pairs(base, tuned), 8)
    names = ["gate_up_proj", "down_proj"]
    wanted = [f"l.0.mlp.experts.{name}" for name in names]
    wanted += ["l.0.mlp.gate.weight"] * (kind != "fused")
    assert adapter.config["target_parameters"] == sorted(wanted)
    assert adapter.config["target_modules"] == ["l.0.q"]
    assert adapter.error < 1e-5
    both, down = (products(adapter, f"l.0.mlp.experts{inner}") for inner in (".base_layer", ""))
    change = {name: tuned[name] - base[name] for name in base}
    block = "l.0.block_sparse_moe" if kind == "mixtral" else "l.0.mlp"
    parts = ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    if kind == "fused":
        np.testing.assert_allclose(np.swapaxes(both, 1, 2), change[wanted[0]], atol=1e-5)
        np.testing.assert_allclose(np.swapaxes(down, 1, 2), change[wanted[1]], atol=1e-5)
        return
    for number in range(3):
        of = [change[f"{block}.experts.{number}.{part}.weight"] for part in parts]
        np.testing.assert_allclose(both[number], np.vstack(of[:2]), atol=1e-5)
        np.testing.assert_allclose(down[number], of[2], atol=1e-5)
    a, b = (adapter.tensors[f"base_model.model.l.0.mlp.gate.lora_{part}.weight"] for part in "AB")
    np.testing.assert_allclose(b @ a, change[f"{block}.gate.weight"], atol=1e-5)


def test_b3_one_parameter_of_experts_has_one_wrapper() -> None:
    base, tuned = moe("qwen", 0), moe("qwen", 1)
    tuned = {name: tuned[name] if "up_proj" in name else base[name] for name in base}
    adapter = extract(pairs(base, tuned), 2)
    assert adapter.config["target_parameters"] == ["l.0.mlp.experts.gate_up_proj"]
    assert "base_model.model.l.0.mlp.experts.lora_A.weight" in adapter.tensors
    assert not any("base_layer" in name for name in adapter.tensors)
    assert adapter.error > 0.1


def test_c8_the_configuration_names_the_base_and_the_task() -> None:
    base, tuned = model()
    config = extract(pairs(base, tuned), 2, base_model="org/base", task_type="CAUSAL_LM").config
    assert (config["base_model_name_or_path"], config["task_type"]) == ("org/base", "CAUSAL_LM")


def test_a5_the_tied_decoder_of_bert_gets_weight_and_bias() -> None:
    """PEFT keeps the base's values of a saved module for what the file lacks."""
    names = {"bert.embeddings.word_embeddings.weight": (9, 4), "cls.predictions.bias": (9,)}
    names |= {"cls.predictions.transform.dense.weight": (4, 4)}
    base, tuned = ({name: np.full(shape, n, "<f4") for name, shape in names.items()} for n in (0, 1))
    tied = ("bert.embeddings.word_embeddings", "cls.predictions.decoder")
    found = extract(pairs(base, tuned), 2, tied=tied).tensors
    for part, name in (
        ("weight", "bert.embeddings.word_embeddings.weight"),
        ("bias", "cls.predictions.bias"),
    ):
        saved = found[f"base_model.model.cls.predictions.decoder.{part}"]
        np.testing.assert_array_equal(saved, tuned[name])
