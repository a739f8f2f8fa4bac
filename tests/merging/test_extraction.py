"""Adapters from the difference of two models."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from theta.errors import UsageError
from theta.merging.extraction import Adapter, Pair, extract, factors

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


def rebuilt(base: dict[str, Array], adapter: Adapter) -> dict[str, Array]:
    """What PEFT makes of a base with an adapter: W + alpha / r B A, or the saved module."""
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


def test_what_no_adapter_can_hold_is_told() -> None:
    base, tuned = model()
    tuned["model.layers.0.q_proj.bias"] = base["model.layers.0.q_proj.bias"] + 1
    tuned["model.layers.0.k_proj.weight"] = np.zeros((7, 8), "<f4")
    tuned["loose"] = np.ones(3, "<f4")
    tuned["model.embed_tokens.weight"] = np.zeros((24, 8), "<f4")
    adapter = extract(pairs(base, tuned), 4)
    assert sorted(adapter.left_out) == [
        "loose",
        "model.layers.0.k_proj.weight",
        "model.layers.0.q_proj.bias",
    ]
    assert adapter.tensors["base_model.model.model.embed_tokens.weight"].shape == (24, 8)
    assert "model.layers.0.k_proj" not in adapter.config["target_modules"]
    assert "model.layers.0.k_proj" not in adapter.config["modules_to_save"]


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
