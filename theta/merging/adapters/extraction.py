"""Extracting a PEFT adapter: the low-rank difference of a fine-tuned model and its base.

For each changed matrix, the SVD of ``W_tuned - W_base`` is ``U S V^T``, and its first r singular triplets
become ``lora_B = U sqrt(S)`` and ``lora_A = sqrt(S) V^T``, with ``lora_alpha = r`` (a scale of one).  A
matrix stored as ``[in, out]`` is transposed first.  Embeddings, heads and parameters that are no matrices
are saved in full (``modules_to_save``), biases of matrices like PEFT's ``bias="all"``.
The error of base plus adapter is computed from the written values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.errors import UsageError
from theta.merging import coded
from theta.merging.adapters import expert_factors
from theta.merging.adapters.orientation import Orientation
from theta.merging.strategies import is_averaged
from theta.units import first_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PREFIX: Final = "base_model.model."
WHOLE: Final = (
    *("*embed*", "*wte*", "*wpe*", "*lm_head*", "*output_layer*"),
    *("shared", "*.shared", "*relative_attention_bias*"),
)
"""Globs of modules that are saved in full by default: their rows are tokens or positions."""
_WEIGHT: Final = "weight"
_BIAS: Final = "bias"
_ROUTERS: Final = (".gate", ".router")
_EXPERTS: Final = re.compile(r"(?P<block>.+)\.experts(\..*)?")
_NAMED: Final = 8
_LORA_ENDS: Final = (".lora_A.weight", ".lora_B.weight")
_PARAMETER: Final = re.compile(
    rf"\.({expert_factors.BOTH}|{expert_factors.DOWN}|weight)(?=\.lora_[AB]\.weight)"
)
"""The name of a parameter before its factors, which PEFT leaves out."""


@dataclass(frozen=True)
class Pair:
    """A tensor in both models.

    Attributes:
        name: name of the tensor.
        dtype: dtype in the fine-tuned model.
        shape: shape in the fine-tuned model.
        changed: the values differ.
        tuned: reads the fine-tuned value as an array.
        base: reads the base value as an array; None when the base does not have the tensor.
        base_shape: shape in the base.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    changed: bool
    tuned: Callable[[], Array]
    base: Callable[[], Array] | None = None
    base_shape: tuple[int, ...] | None = None

    @property
    def module(self) -> str:
        """The name of the module that has this parameter."""
        return self.name.rpartition(".")[0]

    @property
    def part(self) -> str:
        """The name of the parameter in the module, such as ``weight`` or ``bias``."""
        return self.name.rpartition(".")[2]

    @property
    def alike(self) -> bool:
        """Whether the base has a tensor of this shape."""
        return self.base is not None and self.base_shape == self.shape


@dataclass
class LoraAdapter:
    """An adapter in PEFT's format.

    Attributes:
        tensors: PEFT's name -> array, for ``adapter_model.safetensors``.
        config: the content of ``adapter_config.json``.
        ranks: module -> rank.
        parameters: names of parameters that have factors: experts and routers.
        saved: modules that are saved in full.
        biases: names of saved biases.
        left_out: name -> reason, for changed tensors that the adapter does not need.
        rows: module of a resized embedding or head -> its number of rows.
        error: largest absolute difference between base plus adapter and the fine-tuned model.
        worst: the tensor with that difference.
    """

    tensors: dict[str, Array] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    error: float = 0.0
    worst: str = ""


def extract(
    pairs: Iterable[Pair],
    rank: int,
    *,
    epsilon: float = 0.0,
    whole: Sequence[str] = WHOLE,
    base_model: str = "",
    task_type: str = "",
    tied: Sequence[str] = (),
) -> LoraAdapter:
    """Extract the adapter of at most ``rank`` that best approximates the fine-tuned model.

    Raises :class:`UsageError` if a changed tensor cannot be in an adapter.

    Args:
        pairs: all tensors of the fine-tuned model.
        rank: the largest rank of a module.
        epsilon: singular values up to this fraction of the largest are dropped.
        whole: globs of modules that are saved in full.
        base_model: the name of the base for the configuration.
        task_type: PEFT's name of the task, such as ``CAUSAL_LM``.
        tied: modules that share one weight; all are saved, because PEFT unties a saved module.
    """
    if rank < 1:
        raise UsageError(f"a rank is a whole number of at least 1, not {rank}")
    run = _Extraction(list(pairs), rank, epsilon, whole, tied)
    found = run.adapter()
    found.config |= {"base_model_name_or_path": base_model or None, "task_type": task_type or None}
    return found


class _Extraction:
    """Builds an adapter module by module, and collects tensors that cannot be in one."""

    def __init__(
        self, pairs: list[Pair], rank: int, epsilon: float, whole: Sequence[str], tied: Sequence[str]
    ) -> None:
        self._rank, self._epsilon, self._whole, self._tied = rank, epsilon, whole, tied
        self._modules: dict[str, dict[str, Pair]] = {}
        self._pairs = {pair.name: pair for pair in pairs}
        for pair in pairs:
            self._modules.setdefault(pair.module, {})[pair.part] = pair
        self._coded = coded.groups((pair.name, pair.dtype) for pair in pairs)
        self._orientation = Orientation({pair.name: pair.shape for pair in pairs}, {})
        self._blocks = {match["block"] for name in self._modules if (match := _EXPERTS.fullmatch(name))}
        self._refused: dict[str, str] = {}
        self._of_parameters: set[str] = set()
        self._transposed = False
        self._found = LoraAdapter()

    def adapter(self) -> LoraAdapter:
        """Return the adapter; raises :class:`UsageError`."""
        found = self._found
        self._experts()
        for module, members in self._modules.items():
            rest = {part: pair for part, pair in members.items() if pair.name not in self._of_parameters}
            if any(pair.changed for pair in rest.values()):
                self._module(module, rest)
        if self._refused:
            raise _refusal(self._refused)
        if not found.tensors:
            raise UsageError("the models do not differ in anything that an adapter can hold")
        if not found.ranks:
            self._target_nothing()
        found.config = _config(found, self._rank, transposed=self._transposed)
        return found

    def _experts(self) -> None:
        """Add the factors of experts and routers, which are parameters of modules in memory."""
        usable = {
            name: pair
            for name, pair in self._pairs.items()
            if is_averaged(pair.dtype) and name not in self._coded
        }
        inner = set()
        for one in expert_factors.parameters(usable):
            self._of_parameters |= set(one.tensors)
            self._found.parameters.append(f"{one.module}.{one.name}")
            if one.name == expert_factors.BOTH:
                inner.add(one.module)
            self._parameter(one)
        for module in inner & {key.removesuffix(f".{expert_factors.DOWN}") for key in self._found.parameters}:
            held = [f"{PREFIX}{module}.{expert_factors.BOTH}{end}" for end in _LORA_ENDS]
            for name, end in zip(held, _LORA_ENDS, strict=True):
                self._found.tensors[f"{PREFIX}{module}.base_layer{end}"] = self._found.tensors.pop(name)
        for name in [name for name in self._found.tensors if _PARAMETER.search(name)]:
            self._found.tensors[_PARAMETER.sub("", name)] = self._found.tensors.pop(name)

    def _parameter(self, one: expert_factors.FusedParameter) -> None:
        """Add the factors of a parameter, under its own name so far."""
        wide = np.float64 if self._pairs[one.tensors[0]].dtype == "f64" else np.float32
        before = expert_factors.matrices(one, lambda name: self._read(name, base=True).astype(wide))
        after = expert_factors.matrices(one, lambda name: self._read(name).astype(wide))
        found = [factors(b - a, self._rank, self._epsilon) for a, b in zip(before, after, strict=True)]
        stacks = expert_factors.stacked(found, self._rank)
        for array, end in zip(stacks, _LORA_ENDS, strict=True):
            self._found.tensors[f"{PREFIX}{one.module}.{one.name}{end}"] = np.ascontiguousarray(array)
        sums = [matrix + b @ a for matrix, (a, b) in zip(before, found, strict=True)]
        for name, values in expert_factors.tensors(one, sums).items():
            self._compare(self._pairs[name], values)

    def _read(self, name: str, *, base: bool = False) -> Array:
        pair = self._pairs[name]
        return pair.base() if base and pair.base is not None else pair.tuned()

    def _module(self, module: str, members: Mapping[str, Pair]) -> None:
        """Add a changed module."""
        for pair in list(members.values()):
            reason = self._why_not(module, pair) if pair.changed else ""
            if reason:
                self._refused[pair.name] = reason
            elif pair.changed and not is_averaged(pair.dtype):
                self._found.left_out[pair.name] = f"{pair.dtype} values are no weights"
        held = {part: pair for part, pair in members.items() if is_averaged(pair.dtype)}
        if any(pair.name in self._refused for pair in members.values()):
            return
        weight, bias = held.get(_WEIGHT), held.get(_BIAS)
        if weight is not None and self._is_matrix(weight):
            self._matrix(module, weight, bias)
        elif bias is not None and self._has_parts(module):
            self._beside(module, bias)
        elif any(pair.changed for pair in held.values()):
            self._in_full(module, held)

    def _why_not(self, module: str, pair: Pair) -> str:
        """Return why this tensor cannot be in an adapter; "" if it can."""
        inside = _EXPERTS.fullmatch(module)
        block = module.rpartition(".")[0]
        if pair.name in self._coded:
            return self._coded[pair.name].reason(pair.name)
        if inside or "block_sparse_moe" in module or (block in self._blocks and module.endswith(_ROUTERS)):
            return "experts and routers have other names in memory than in the file, and PEFT goes by those"
        if not is_averaged(pair.dtype):
            return ""
        if not module or (pair.part != _BIAS and self._has_parts(module)):
            return "it is no weight of a module of its own"
        if not pair.alike and (pair.base is None or not self._is_named(module)):
            return "its shape differs from the base's, or the base lacks it"
        if self._is_matrix(pair) and self._orientation.is_transposed(pair.name) is None:
            return "it is square, and others of the model lie both ways: how it lies is not known"
        return ""

    def _has_parts(self, module: str) -> bool:
        """Return whether the module has submodules, which saving it in full would include."""
        return any(other.startswith(f"{module}.") for other in self._modules)

    def _is_named(self, module: str) -> bool:
        return any(fnmatchcase(module, glob) for glob in self._whole)

    def _is_matrix(self, pair: Pair) -> bool:
        """Return whether this is the weight of a linear layer, for which factors are computed."""
        shaped = len(pair.shape) == 2 and min(pair.shape) > 0
        return pair.alike and pair.part == _WEIGHT and shaped and not self._is_named(pair.module)

    # -- tensors of the adapter -----------------------------------------------------------

    def _matrix(self, module: str, weight: Pair, bias: Pair | None) -> None:
        """Add the factors of a weight, and its bias, which PEFT saves in ``base_layer``."""
        if weight.changed:
            self._factor(module, weight)
        if bias is not None and bias.changed:
            self._beside(f"{module}.base_layer" if module in self._found.ranks else module, bias)

    def _beside(self, layer: str, bias: Pair) -> None:
        """Add a bias that is loaded into ``layer`` unchanged."""
        self._found.tensors[f"{PREFIX}{layer}.{_BIAS}"] = bias.tuned()
        self._found.biases.append(bias.name)
        self._compare(bias, bias.tuned())

    def _factor(self, module: str, pair: Pair) -> None:
        assert pair.base is not None
        kind = np.float64 if pair.dtype == "f64" else np.float32
        base: Array = pair.base().astype(kind)
        turned = bool(self._orientation.is_transposed(pair.name))
        difference: Array = pair.tuned().astype(kind) - base
        a, b = factors(difference.T if turned else difference, self._rank, self._epsilon)
        if a.shape[0]:
            self._add(module, a, b, turned)
        product = b @ a
        self._compare(pair, base + (product.T if turned else product))

    def _add(self, module: str, a: Array, b: Array, turned: bool) -> None:
        self._transposed |= turned
        self._found.ranks[module] = a.shape[0]
        self._found.tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        self._found.tensors[f"{PREFIX}{module}.lora_B.weight"] = b

    def _in_full(self, module: str, members: Mapping[str, Pair]) -> None:
        """Add a module in full, also under the names of modules tied to it."""
        found = self._found
        tied = [other for other in self._tied if other not in self._modules] if module in self._tied else []
        for part, pair in members.items():
            value = pair.tuned()
            for name in (module, *tied):
                found.tensors[f"{PREFIX}{name}.{part}"] = value
            self._compare(pair, value)
            if not pair.alike:
                found.rows[module] = pair.shape[0]
        for name in tied:
            # The decoder of BERT's head has the head's bias too, and a saved module has all of its own.
            bias = self._pairs.get(f"{name.rpartition('.')[0]}.{_BIAS}")
            if name.endswith(".decoder") and bias is not None:
                found.tensors[f"{PREFIX}{name}.{_BIAS}"] = bias.tuned()
        found.saved += [module, *tied]

    def _target_nothing(self) -> None:
        """Add zero factors for the first matrix, because PEFT requires a target module."""
        for module, members in self._modules.items():
            pair = members.get(_WEIGHT)
            if pair is None or not self._is_matrix(pair) or self._why_not(module, pair):
                continue
            turned = bool(self._orientation.is_transposed(pair.name))
            rows, columns = pair.shape[::-1] if turned else pair.shape
            self._add(module, np.zeros((1, columns), np.float32), np.zeros((rows, 1), np.float32), turned)
            bias = self._found.tensors.pop(f"{PREFIX}{module}.{_BIAS}", None)
            if bias is not None:
                self._found.tensors[f"{PREFIX}{module}.base_layer.{_BIAS}"] = bias
            return
        raise UsageError(
            "nothing that changed is a matrix, and PEFT loads no adapter without one",
            hint="the fine-tune itself is as small: 'theta export' writes its tensors",
        )

    def _compare(self, pair: Pair, values: Array) -> None:
        """Update the error by ``values``, rounded to the base's dtype, against the fine-tuned tensor."""
        tuned = pair.tuned()
        rounded = values.astype(pair.base().dtype if pair.base is not None else tuned.dtype)
        wide = np.complex128 if np.iscomplexobj(tuned) else np.float64
        gap = np.abs(rounded.astype(wide) - tuned.astype(wide))
        error = float(np.nanmax(gap, initial=0.0))
        if error > self._found.error:
            self._found.error, self._found.worst = error, pair.name


def _refusal(refused: Mapping[str, str]) -> UsageError:
    """Return an error that lists all tensors that cannot be in an adapter, by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in refused.items():
        by_reason.setdefault(reason, []).append(name)
    told = [f"{first_names(names, _NAMED)}: {reason}" for reason, names in by_reason.items()]
    return UsageError(
        f"no adapter can hold what changed: {'; '.join(told)}",
        hint="nothing was written; the fine-tune itself is what stores these: commit it",
    )


def factors(difference: Array, rank: int, epsilon: float = 0.0) -> tuple[Array, Array]:
    """Return ``A [r, in]`` and ``B [out, r]``, whose product ``B A`` best approximates ``[out, in]``.

    r is at most ``rank`` and the number of singular values above ``epsilon`` times the largest.
    Raises :class:`UsageError` if the difference is not finite.
    """
    if not np.isfinite(difference).all():
        raise UsageError("a difference has NaN or infinity and no singular values")
    u, s, v = np.linalg.svd(difference, full_matrices=False)
    smallest = max(epsilon * float(s[0]), float(np.finfo(s.dtype).tiny)) if s.size else 0.0
    r = min(rank, int(np.count_nonzero(s > smallest)))
    root = np.sqrt(s[:r])
    return np.ascontiguousarray(root[:, None] * v[:r]), np.ascontiguousarray(u[:, :r] * root)


def _config(found: LoraAdapter, rank: int, *, transposed: bool) -> dict[str, Any]:
    """Return ``adapter_config.json``, with a pattern for each module whose rank is not ``rank``.

    PEFT derives ``fan_in_fan_out`` from the class of each module; the flag only avoids its warning.
    """
    other = {module: found for module, found in found.ranks.items() if found != rank}
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "all" if found.biases else "none",
        "fan_in_fan_out": transposed,
        "target_modules": sorted(found.ranks),
        "target_parameters": sorted(found.parameters) or None,
        "modules_to_save": sorted(found.saved) or None,
        "rank_pattern": dict(sorted(other.items())),
        "alpha_pattern": dict(sorted(other.items())),
    }
