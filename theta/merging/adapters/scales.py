"""The ranks and scales of a LoRA adapter, from its ``adapter_config.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from theta.errors import MALFORMED

CONFIG: Final = "adapter_config.json"
MOST_CONFIG: Final = 1 << 20


@dataclass(frozen=True)
class Scales:
    """The ranks of the modules of an adapter, and the scales of their products.

    Attributes:
        alpha: ``lora_alpha``.
        alphas: ``alpha_pattern``: regular expression for a module -> its alpha.
        rank: ``r``, if given.
        ranks: ``rank_pattern``: regular expression for a module -> its rank.
        root: ``use_rslora``: alpha is divided by the square root of the rank.
    """

    alpha: float = 8.0
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    root: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Scales:
        """Read a configuration; raises ``ValueError``, ``TypeError`` or ``re.error`` for a malformed one."""
        alphas = {str(key): float(value) for key, value in (config.get("alpha_pattern") or {}).items()}
        ranks = {str(key): int(value) for key, value in (config.get("rank_pattern") or {}).items()}
        for key in (*alphas, *ranks):
            re.compile(key)
        rank = None if config.get("r") is None else int(config["r"])
        return cls(float(config.get("lora_alpha", 8)), alphas, rank, ranks, bool(config.get("use_rslora")))

    def rank_of(self, name: str) -> int | None:
        """Return the configured rank of module ``name``."""
        pattern = _by_pattern(self.ranks, name)
        return self.rank if pattern is None else int(pattern)

    def scale(self, name: str, rank: int) -> float:
        """Return the scale of the product of the factors of module ``name``.

        Raises ``ValueError`` if the factors do not have the configured rank.
        """
        wanted = self.rank_of(name)
        if wanted is not None and wanted != rank:
            key = "r" if _by_pattern(self.ranks, name) is None else "rank_pattern"
            raise ValueError(f"factors of rank {rank} where {key} says {wanted}")
        alpha = _by_pattern(self.alphas, name)
        found: float = (self.alpha if alpha is None else alpha) / (rank**0.5 if self.root else rank)
        return found


def _by_pattern(patterns: Mapping[str, Any], name: str) -> Any:
    """Return the value of the first key that matches the end of ``name``, as in PEFT; None without one."""
    for key, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({key})", name):
            return value
    return None


def parsed(data: bytes) -> Scales | None:
    """Return the scales in a configuration of LoRA; None for anything else."""
    if len(data) > MOST_CONFIG:
        return None
    try:
        config = json.loads(data)
        is_lora = isinstance(config, dict) and config.get("peft_type") == "LORA"
        found = Scales.of(config) if is_lora else None
    except (*MALFORMED, re.error):
        return None
    return found if found is not None and found.rank else None


def with_rank(data: bytes, rank: int) -> bytes:
    """Return a configuration in which all modules have ``rank`` and a scale of one."""
    config = json.loads(data)
    config |= {"r": rank, "lora_alpha": rank, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"
