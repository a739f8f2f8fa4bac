"""The updates that a source brings: low-rank factors, sparse values, scales, rows, or new tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from theta._numpy import np
from theta.codecs.base import TensorWords
from theta.store.format import tensor_tree
from theta.store.format.manifest import Line
from theta.store.format.tensor_tree import Chunk
from theta.units import first_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

KINDS: Final = ("low-rank", "sparse", "ia3", "scaled", "dense")
_KINDS: Final = 8
"""The further kinds of faults that an error tells."""
BIAS_OF_B: Final = ".lora_B.bias"
"""The end of the name of a bias that is added, scaled, to the bias of the module."""


@dataclass(frozen=True)
class LowRank:
    """Adds ``u @ diag(scales) @ v.T`` to a tensor.

    Attributes:
        u: float64 of shape (rows, rank), the values of the source.
        v: float64 of shape (columns, rank), the values of the source.
        scales: float64 of shape (rank,).
        turns: rows are outputs, so a matrix that is stored as (in, out) needs the transpose.
        magnitude: the norm to give each row of the sum (DoRA), or each column; None to leave them.
        by_column: the magnitude is for columns.
    """

    u: Matrix
    v: Matrix
    scales: Matrix
    turns: bool = False
    magnitude: Matrix | None = None
    by_column: bool = False

    def turned(self) -> LowRank:
        """Return the update of the transposed matrix."""
        return replace(self, u=self.v, v=self.u, by_column=not self.by_column)


@dataclass(frozen=True)
class Stacked:
    """Factors of all experts of one parameter, side by side as PEFT has them (``target_parameters``).

    Attributes:
        u: float64 of shape (out, rank * experts); the expert is the index that varies fastest.
        v: float64 of shape (in, experts * rank); the rank is the index that varies fastest.
        scale: the scale of each product.
        rank: the rank of each product.
    """

    u: Matrix
    v: Matrix
    scale: float
    rank: int

    @property
    def count(self) -> int:
        """The number of experts."""
        return int(self.u.shape[1]) // self.rank

    def experts(self) -> Iterator[LowRank]:
        """Yield the update of each expert, a matrix of (out, in)."""
        u = self.u.reshape(-1, self.rank, self.count)
        v = self.v.reshape(-1, self.count, self.rank)
        scales = np.full(self.rank, self.scale)
        for number in range(self.count):
            one, other = u[:, :, number], v[:, number]
            yield LowRank(np.ascontiguousarray(one), np.ascontiguousarray(other), scales)


@dataclass(frozen=True)
class Slices:
    """Adds a product to each matrix of a tensor of three dimensions."""

    items: tuple[LowRank, ...]


@dataclass(frozen=True)
class Rows:
    """Replaces the rows ``indices`` of a tensor by those of ``tensor``, cast to its dtype."""

    indices: tuple[int, ...]
    tensor: TensorWords


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


Update = LowRank | Scale | Sparse | Whole | Rows | Slices


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
        stacked: name of a module -> factors of all its experts.
        parameters: ``target_parameters``: the ends of names of parameters of modules.
        saved: ``modules_to_save``: the ends of names of modules that the adapter has in full.
    """

    updates: Mapping[str, Update]
    modules: frozenset[str]
    problems: tuple[str, ...] = ()
    of_adapter: bool = False
    transposed: bool = False
    ties: bool = False
    stacked: Mapping[str, Stacked] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()


def target_of(name: str) -> str:
    """Return the name of what the update ``name`` changes: a bias beside factors is added to the module's."""
    return name.removesuffix(BIAS_OF_B) + ".bias" if name.endswith(BIAS_OF_B) else name


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


def told(problems: Iterable[str]) -> tuple[str, list[str]]:
    """Return the first kind of ``problems`` in a few words, and a line for each of the other kinds.

    A problem is the name of a tensor and, behind a space, what is wrong with it; tensors with the same
    fault are counted together.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        name, _, reason = problem.partition(" ")
        kinds.setdefault(reason, []).append(name)
    first, *others = (_of_kind(reason, names) for reason, names in kinds.items())
    more = [f"and {len(others) - _KINDS} other faults"] if len(others) > _KINDS else []
    return first, [*(f"also {one}" for one in others[:_KINDS]), *more]


def _of_kind(reason: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} {reason}".rstrip()
    each = "" if names[0].endswith(":") else "each "
    return f"{first_names([name.rstrip(':') for name in names])}: {each}{reason}"
