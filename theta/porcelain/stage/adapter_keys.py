"""The keys of ``adapter_config.json`` and their effect on the sum of base and adapter.

Each key is understood, known not to matter, or refused by name.  No unknown key is ignored: it may say
that the factors belong to another base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from theta.git.quoting import visible

_UNDERSTOOD: Final = {
    "LORA": {
        *("peft_type", "r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "fan_in_fan_out"),
        *("init_lora_weights", "ensure_weight_tying", "bias", "use_dora", "lora_bias", "target_parameters"),
        *("trainable_token_indices", "modules_to_save"),
    },
    "IA3": {"peft_type", "fan_in_fan_out", "modules_to_save"},
}
"""Keys that the reader of adapters interprets."""

IRRELEVANT: Final[Mapping[str, str]] = {
    "auto_mapping": "names a class of Python",
    "base_model_name_or_path": "the base is the checkpoint that is updated",
    "exclude_modules": "the file lists the modules",
    "feedforward_modules": "the shape of a scale says whether it is for rows or columns",
    "inference_mode": "for training",
    "init_ia3_weights": "before training",
    "layers_pattern": "the file lists the modules",
    "layers_to_transform": "the file lists the modules",
    "lora_dropout": "for training",
    "megatron_core": "names a module of Python",
    "peft_version": "says who wrote it",
    "qalora_group_size": "counts with use_qalora only",
    "revision": "the base is the checkpoint that is updated",
    "runtime_config": "for training",
    "target_modules": "the file lists the modules",
    "task_type": "names a class of Python",
    "velora_config": "for the gradients of training",
}
"""Key -> why it does not change the sum."""

_CONVERT: Final = "save it with peft's path_initial_model_for_weight_conversion, or merge it with peft"
_MERGE: Final = "merge it with peft"
_REFUSED: Final[Mapping[str, str]] = {
    "alora_invocation_tokens": "the adapter is for some tokens only, which no weight can say",
    "arrow_config": "the adapter is chosen token by token, which no weight can say",
    "layer_replication": "the adapter is for layers that stand several times",
    "megatron_config": "the names are those of Megatron",
    "use_bdlora": "the factors are block-diagonal",
    "use_qalora": "the inputs are pooled before the factors",
    "kasa_config": "the base is cut before the factors are added",
    "monteclora_config": "the factors are drawn at random",
}
"""Key -> how it changes the sum in a way that theta does not compute."""

_STARTS_THAT_KEEP_THE_BASE: Final = ("gaussian", "orthogonal", "eva", "mica")
_STARTS_THAT_CHANGE_THE_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
_CONFIG_OF_A_START: Final = ("loftq_config", "eva_config", "corda_config", "lora_ga_config")
_BIASES: Final = (None, "none", "all", "lora_only")
_MOST_TEXT: Final = 60


def problems(config: Mapping[str, Any]) -> list[str]:
    """Return why an adapter of this configuration cannot be added, one phrase for each bad key."""
    understood = _UNDERSTOOD.get(str(config.get("peft_type")), set())
    found = list(_starts(config))
    for key in sorted(config.keys() - understood - IRRELEVANT.keys() - {*_CONFIG_OF_A_START}):
        if config[key]:
            reason = _REFUSED.get(key, "what it does to the weights is not known here")
            found.append(f"{said(key, config[key])}: {reason}")
    return found


def hint(config: Mapping[str, Any]) -> str:
    """Return what the user can do instead."""
    return _CONVERT if any(_starts(config)) else _MERGE


def said(key: str, value: Any) -> str:
    """Return a key with its value on one line, both shortened."""
    return f"{_shortened(visible(key))} {_shortened(visible(repr(value)))}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 3] + "..."


def _starts(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems of the initialisation; some methods subtract the initial factors from the base."""
    key = "init_lora_weights"
    start = config.get(key)
    if isinstance(start, str) and start.lower().startswith(_STARTS_THAT_CHANGE_THE_BASE):
        yield f"{said(key, start)}: the factors belong to a base from which their first values were taken"
    elif not (start is None or isinstance(start, bool) or start in _STARTS_THAT_KEEP_THE_BASE):
        yield f"{said(key, start)}: it is not known whether the base was changed"
    if config.get("bias") not in _BIASES:
        yield f"{said('bias', config['bias'])}: one of none, all and lora_only"
