"""A fine-tune as an adapter: the difference of two models in low rank, as PEFT loads it.

Of each matrix that changed, ``W_tuned - W_base`` is decomposed, ``U S V^T``, and its first r singular
triplets become ``lora_B = U sqrt(S)`` and ``lora_A = sqrt(S) V^T``, with ``lora_alpha = r`` (a scale
of one).  Embeddings, heads and what is no matrix are saved in full (``modules_to_save``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from theta.errors import UsageError
from theta.merging.strategies import is_averaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PREFIX: Final = "base_model.model."
WHOLE: Final = ("*embed*", "*wte*", "*wpe*", "*lm_head*", "*output_layer*")
"""Modules that are saved in full by default: their rows are tokens, not directions."""


@dataclass(frozen=True)
class Pair:
    """One tensor in both models; each is read when it is asked for, as an array of its shape.

    ``base`` is none where only the fine-tune has it; ``changed`` says whether the values differ.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    changed: bool
    tuned: Callable[[], Array]
    base: Callable[[], Array] | None = None
    base_shape: tuple[int, ...] | None = None


@dataclass
class Adapter:
    """What PEFT loads: the tensors of ``adapter_model.safetensors`` and ``adapter_config.json``.

    Attributes:
        tensors: PEFT's name -> array.
        config: the content of the configuration.
        ranks: module -> rank.
        left_out: tensors that changed and that no adapter can hold, with the reason.
    """

    tensors: dict[str, Array] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def extract(
    pairs: Iterable[Pair],
    rank: int,
    *,
    epsilon: float = 0.0,
    whole: Sequence[str] = WHOLE,
    base_model: str = "",
) -> Adapter:
    """The adapter that turns the base into the fine-tune, as near as ``rank`` allows.

    Args:
        pairs: all tensors of the fine-tune.
        rank: the largest rank of a module.
        epsilon: singular values up to this are left out, relative to the largest.
        whole: globs of modules that are saved in full.
        base_model: the name of the base that the configuration gives.
    """
    if rank < 1:
        raise UsageError(f"a rank is a whole number of at least 1, not {rank}")
    found = Adapter()
    modules: dict[str, list[Pair]] = {}
    for pair in pairs:
        modules.setdefault(pair.name.rpartition(".")[0], []).append(pair)
    saved = []
    for module, members in modules.items():
        if any(pair.changed for pair in members) and _module(found, module, members, rank, epsilon, whole):
            saved.append(module)
    if not found.tensors:
        raise UsageError("the models do not differ in anything that an adapter can hold")
    found.config = _config(found.ranks, saved, rank, base_model)
    return found


def _module(
    found: Adapter, module: str, members: list[Pair], rank: int, epsilon: float, whole: Sequence[str]
) -> bool:
    """Add one module that changed; whether it is saved in full."""
    weight = next((pair for pair in members if _is_matrix(module, pair, whole)), None)
    if weight is not None:
        for pair in members:
            if pair is not weight and pair.changed:
                found.left_out[pair.name] = "a bias beside a matrix in low rank"
        if weight.changed:
            _factor(found, module, weight, rank, epsilon)
        return False
    for pair in members:
        if not module or not is_averaged(pair.dtype):
            found.left_out[pair.name] = "not a weight of a module" if not module else f"{pair.dtype} values"
        elif not any(fnmatchcase(module, glob) for glob in whole) and pair.base_shape != pair.shape:
            found.left_out[pair.name] = "its shape differs from the base's, or the base lacks it"
        else:
            found.tensors[PREFIX + pair.name] = pair.tuned()
    return any(PREFIX + pair.name in found.tensors for pair in members)


def _is_matrix(module: str, pair: Pair, whole: Sequence[str]) -> bool:
    """Whether this is the weight of a linear layer that low rank goes for."""
    alike = pair.base is not None and pair.base_shape == pair.shape
    named = pair.name.endswith(".weight") and not any(fnmatchcase(module, glob) for glob in whole)
    return alike and named and len(pair.shape) == 2 and min(pair.shape) > 0 and is_averaged(pair.dtype)


def _factor(found: Adapter, module: str, pair: Pair, rank: int, epsilon: float) -> None:
    import numpy as np

    assert pair.base is not None
    kind = np.float64 if pair.dtype == "f64" else np.float32
    a, b = factors(pair.tuned().astype(kind) - pair.base().astype(kind), rank, epsilon)
    if not a.shape[0]:
        return
    found.ranks[module] = a.shape[0]
    found.tensors[f"{PREFIX}{module}.lora_A.weight"] = a
    found.tensors[f"{PREFIX}{module}.lora_B.weight"] = b


def factors(difference: Array, rank: int, epsilon: float = 0.0) -> tuple[Array, Array]:
    """``A [r, in]`` and ``B [out, r]`` with ``B A`` the best approximation of rank r of ``[out, in]``.

    r is at most ``rank``, and the number of singular values above ``epsilon`` times the largest.
    Raises :class:`UsageError` where the difference is not finite.
    """
    import numpy as np

    if not np.isfinite(difference).all():
        raise UsageError("a difference has NaN or infinity and no singular values")
    u, s, v = np.linalg.svd(difference, full_matrices=False)
    smallest = max(epsilon * float(s[0]), float(np.finfo(s.dtype).tiny)) if s.size else 0.0
    r = min(rank, int(np.count_nonzero(s > smallest)))
    root = np.sqrt(s[:r])
    return np.ascontiguousarray(root[:, None] * v[:r]), np.ascontiguousarray(u[:, :r] * root)


def _config(ranks: dict[str, int], saved: list[str], rank: int, base_model: str) -> dict[str, Any]:
    """``adapter_config.json``; modules of another rank than ``rank`` have a pattern of their own."""
    other = {module: found for module, found in ranks.items() if found != rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_model or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(ranks),
        "modules_to_save": sorted(saved) or None,
        "rank_pattern": dict(sorted(other.items())),
        "alpha_pattern": dict(sorted(other.items())),
    }
