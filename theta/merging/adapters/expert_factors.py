"""Experts and routers of a file as the parameters that a model has in memory, for adapters of PEFT.

Files have the matrices of experts one by one or in one tensor of three dimensions.  transformers 5 has them
in one parameter, ``experts.gate_up_proj`` and ``experts.down_proj``, and PEFT's ``target_parameters`` gives
each factors of all experts side by side: of ``lora_A`` (experts * r, in) the rank varies fastest, of
``lora_B`` (out, r * experts) the expert.  Of two parameters of one module, PEFT wraps ``gate_up_proj`` first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from theta._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BOTH: Final = "gate_up_proj"
DOWN: Final = "down_proj"
_PARTS: Final = (
    (BOTH, ("gate_proj", "up_proj")),
    (BOTH, ("w1", "w3")),
    (DOWN, ("down_proj",)),
    (DOWN, ("w2",)),
)
_EXPERT: Final = re.compile(r"(?P<block>.+)\.experts\.(?P<number>\d+)\.(?P<part>\w+)\.weight")
_FUSED: Final = re.compile(rf"(?P<block>.+)\.experts\.(?P<part>{BOTH}|{DOWN})")
_ROUTER: Final = re.compile(r"(?P<block>.+)\.(?:gate|router)\.weight")
_MOST_EXPERTS: Final = 4096


class InBoth(Protocol):
    """A tensor in both models, of which the name, the shape and the changes are known."""

    @property
    def name(self) -> str:
        """The name of the tensor."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the fine-tuned model."""
        ...

    @property
    def changed(self) -> bool:
        """Whether its values differ."""
        ...

    @property
    def alike(self) -> bool:
        """Whether the base has a tensor of this shape."""
        ...


@dataclass(frozen=True)
class FusedParameter:
    """A parameter of a module in memory, and the tensors of the file that it is made of.

    Attributes:
        module: the module in memory, such as ``model.layers.0.mlp.experts``.
        name: the name of the parameter in the module.
        tensors: names of tensors in the file, expert by expert; those of one expert are below each other.
        count: the number of experts; 1 for a router.
        turned: the file has one tensor of (experts, in, out).
    """

    module: str
    name: str
    tensors: tuple[str, ...]
    count: int
    turned: bool = False

    @property
    def is_fused(self) -> bool:
        """Whether the file has the experts in one tensor."""
        return self.count > len(self.tensors)


def parameters(members: Mapping[str, InBoth]) -> list[FusedParameter]:
    """Return the changed parameters of experts and routers among ``members``, by name; whole ones only."""
    found = [*_one_by_one(members), *_fused(members)]
    blocks = {each.module.removesuffix(".experts") for each in found}
    changed = [each for each in found if any(members[name].changed for name in each.tensors)]
    return [*changed, *_routers(members, blocks | {match["block"] for match in _matches(_EXPERT, members)})]


def _matches(pattern: re.Pattern[str], members: Mapping[str, InBoth]) -> list[re.Match[str]]:
    return [match for match in map(pattern.fullmatch, members) if match]


def in_memory(block: str) -> str:
    """Return the name that the block of experts in a file has in memory: Mixtral's has another."""
    head, dot, last = block.rpartition(".")
    return f"{head}{dot}mlp" if last == "block_sparse_moe" else block


def _one_by_one(members: Mapping[str, InBoth]) -> list[FusedParameter]:
    numbers: dict[str, set[int]] = {}
    for match in _matches(_EXPERT, members):
        if len(match["number"]) <= 4:
            numbers.setdefault(match["block"], set()).add(int(match["number"]))
    found = []
    for block, those in numbers.items():
        count = len(those)
        for name, parts in _PARTS:
            names = [f"{block}.experts.{n}.{part}.weight" for n in range(count) for part in parts]
            if count <= _MOST_EXPERTS and all(each in members for each in names):
                shapes = {members[each].shape for each in names}
                if len(shapes) == 1 and len(next(iter(shapes))) == 2 and all(members[n].alike for n in names):
                    found.append(FusedParameter(f"{in_memory(block)}.experts", name, tuple(names), count))
    return found


def _fused(members: Mapping[str, InBoth]) -> list[FusedParameter]:
    found = []
    for match in _matches(_FUSED, members):
        both, down = (members.get(f"{match['block']}.experts.{name}") for name in (BOTH, DOWN))
        member = members[match.string]
        if both and down and len(both.shape) == len(down.shape) == 3 and member.alike:
            turned, straight = both.shape[2] == 2 * down.shape[1], both.shape[1] == 2 * down.shape[2]
            if turned != straight and member.shape[0] > 1:
                module = f"{in_memory(match['block'])}.experts"
                found.append(FusedParameter(module, match["part"], (member.name,), member.shape[0], turned))
    return found


def _routers(members: Mapping[str, InBoth], blocks: set[str]) -> list[FusedParameter]:
    found = []
    for match in _matches(_ROUTER, members):
        member, block = members[match.string], match["block"]
        if block in blocks and member.changed and member.alike and len(member.shape) == 2:
            module = f"{in_memory(block)}.{match.string[len(block) + 1 :].rpartition('.')[0]}"
            found.append(FusedParameter(module, "weight", (member.name,), 1))
    return found


def matrices(one: FusedParameter, read: Callable[[str], Array]) -> list[Array]:
    """Return the matrix (out, in) of each expert."""
    if one.is_fused:
        return [matrix.T if one.turned else matrix for matrix in read(one.tensors[0])]
    step = len(one.tensors) // one.count
    groups = [one.tensors[at : at + step] for at in range(0, len(one.tensors), step)]
    return [np.vstack([read(name) for name in names]) for names in groups]


def tensors(one: FusedParameter, found: Sequence[Array]) -> dict[str, Array]:
    """Return the tensors of the file that have these matrices: the inverse of :func:`matrices`."""
    if one.is_fused:
        return {one.tensors[0]: np.stack([matrix.T if one.turned else matrix for matrix in found])}
    step = len(one.tensors) // one.count
    parts = [part for matrix in found for part in np.vsplit(matrix, step)]
    return dict(zip(one.tensors, parts, strict=True))


def stacked(found: Sequence[tuple[Array, Array]], rank: int) -> tuple[Array, Array]:
    """Return ``lora_A`` and ``lora_B`` of all experts from those of each, filled up with zeros."""
    a = np.stack([np.pad(a, ((0, rank - a.shape[0]), (0, 0))) for a, _ in found])
    b = np.stack([np.pad(b, ((0, 0), (0, rank - b.shape[1]))) for _, b in found], axis=2)
    return a.reshape(-1, a.shape[2]), b.reshape(b.shape[0], -1)
