"""Reading updates from files.

Names may be git-theta's (``<tensor>/R``, ``/C``, ``/ia3``, ``/data``, ``/indices``, ``/shape``), those of
plain factor files (``<module>.lora_A``, ``lora_B``, ``ia3_l``), or those of a PEFT adapter.  A tensor with
any other name replaces the tensor of that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta import formats
from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import TensorWords, word_dtype
from theta.dtypes import DTYPES
from theta.errors import UsageError
from theta.formats import opaque
from theta.formats.layout import Source
from theta.formats.values import Value, values
from theta.merging.adapters.scales import CONFIG
from theta.porcelain.stage import adapters
from theta.porcelain.stage.adapters import Adapter, read_adapter
from theta.porcelain.stage.updates import (
    BIAS_OF_B,
    KINDS,
    Brought,
    LowRank,
    Rows,
    Scale,
    Sparse,
    Stacked,
    Update,
    Whole,
)
from theta.store.files.file_source import FileSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

_PARTS: Final = {
    "low-rank": {"R": "u", "C": "v", "lora_B": "u", "lora_A": "v", "lora_up": "u", "lora_down": "v"}
    | {
        "lora_embedding_B": "v",
        "lora_embedding_A": "u",
        "alpha": "alpha",
        "lora_magnitude_vector": "magnitude",
    },
    "sparse": {key: key for key in ("data", "indices", "indptr", "shape")},
    "ia3": dict.fromkeys(("ia3", "ia3_l", "scale"), "scale"),
}
_PARTS["scaled"] = _PARTS["ia3"]
_FIXED: Final = {"R", "C", "lora_embedding_A", "lora_embedding_B"}
"""Parts with a fixed orientation: a product with the shape of the tensor, and an embedding table."""
_FLIPPED: Final = ("C", "lora_A", "lora_down", "lora_embedding_A")
"""Parts that a file stores as (rank, columns), the transpose of the factor."""
_TOKENS: Final = ".token_adapter.trainable_tokens_delta"
_INSERTED: Final = re.compile(
    r"\.modules_to_save\.default|\.token_adapter(?=\.base_layer)"
    r"|\.base_layer(?=\.)(?!(?:\.base_layer){0,9}\.lora_)"
)
"""Parts that PEFT inserts in names.

A ``base_layer`` before factors stays: it tells the parameters of one module apart.
"""


def read(place: Path, kind: str | None) -> Brought:
    """Read the updates of ``kind`` in the file or directory ``place``; raises ``UsageError`` if none.

    The ``kind`` may be None for a PEFT adapter, whose configuration has it.  The file of its weights, as PEFT
    names it, is read with the configuration beside it.
    """
    given = place
    place = place.parent if place.name in adapters.WEIGHTS else place
    if not (place / CONFIG).is_file() and any((place / name).is_file() for name in adapters.WEIGHTS):
        raise UsageError(
            f"{place} has no {CONFIG}, which has the scale of the factors (lora_alpha / r)",
            hint="a file of factors with another name is taken with scale 1, or that of its 'alpha'",
        )
    adapter = read_adapter(place) if place.is_dir() else None
    if adapter is not None and kind not in (None, adapter.kind) and {kind, adapter.kind} != {"ia3", "scaled"}:
        raise UsageError(f"{place} is a {adapter.kind} adapter, not {kind}")
    kind = kind or (adapter.kind if adapter else None)
    if kind is None:
        raise UsageError("--update-data needs --update-type", hint=f"one of {', '.join(KINDS)}")
    found: dict[str, TensorWords] = {}
    for file in [adapters.weights(place)] if adapter and given == place else _files(given):
        found |= _tensors(file)
    if not found:
        raise UsageError(f"{place} holds no tensors")
    return _grouped({_stripped(name): tensor for name, tensor in found.items()}, kind, adapter)


def of_adapter(adapter: Adapter, weights: Source, label: str) -> Brought:
    """Return the updates of ``adapter``, whose ``weights`` are called ``label``; as :func:`read`."""
    found = _of_source(weights, label)
    if not found:
        raise UsageError(f"{label} holds no tensors")
    return _grouped({_stripped(name): tensor for name, tensor in found.items()}, adapter.kind, adapter)


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.is_file() and path.suffix != ".json")
    return [place]


def _tensors(path: Path) -> dict[str, TensorWords]:
    with FileSource(path) as source:
        return _of_source(source, str(path))


def _of_source(source: Source, label: str) -> dict[str, TensorWords]:
    layout, note = formats.scan_or_opaque(source)
    if layout.format == opaque.NAME:
        raise UsageError(f"{label} is not a file of tensors{f': {note}' if note else ''}")
    return {name: _tensor(value) for name, value in values(layout, source).items()}


def _tensor(value: Value) -> TensorWords:
    return TensorWords.from_bytes(b"".join(map(bytes, value.chunks())), value.dtype, value.shape)


def _stripped(name: str) -> str:
    """Return ``name`` without the parts that PEFT inserts."""
    return _INSERTED.sub("", name.removeprefix("base_model.model."))


def _grouped(tensors: Mapping[str, TensorWords], kind: str, adapter: Adapter | None) -> Brought:
    keys = _PARTS.get(kind, {})
    pattern = re.compile(
        rf"(?P<name>.+?)[./](?P<part>{'|'.join(keys) or '(?!)'})(?:\.default)?(?P<weight>\.weight)?"
    )
    groups: dict[str, dict[str, TensorWords]] = {}
    updates: dict[str, Update] = {}
    stacked: dict[str, Stacked] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        if name.endswith(BIAS_OF_B) and kind == "low-rank":
            groups.setdefault(name.removesuffix(BIAS_OF_B), {})["bias"] = tensor
        elif name.endswith(_TOKENS) and adapter is not None:
            groups.setdefault(name.removesuffix(_TOKENS), {})["tokens"] = tensor
        elif match := pattern.fullmatch(name):
            groups.setdefault(match["name"], {})[match["part"]] = tensor
        else:
            updates[name] = Whole(tensor)
    for name, parts in groups.items():
        try:
            for key, found in _updates(name, parts, kind, adapter):
                if isinstance(found, Stacked):
                    stacked[key] = found
                else:
                    updates[key] = found
        except (ValueError, KeyError) as error:
            problems.append(f"{name}: {error.args[0]}")
    if kind != "dense" and not groups and not problems:
        wanted = ", ".join(f"<tensor>/{key}" for key in keys)
        raise UsageError(f"the data holds nothing for a {kind} update", hint=f"it has names such as {wanted}")
    brought = Brought(updates, frozenset(groups), tuple(problems))
    if adapter is None:
        return brought
    return replace(
        brought,
        of_adapter=True,
        transposed=adapter.fan_in_fan_out,
        ties=adapter.ties,
        stacked=stacked,
        parameters=adapter.parameters,
        saved=adapter.saved,
    )


def _updates(
    name: str, parts: Mapping[str, TensorWords], kind: str, adapter: Adapter | None
) -> Iterator[tuple[str, Update | Stacked]]:
    """Yield the updates of one module, and their names."""
    rest = dict(parts)
    bias, tokens = rest.pop("bias", None), rest.pop("tokens", None)
    if tokens is not None and rest:
        raise ValueError("factors, and rows of single tokens")
    if tokens is not None and adapter is not None:
        yield name, _rows(adapter.tokens_of(name), tokens)
    if kind == "sparse":
        yield name, _sparse(rest)
    elif kind == "low-rank":
        if rest:
            yield name, _low_rank(name, rest, adapter)
        if bias is not None:
            rank = _factor("lora_B", rest["lora_B"]).shape[1]
            added = _numbers(bias).reshape(-1) * _scale(name, rest, adapter, rank)
            yield name + BIAS_OF_B, Sparse(added, np.arange(added.size), (added.size,))
    else:
        (tensor,) = rest.values()
        of_rows = len(tensor.shape) == 2 and tensor.shape[1] == 1
        of_adapter = adapter is not None
        yield name, Scale(_numbers(tensor), with_bias=of_adapter and of_rows, turns=of_adapter)


def _rows(indices: Sequence[int], tensor: TensorWords) -> Rows:
    if len(tensor.shape) != 2 or len(set(indices)) != len(indices) or len(indices) != tensor.shape[0]:
        raise ValueError(f"{list(tensor.shape)} are not the rows of {len(indices)} tokens")
    return Rows(tuple(indices), tensor)


def _numbers(tensor: TensorWords) -> Matrix:
    """Return the values as float64; raises ``ValueError`` if one is not finite."""
    if arith.has_values(tensor.dtype):
        found = arith.to_values(tensor.words, tensor.dtype)
    elif DTYPES[tensor.dtype].kind in ("int", "uint"):
        found = _integers(tensor).astype(np.float64)
    else:
        raise ValueError(f"{tensor.dtype} is not a dtype of numbers")
    if not np.isfinite(found).all():
        raise ValueError("the update holds NaN or infinity")
    return found.reshape(tensor.shape)


def _integers(tensor: TensorWords) -> NDArray[Any]:
    if DTYPES[tensor.dtype].kind not in ("int", "uint"):
        raise ValueError(f"indices and shapes are integers, not {tensor.dtype}")
    letter = "i" if DTYPES[tensor.dtype].kind == "int" else "u"
    return tensor.words.view(f"<{letter}{word_dtype(tensor.dtype).itemsize}")


def _low_rank(name: str, parts: Mapping[str, TensorWords], adapter: Adapter | None) -> LowRank | Stacked:
    roles = {_PARTS["low-rank"][part]: (part, tensor) for part, tensor in parts.items()}
    if not {"u", "v"} <= roles.keys():
        raise ValueError(f"{' and '.join(sorted(parts))} without the other factor")
    u, v = (_factor(*roles[role]) for role in "uv")
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"factors of ranks {u.shape[1]} and {v.shape[1]}")
    rank = adapter.scales.rank_of(name) if adapter else None
    if adapter and rank and adapter.has_parameters_of(name) and u.shape[1] != rank and not u.shape[1] % rank:
        return Stacked(u, np.ascontiguousarray(v), adapter.scale(name, rank), rank)
    scale = _scale(name, parts, adapter, u.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(scale * np.abs(u).max() * np.abs(v).max()):
            raise ValueError(f"factors scaled by {scale} are not finite")
    if adapter is not None and adapter.dora != ("magnitude" in roles):
        raise ValueError(
            f"use_dora is {adapter.dora}, and the file has {['no', 'a'][not adapter.dora]} magnitude"
        )
    magnitude = _numbers(roles["magnitude"][1]).reshape(-1) if "magnitude" in roles else None
    fixed = bool(parts.keys() & _FIXED)
    scales = np.full(u.shape[1], scale)
    # DoRA gives norms to outputs: the rows of a matrix (out, in), and the columns of an embedding.
    return LowRank(u, v, scales, turns=not fixed, magnitude=magnitude, by_column=fixed)


def _scale(name: str, parts: Mapping[str, TensorWords], adapter: Adapter | None, rank: int) -> float:
    scale = adapter.scale(name, rank) if adapter else 1.0
    if "alpha" in parts:
        scale *= float(_numbers(parts["alpha"]).reshape(-1)[0]) / rank
    return scale


def _factor(part: str, tensor: TensorWords) -> Matrix:
    """Return a factor of shape (lines, rank), with the kernels of convolutions flattened."""
    numbers = _numbers(tensor)
    if numbers.ndim < 2 or 0 in numbers.shape:
        raise ValueError(f"{part} of shape {list(tensor.shape)} is not a factor")
    if part in _FLIPPED:
        return np.ascontiguousarray(numbers.reshape(numbers.shape[0], -1).T)
    if math.prod(numbers.shape[2:]) != 1:
        raise ValueError(f"{part} of shape {list(tensor.shape)} is not a factor")
    return np.ascontiguousarray(numbers.reshape(numbers.shape[:2]))


def _sparse(parts: Mapping[str, TensorWords]) -> Sparse:
    data, indices = _numbers(parts["data"]).reshape(-1), _integers(parts["indices"]).astype(np.int64)
    if data.size != indices.size:
        raise ValueError(f"{data.size} values for {indices.size} indices")
    if "indptr" in parts and _integers(parts["indptr"]).tolist() != [0, data.size]:
        raise ValueError("indptr is not that of one flat row")
    shape = tuple(_integers(parts["shape"]).tolist()) if "shape" in parts else None
    return Sparse(data, indices, shape)
