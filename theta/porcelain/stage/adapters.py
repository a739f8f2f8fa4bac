"""PEFT adapter directories: reading ``adapter_config.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from theta.errors import UsageError
from theta.porcelain.stage import adapter_keys

CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
_KINDS: Final = {"LORA": "low-rank", "IA3": "ia3"}
_MOST_CONFIG: Final = 1 << 20


@dataclass(frozen=True)
class Adapter:
    """The configuration of an adapter.

    Attributes:
        kind: "low-rank" or "ia3".
        weights: the file of the weights.
        alpha: ``lora_alpha``.
        alphas: ``alpha_pattern``: regular expression for a module -> its alpha.
        rank: ``r``, if given.
        ranks: ``rank_pattern``: regular expression for a module -> its rank.
        root: ``use_rslora``: alpha is divided by the square root of the rank.
        fan_in_fan_out: the model stores its matrices as (in, out).
        ties: an update of the embedding also applies to the head tied to it.
        parameters: ``target_parameters``: the ends of names of parameters of modules.
        saved: ``modules_to_save``: the ends of names of modules that the adapter has in full.
        dora: ``use_dora``: each output has a magnitude.
        tokens: ``trainable_token_indices``: the end of the name of a module -> rows; "" for the embedding.
    """

    kind: str
    weights: Path
    alpha: float
    alphas: Mapping[str, float]
    rank: int | None
    ranks: Mapping[str, int]
    root: bool
    fan_in_fan_out: bool
    ties: bool = False
    parameters: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    dora: bool = False
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def rank_of(self, name: str) -> int | None:
        """Return the configured rank of module ``name``."""
        pattern = _by_pattern(self.ranks, name)
        return self.rank if pattern is None else int(pattern)

    def has_parameters_of(self, name: str) -> bool:
        """Return whether parameters of module ``name`` are targets."""
        module = f".{name.replace('.base_layer', '')}"
        return any(module.endswith(f".{key.rpartition('.')[0]}") for key in self.parameters)

    def tokens_of(self, name: str) -> tuple[int, ...]:
        """Return the rows of module ``name`` that the adapter has."""
        found = [rows for key, rows in self.tokens.items() if not key or f".{name}".endswith(f".{key}")]
        return found[0] if found else ()

    def scale(self, name: str, rank: int) -> float:
        """Return the scale of the product of the factors of module ``name``.

        Raises ``ValueError`` if the factors do not have the configured rank.
        """
        wanted = self.rank_of(name)
        if wanted is not None and wanted != rank:
            key = "r" if _by_pattern(self.ranks, name) is None else "rank_pattern"
            raise ValueError(f"factors of rank {rank} where {key} says {wanted}")
        alpha = _by_pattern(self.alphas, name)
        return (self.alpha if alpha is None else alpha) / (rank**0.5 if self.root else rank)


def _by_pattern(patterns: Mapping[str, Any], name: str) -> Any:
    """Return the value of the first key that matches the end of ``name``, as in PEFT; None without one."""
    for key, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({key})", name):
            return value
    return None


def read_adapter(place: Path) -> Adapter | None:
    """Read the adapter in directory ``place``; None when it has no ``adapter_config.json``."""
    file = place / CONFIG
    if not file.is_file():
        return None
    if file.stat().st_size > _MOST_CONFIG:
        raise UsageError(f"{file} is too large")
    try:
        config = json.loads(file.read_bytes())
        return _adapter(place, config)
    except (ValueError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise UsageError(f"{file} is not the configuration of an adapter: {error}") from error


def _adapter(place: Path, config: dict[str, Any]) -> Adapter:
    kind = _KINDS.get(str(config.get("peft_type")))
    if kind is None:
        raise UsageError(
            f"{place}: adapters of type {config.get('peft_type')} cannot be merged into weights",
            hint="LORA and IA3 can",
        )
    problems = adapter_keys.problems(config)
    if problems:
        raise UsageError(
            f"{place / CONFIG}: {'; '.join(problems)}",
            hint=f"nothing was changed; {adapter_keys.hint(config)}",
        )
    weights = next((place / name for name in _WEIGHTS if (place / name).is_file()), None)
    if weights is None:
        raise UsageError(f"{place} has no {' or '.join(_WEIGHTS)}")
    alphas = {str(key): float(value) for key, value in (config.get("alpha_pattern") or {}).items()}
    ranks = {str(key): int(value) for key, value in (config.get("rank_pattern") or {}).items()}
    for key in (*alphas, *ranks):
        re.compile(key)
    return Adapter(
        kind,
        weights,
        float(config.get("lora_alpha", 8) if kind == "low-rank" else 1),
        alphas,
        None if config.get("r") is None else int(config["r"]),
        ranks,
        bool(config.get("use_rslora", False)),
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
