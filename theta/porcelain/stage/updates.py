"""Reading updates from files: low-rank factors, sparse values, scales, or new tensors.

Names may be git-theta's (``<tensor>/R``, ``/C``, ``/ia3``, ``/data``, ``/indices``, ``/shape``), those of
plain factor files (``<module>.lora_A``, ``lora_B``, ``ia3_l``), or those of a PEFT adapter.  A tensor with
any other name replaces the tensor of that name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta import formats
from theta._numpy import np
from theta.codecs import arith
from theta.codecs.base import TensorWords, word_dtype
from theta.dtypes import DTYPES
from theta.errors import UsageError
from theta.formats import opaque
from theta.formats.values import Value, values
from theta.porcelain.stage.adapters import Adapter, read_adapter
from theta.store.files.file_source import FileSource
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Chunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

KINDS: Final = ("low-rank", "sparse", "ia3", "scaled", "dense")
_PARTS: Final = {
    "low-rank": {"R": "u", "C": "v", "lora_B": "u", "lora_A": "v", "lora_up": "u", "lora_down": "v"}
    | {"lora_embedding_B": "v", "lora_embedding_A": "u", "alpha": "alpha"},
    "sparse": {key: key for key in ("data", "indices", "indptr", "shape")},
    "ia3": dict.fromkeys(("ia3", "ia3_l", "scale"), "scale"),
}
_PARTS["scaled"] = _PARTS["ia3"]
_FIXED: Final = {"R", "C", "lora_embedding_A", "lora_embedding_B"}
"""Parts with a fixed orientation: a product with the shape of the tensor, and an embedding table."""
_FLIPPED: Final = ("C", "lora_A", "lora_down", "lora_embedding_A")
"""Parts that a file stores as (rank, columns), the transpose of the factor."""
_REFUSED: Final = ("lora_magnitude_vector", "lora_B.bias")


@dataclass(frozen=True)
class LowRank:
    """Adds ``u @ diag(scales) @ v.T`` to a tensor.

    Attributes:
        u: float64 of shape (rows, rank), the values of the source.
        v: float64 of shape (columns, rank), the values of the source.
        scales: float64 of shape (rank,).
        turns: rows are outputs, so a matrix that is stored as (in, out) needs the transpose.
    """

    u: Matrix
    v: Matrix
    scales: Matrix
    turns: bool = False

    def turned(self) -> LowRank:
        """Return the update of the transposed matrix."""
        return replace(self, u=self.v, v=self.u)


@dataclass(frozen=True)
class Scale:
    """Multiplies a tensor by ``factors``, which broadcast to its shape.

    Attributes:
        factors: float64.
        with_bias: the bias of the same module is multiplied too.
        turns: rows are outputs, as in :class:`LowRank`.
    """

    factors: Matrix
    with_bias: bool = False
    turns: bool = False

    def turned(self) -> Scale:
        """Return the update of the transposed matrix."""
        return replace(self, factors=self.factors.T)


@dataclass(frozen=True)
class Sparse:
    """Adds ``data`` to the elements ``indices`` of the flattened tensor; ``shape`` is checked if given."""

    data: Matrix
    indices: NDArray[np.int64]
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Whole:
    """Replaces a tensor by ``tensor``, cast to the dtype of the old value."""

    tensor: TensorWords


Update = LowRank | Scale | Sparse | Whole


@dataclass(frozen=True)
class Brought:
    """All updates of one source.

    Attributes:
        updates: name -> update.
        modules: the names of modules, which lack ``.weight``.
        problems: why other tensors of the source are no updates.
        of_adapter: the source is an adapter; its names are those of a model in memory.
        transposed: the adapter says that all matrices are stored as ``[in, out]``.
        ties: an update of the embedding also applies to the head tied to it.
    """

    updates: Mapping[str, Update]
    modules: frozenset[str]
    problems: tuple[str, ...] = ()
    of_adapter: bool = False
    transposed: bool = False
    ties: bool = False


def read(place: Path, kind: str | None) -> Brought:
    """Read the updates of ``kind`` in the file or directory ``place``; raises ``UsageError`` if none.

    The ``kind`` may be None for a PEFT adapter, whose configuration has it.
    """
    adapter = read_adapter(place) if place.is_dir() else None
    if adapter is not None and kind not in (None, adapter.kind) and {kind, adapter.kind} != {"ia3", "scaled"}:
        raise UsageError(f"{place} is a {adapter.kind} adapter, not {kind}")
    kind = kind or (adapter.kind if adapter else None)
    if kind is None:
        raise UsageError("--update-data needs --update-type", hint=f"one of {', '.join(KINDS)}")
    files = [adapter.weights] if adapter else _files(place)
    found: dict[str, TensorWords] = {}
    for file in files:
        found |= _tensors(file)
    if not found:
        raise UsageError(f"{place} holds no tensors")
    return _grouped({_stripped(name): tensor for name, tensor in found.items()}, kind, adapter)


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.is_file() and path.suffix != ".json")
    return [place]


def _tensors(path: Path) -> dict[str, TensorWords]:
    with FileSource(path) as source:
        layout, note = formats.scan_or_opaque(source)
        if layout.format == opaque.NAME:
            raise UsageError(f"{path} is not a file of tensors{f': {note}' if note else ''}")
        return {name: _tensor(value) for name, value in values(layout, source).items()}


def _tensor(value: Value) -> TensorWords:
    return TensorWords.from_bytes(b"".join(map(bytes, value.chunks())), value.dtype, value.shape)


def _stripped(name: str) -> str:
    """Return ``name`` without the parts that PEFT inserts."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".modules_to_save.default", "").replace(".base_layer.", ".")


def _grouped(tensors: Mapping[str, TensorWords], kind: str, adapter: Adapter | None) -> Brought:
    keys = _PARTS.get(kind, {})
    pattern = re.compile(
        rf"(?P<name>.+?)[./](?P<part>{'|'.join(keys) or '(?!)'})(?:\.default)?(?P<weight>\.weight)?"
    )
    groups: dict[str, dict[str, TensorWords]] = {}
    updates: dict[str, Update] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        if any(part in name for part in _REFUSED):
            problems.append(f"{name} is of a kind of adapter that is not a plain low-rank one")
        elif match := pattern.fullmatch(name):
            groups.setdefault(match["name"], {})[match["part"]] = tensor
        else:
            updates[name] = Whole(tensor)
    for name, parts in groups.items():
        try:
            updates[name] = _update(name, parts, kind, adapter)
        except (ValueError, KeyError) as error:
            problems.append(f"{name}: {error.args[0]}")
    if kind != "dense" and not groups and not problems:
        wanted = ", ".join(f"<tensor>/{key}" for key in keys)
        raise UsageError(f"the data holds nothing for a {kind} update", hint=f"it has names such as {wanted}")
    brought = Brought(updates, frozenset(groups), tuple(problems))
    if adapter is None:
        return brought
    return replace(brought, of_adapter=True, transposed=adapter.fan_in_fan_out, ties=adapter.ties)


def _update(name: str, parts: Mapping[str, TensorWords], kind: str, adapter: Adapter | None) -> Update:
    if kind == "low-rank":
        return _low_rank(name, parts, adapter)
    if kind == "sparse":
        return _sparse(parts)
    (tensor,) = parts.values()
    of_rows = len(tensor.shape) == 2 and tensor.shape[1] == 1
    of_adapter = adapter is not None
    return Scale(_numbers(tensor), with_bias=of_adapter and of_rows, turns=of_adapter)


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


def _low_rank(name: str, parts: Mapping[str, TensorWords], adapter: Adapter | None) -> LowRank:
    roles = {_PARTS["low-rank"][part]: (part, tensor) for part, tensor in parts.items()}
    if not {"u", "v"} <= roles.keys():
        raise ValueError(f"{' and '.join(sorted(parts))} without the other factor")
    u, v = (_factor(*roles[role]) for role in "uv")
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"factors of ranks {u.shape[1]} and {v.shape[1]}")
    scale = adapter.scale(name, u.shape[1]) if adapter else 1.0
    if "alpha" in roles:
        scale *= float(_numbers(roles["alpha"][1]).reshape(-1)[0]) / u.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(scale * np.abs(u).max() * np.abs(v).max()):
            raise ValueError(f"factors scaled by {scale} are not finite")
    return LowRank(u, v, np.full(u.shape[1], scale), turns=not parts.keys() & _FIXED)


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


def chunks(tensor: TensorWords) -> tuple[Chunk, ...]:
    """Cut ``tensor`` into the chunks in which it is stored."""
    return tensor_tree.cut(tensor.words.data.cast("B"), tensor.dtype, tensor.shape)


def is_value(tensor: TensorWords, line: Line) -> bool:
    """Return whether ``tensor`` has the dtype, shape and digest of ``line``."""
    if (tensor.dtype, tuple(tensor.shape)) != (line.dtype, tuple(line.shape)):
        return False
    return tensor_tree.value_digest(line.dtype, line.shape, chunks(tensor)) == line.digest


def same(one: Update, other: Update) -> bool:
    """Return whether both updates are low-rank or new tensors, and equal."""
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        pairs = ((one.u, other.u), (one.v, other.v), (one.scales, other.scales))
        return all(np.array_equal(mine, its) for mine, its in pairs)
    if isinstance(one, Whole) and isinstance(other, Whole):
        alike = (one.tensor.dtype, one.tensor.shape) == (other.tensor.dtype, other.tensor.shape)
        return alike and np.array_equal(one.tensor.words, other.tensor.words)
    return False


def listed(problems: Iterable[str], limit: int = 20) -> str:
    """Join ``problems`` in one line, at most ``limit`` of them."""
    all_of_them = list(problems)
    more = f"; and {len(all_of_them) - limit} more" if len(all_of_them) > limit else ""
    return "; ".join(all_of_them[:limit]) + more
