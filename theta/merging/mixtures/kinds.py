"""The kinds of mixtures of experts, and the names that they give to the tensors of a plain model.

Embeddings, attention and norms are those of a base model; the MLP of each other model becomes an expert, as
mergekit-moe makes it (Mixtral, Qwen2-MoE and Qwen3-MoE of Llama, Mistral and Qwen).  Experts have the names
of published checkpoints, one tensor for each matrix: they are the tensors of the other models unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from theta.errors import UsageError

_MLP: Final = re.compile(r"(model\.layers\.\d+)\.mlp\.(gate_proj|up_proj|down_proj)\.weight")
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\..*")
_ATTENTION: Final = re.compile(r"(model\.layers\.\d+\.self_attn\.[qkv]_proj)\.weight")


@dataclass(frozen=True)
class MixtureKind:
    """A kind of mixture of experts.

    Attributes:
        name: the ``model_type`` in its configuration.
        architecture: the class that a configuration names.
        bases: the model types that it is made of.
        expert: the name of a matrix of an expert: of layer, number and matrix.
        matrices: matrix of an MLP -> its name in an expert.
        gate: the name of the router of a layer.
        shared: the name of a matrix of the shared expert; "" for kinds without one.
        shared_gate: the name of the router of the shared expert.
        biases: queries, keys and values have biases.
    """

    name: str
    architecture: str
    bases: tuple[str, ...]
    expert: str
    matrices: Mapping[str, str]
    gate: str
    shared: str = ""
    shared_gate: str = ""
    biases: bool = False


_PLAIN: Final = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
_KINDS: Final = (
    MixtureKind(
        "mixtral",
        "MixtralForCausalLM",
        ("llama", "mistral"),
        "{layer}.block_sparse_moe.experts.{number}.{matrix}.weight",
        {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
        "{layer}.block_sparse_moe.gate.weight",
    ),
    MixtureKind(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        ("qwen2", "llama", "mistral"),
        "{layer}.mlp.experts.{number}.{matrix}.weight",
        _PLAIN,
        "{layer}.mlp.gate.weight",
        "{layer}.mlp.shared_expert.{matrix}.weight",
        "{layer}.mlp.shared_expert_gate.weight",
        biases=True,
    ),
    MixtureKind(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        ("qwen3",),
        "{layer}.mlp.experts.{number}.{matrix}.weight",
        _PLAIN,
        "{layer}.mlp.gate.weight",
    ),
)
KINDS: Final[Mapping[str, MixtureKind]] = {kind.name: kind for kind in _KINDS}
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "mistral": {"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8},
    "qwen2": {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32},
}
"""Values that a plain model takes if its configuration lacks them; those of a mixture are others."""


def kind(name: str, config: Mapping[str, Any]) -> MixtureKind:
    """Return the kind ``name`` for a base with this configuration, or by default that of its own family.

    Raises :class:`UsageError` if the base cannot be that.
    """
    own = config.get("model_type")
    if name and name not in KINDS:
        raise UsageError(f"a mixture of experts is one of {', '.join(KINDS)}, not {name!r}")
    found = KINDS[name] if name else next((one for one in _KINDS if one.bases[0] == own), None)
    found = found or next((one for one in _KINDS if own in one.bases), None)
    if found is None or own not in found.bases:
        known = sorted({base for one in ([found] if found else _KINDS) for base in one.bases})
        made = name or "mixtures of experts"
        raise UsageError(
            f"the base is of model_type {own!r}, and {made} are made of {', '.join(known)}",
            hint="config.json beside the checkpoint says it",
        )
    return found


def expert_name(found: MixtureKind, name: str, number: int | None) -> str | None:
    """Return the name of tensor ``name`` of an MLP in an expert, or the shared one; None for no MLP's."""
    match = _MLP.fullmatch(name)
    if match is None:
        return None
    template = found.shared if number is None else found.expert
    return template.format(layer=match[1], number=number, matrix=found.matrices[match[2]])


def of_base(found: MixtureKind, names: Iterable[str]) -> list[str]:
    """Return the tensors that are taken from the base; raises :class:`UsageError` for one without a place."""
    kept = [name for name in names if _MLP.fullmatch(name) is None]
    for name in kept:
        if ".mlp." in name:
            raise UsageError(f"{found.name} has no place for {name}")
    return kept


def layers(names: Iterable[str]) -> list[str]:
    """Return the layers, such as ``model.layers.0``, in order."""
    numbers = {int(match[1]) for name in names if (match := _LAYER.fullmatch(name))}
    if not numbers:
        raise UsageError("the base has no tensors named model.layers.N", hint="name a Llama, Mistral or Qwen")
    return [f"model.layers.{number}" for number in sorted(numbers)]


def missing_biases(found: MixtureKind, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (bias, weight) of the biases that the kind has and the base has not; they are zero."""
    matches = (_ATTENTION.fullmatch(name) for name in names)
    pairs = [(f"{match[1]}.bias", match[0]) for match in matches if match is not None]
    return [pair for pair in pairs if found.biases and pair[0] not in names]


def config(found: MixtureKind, base: Mapping[str, Any], experts: int, chosen: int) -> dict[str, Any]:
    """Return the configuration of ``found`` with so many experts, of which ``chosen`` work on each token."""
    own = str(base.get("model_type"))
    defaults = dict(_DEFAULTS[own])
    if "rope_theta" not in base and "rope_parameters" not in base:
        defaults["rope_theta"] = 10000.0
    if own == "llama" and "num_attention_heads" in base:
        defaults["num_key_value_heads"] = base["num_attention_heads"]
    made = {**defaults, **base, "architectures": [found.architecture], "model_type": found.name}
    made["num_experts_per_tok"] = chosen
    made["num_local_experts" if found.name == "mixtral" else "num_experts"] = experts
    if found.name != "qwen3_moe":
        made["sliding_window"] = None
    if found.name != "mixtral":
        made |= {"decoder_sparse_step": 1, "norm_topk_prob": True}
        made["moe_intermediate_size"] = base.get("intermediate_size")
    if found.shared:
        made |= {
            "use_sliding_window": False,
            "shared_expert_intermediate_size": base.get("intermediate_size"),
        }
    return made
