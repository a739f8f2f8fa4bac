"""PEFT adapter directories: reading ``adapter_config.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from theta.errors import MALFORMED, UsageError
from theta.merging.adapters.scales import CONFIG, MOST_CONFIG, Scales
from theta.porcelain.stage import adapter_keys

WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""The files in which PEFT looks for the weights."""
_KINDS: Final = {"LORA": "low-rank", "IA3": "ia3"}


@dataclass(frozen=True)
class Adapter:
    """The configuration of an adapter.

    Attributes:
        kind: "low-rank" or "ia3".
        scales: the ranks of the modules, and the scales of their products.
        fan_in_fan_out: the model stores its matrices as (in, out).
        ties: an update of the embedding also applies to the head tied to it.
        parameters: ``target_parameters``: the ends of names of parameters of modules.
        saved: ``modules_to_save``: the ends of names of modules that the adapter has in full.
        dora: ``use_dora``: each output has a magnitude.
        tokens: ``trainable_token_indices``: the end of the name of a module -> rows; "" for the embedding.
    """

    kind: str
    scales: Scales
    fan_in_fan_out: bool
    ties: bool = False
    parameters: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    dora: bool = False
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def scale(self, name: str, rank: int) -> float:
        """Return the scale of the product of the factors of module ``name``."""
        return self.scales.scale(name, rank)

    def has_parameters_of(self, name: str) -> bool:
        """Return whether parameters of module ``name`` are targets."""
        module = f".{name.replace('.base_layer', '')}"
        return any(module.endswith(f".{key.rpartition('.')[0]}") for key in self.parameters)

    def tokens_of(self, name: str) -> tuple[int, ...]:
        """Return the rows of module ``name`` that the adapter has."""
        found = [rows for key, rows in self.tokens.items() if not key or f".{name}".endswith(f".{key}")]
        return found[0] if found else ()


def read_adapter(place: Path) -> Adapter | None:
    """Read the adapter in directory ``place``; None when it has no ``adapter_config.json``."""
    file = place / CONFIG
    if not file.is_file():
        return None
    if file.stat().st_size > MOST_CONFIG:
        raise UsageError(f"{file} is too large")
    return parsed(str(file), file.read_bytes())


def weights(place: Path) -> Path:
    """Return the file of the weights of the adapter in directory ``place``."""
    found = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if found is None:
        raise UsageError(f"{place} has no {' or '.join(WEIGHTS)}")
    return found


def parsed(label: str, data: bytes) -> Adapter:
    """Parse an ``adapter_config.json`` called ``label``; raises :class:`UsageError` with all misfits."""
    if len(data) > MOST_CONFIG:
        raise UsageError(f"{label} is too large")
    try:
        return _adapter(label, json.loads(data))
    except (*MALFORMED, re.error) as error:
        raise UsageError(f"{label} is not the configuration of an adapter: {error}") from error


def _adapter(label: str, config: dict[str, Any]) -> Adapter:
    kind = _KINDS.get(str(config.get("peft_type")))
    if kind is None:
        raise UsageError(
            f"{label}: adapters of type {config.get('peft_type')} cannot be merged into weights",
            hint="LORA and IA3 can",
        )
    problems = adapter_keys.problems(config)
    if problems:
        raise UsageError(
            f"{label}: {'; '.join(problems)}",
            hint=f"nothing was changed; {adapter_keys.hint(config)}",
        )
    return Adapter(
        kind,
        Scales.of(config if kind == "low-rank" else {}),
        bool(config.get("fan_in_fan_out", False)),
        bool(config.get("ensure_weight_tying", False)),
        tuple(map(str, config.get("target_parameters") or ())),
        tuple(map(str, config.get("modules_to_save") or ())),
        bool(config.get("use_dora", False)),
        _tokens(config.get("trainable_token_indices") or {}),
    )


def _tokens(found: Any) -> dict[str, tuple[int, ...]]:
    by_module = found if isinstance(found, dict) else {"": found}
    return {str(key): tuple(map(int, rows)) for key, rows in by_module.items()}
