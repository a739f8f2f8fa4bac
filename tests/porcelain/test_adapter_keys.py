"""Every key of an adapter's configuration is understood, or known not to matter, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import make_model
from theta.errors import UsageError
from theta.porcelain.stage.adapter_keys import problems
from theta.porcelain.stage.adapters import Adapter, read_adapter

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
AS_PEFT_WRITES_IT: dict[str, Any] = PLAIN | {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"},
    "base_model_name_or_path": "meta-llama/Llama-3.2-1B",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": [0, 1],
    "loftq_config": {},
    "lora_bias": False,
    "lora_dropout": 0.05,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "rank_pattern": {},
    "revision": "main",
    "target_modules": ["q_proj", "v_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}


def read(place: Path, config: dict[str, Any]) -> Adapter:
    """The adapter of this configuration."""
    (place / "adapter_config.json").write_text(json.dumps(config))
    make_model(place / "adapter_model.safetensors", {"x": np.zeros(1, np.float32)})
    found = read_adapter(place)
    assert found is not None
    return found


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "orthogonal", "eva", "mica"])
def test_a1_an_adapter_as_peft_writes_it_is_read(tmp_path: Path, start: Any) -> None:
    found = read(tmp_path, AS_PEFT_WRITES_IT | {"init_lora_weights": start})
    assert found.scale("model.layers.0.self_attn.q_proj", 2) == 2


@pytest.mark.parametrize(
    "start", ["pissa", "PiSSA", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga", "novel"]
)
def test_a1_initialisations_that_change_the_base_are_refused(tmp_path: Path, start: str) -> None:
    with pytest.raises(UsageError, match=f"init_lora_weights '{start}'") as caught:
        read(tmp_path, AS_PEFT_WRITES_IT | {"init_lora_weights": start})
    assert "nothing was changed" in caught.value.hint


CHANGES_THE_SUM: list[tuple[str, Any]] = [
    ("layer_replication", [[0, 4], [2, 5]]),
    ("megatron_config", {"hidden_size": 1}),
    ("alora_invocation_tokens", [1]),
    ("arrow_config", {"top_k": 2}),
    ("use_bdlora", {"nblocks": 2}),
    ("use_qalora", True),
    ("kasa_config", {"beta": 1}),
    ("monteclora_config", {"num_samples": 2}),
    ("bias", "some"),
    ("a_key_of_next_year", "on"),
]


@pytest.mark.parametrize(("key", "value"), CHANGES_THE_SUM)
def test_a1_keys_that_change_the_sum_are_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, AS_PEFT_WRITES_IT | {key: value})
    assert f"{key} {value!r}" in str(caught.value)


def test_a1_all_keys_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"init_lora_weights 'pissa'.*; kasa_config 1.*; use_qalora True"):
        read(tmp_path, PLAIN | {"use_qalora": True, "kasa_config": 1, "init_lora_weights": "pissa"})


def test_a1_unknown_keys_that_say_nothing_pass(tmp_path: Path) -> None:
    read(tmp_path, PLAIN | {"enable_lora": None, "merge_weights": False, "novel": []})


@pytest.mark.parametrize(
    "kind", ["ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "PROMPT_TUNING", "LN_TUNING"]
)
def test_c6_other_adapters_are_refused_by_their_type(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=f"adapters of type {kind}"):
        read(tmp_path, {"peft_type": kind, "r": 4})


def test_a1_keys_of_lora_are_not_those_of_ia3(tmp_path: Path) -> None:
    read(tmp_path, {"peft_type": "IA3", "feedforward_modules": ["down"], "init_ia3_weights": True})
    with pytest.raises(UsageError, match="use_rslora True"):
        read(tmp_path, {"peft_type": "IA3", "use_rslora": True})


def test_a_rank_that_the_configuration_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank 4 where r says 2"):
        read(tmp_path, PLAIN).scale("q_proj", 4)
    assert read(tmp_path, PLAIN | {"rank_pattern": {"q_proj": 4}}).scale("model.q_proj", 4) == 1


def test_what_is_told_of_hostile_keys_is_one_short_line() -> None:
    """A line feed in the name of a key was printed as one."""
    key = "f\n\x1b[2J_in_fan_out" + "x" * 1000
    (told,) = problems({"peft_type": "LORA", key: "y\n" * 1000})
    assert told.isprintable()
    assert len(told) < 200
