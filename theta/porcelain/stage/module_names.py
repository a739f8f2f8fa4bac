"""The tensors of a file that names of an adapter mean: wrappers, renamed modules, fused experts.

An adapter has the names of modules in memory.  A file may have others: a wrapper put something before or
between, a newer transformers has other names than those in which a model was published, or it joins experts
in memory that a file has one by one::

    _orig_mod. (torch.compile), module. (DDP), _fsdp_wrapped_module., _checkpoint_wrapped_module.
    model.language_model.layers.0          language_model.model.layers.0, model.layers.0
    model.visual, model.vision_tower       visual, vision_tower
    mlp.gate, mlp.experts                  block_sparse_moe.gate, block_sparse_moe.experts
    experts.gate_up_proj                   experts.0.gate_proj and up_proj, or w1 and w3
    experts.down_proj                      experts.0.down_proj, or w2

A renaming counts only if the file has a tensor of the new name and none of the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from theta.porcelain.stage.updates import Brought, LowRank, Slices, Stacked, Update, target_of
from theta.store.format.manifest import Line

_WRAPPERS: Final = re.compile(
    r"^module\.|(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_TOWERS: Final = r"visual|vision_tower|vision_model|multi_modal_projector|audio_tower"
_RENAMED: Final = (
    (re.compile(r"\.mlp\.(?=(?:experts|gate)(?:\.|$))"), ".block_sparse_moe."),
    (re.compile(r"\.block_sparse_moe\.(?=(?:experts|gate)(?:\.|$))"), ".mlp."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^model\.language_model\."), "model."),
    (re.compile(r"^language_model\.model\."), "model.language_model."),
    (re.compile(r"^model\.(?!language_model\.)"), "model.language_model."),
    (re.compile(rf"^model\.(?=(?:{_TOWERS})\.)"), ""),
    (re.compile(rf"^(?=(?:{_TOWERS})\.)"), "model."),
    (re.compile(r"^(?=lm_head(?:\.|$))"), "language_model."),
    (re.compile(r"^language_model\.(?=lm_head(?:\.|$))"), ""),
)
_WEIGHT: Final = ".weight"
_FUSED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
"""A parameter of all experts -> the modules of each expert whose matrices it has below each other.

The order is that in which modules define them, so the first is the innermost of PEFT's wrappers.
"""


class ModuleNames:
    """The names in one adapter, looked up among the tensors of one checkpoint."""

    def __init__(self, lines: Mapping[str, Line], brought: Brought) -> None:
        self._lines, self._brought = lines, brought
        self._common = self._renaming()
        self.renamed: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the name of the tensor that ``name`` means, or the likeliest one if there is none."""
        return next((way for way in self.ways(target_of(name)) if self._known(way, name)), self._likely(name))

    def line(self, name: str) -> Line | None:
        """Return the tensor that ``name`` means: of a module its weight or the parameter that is a target."""
        found = self._known(self.of(name), name)
        if found is not None and self._likely(name) not in (found.name, found.name.removesuffix(_WEIGHT)):
            self.renamed[name] = found.name
        return found

    def ways(self, name: str) -> Iterator[str]:
        """Yield ``name`` as the file may have it, the likeliest first."""
        plain = _WRAPPERS.sub("", name)
        yield from dict.fromkeys((self._common(name), name, self._common(plain), plain))
        for start in (plain, self._common(plain)):
            once = [pattern.sub(other, start, 1) for pattern, other in _RENAMED if pattern.search(start)]
            yield from once
            for way in once:
                yield from (pattern.sub(other, way, 1) for pattern, other in _RENAMED if pattern.search(way))

    def _likely(self, name: str) -> str:
        return self._common(target_of(name))

    def _known(self, way: str, name: str) -> Line | None:
        found = self._lines.get(way)
        if found is None and name in self._brought.modules:
            ends = (_WEIGHT, *(f".{key.rpartition('.')[2]}" for key in self._targets(way)))
            found = next((self._lines[way + end] for end in ends if way + end in self._lines), None)
        return found

    def _targets(self, module: str) -> list[str]:
        return [
            key for key in self._brought.parameters if f".{module}".endswith(f".{key.rpartition('.')[0]}")
        ]

    def _renaming(self) -> Callable[[str], str]:
        """Return the renaming that finds the most tensors: none, the first part removed, or one added."""
        ways: list[Callable[[str], str]] = [lambda name: name, lambda name: name.partition(".")[2]]
        ways += [_prefixed(head) for head in sorted({name.partition(".")[0] for name in self._lines})]
        names = self._brought.updates

        def known(way: Callable[[str], str]) -> int:
            return sum(self._known(way(target_of(name)), name) is not None for name in names)

        return max(ways, key=known)

    # -- experts ---------------------------------------------------------------------------------

    def spread(self) -> Brought:
        """Return the updates with those of all experts as one for each tensor of the file."""
        found: dict[str, Update] = dict(self._brought.updates)
        problems = list(self._brought.problems)
        modules: dict[str, list[str]] = {}
        for name in sorted(self._brought.stacked, key=lambda name: -name.count(".base_layer")):
            modules.setdefault(name.replace(".base_layer", ""), []).append(name)
        for module, names in modules.items():
            items = [self._brought.stacked[name] for name in names]
            placed = self._of_experts(module, items)
            if placed is None:
                problems.append(f"{module} has factors of experts that fit none of the file")
            else:
                found |= placed
        return replace(self._brought, updates=found, problems=tuple(problems), stacked={})

    def _of_experts(self, module: str, items: Sequence[Stacked]) -> dict[str, Update] | None:
        named = {key.rpartition(".")[2] for key in self._targets(module)}
        order = [key for key in _FUSED if key in named]
        if len(order) != len(named) or len(order) != len(items):
            return None
        for names in (order, order[::-1]):
            pairs = zip(names, items, strict=True)
            placed = [self._placed(module, name, item) for name, item in pairs]
            if all(one is not None for one in placed):
                return {name: update for one in placed if one for name, update in one.items()}
        return None

    def _placed(self, module: str, parameter: str, item: Stacked) -> dict[str, Update] | None:
        for place in self.ways(module):
            line = self._lines.get(f"{place}.{parameter}")
            if line is not None and len(line.shape) == 3:
                return self._slices(place, line, item)
            for parts in _FUSED[parameter]:
                if f"{place}.0.{parts[0]}{_WEIGHT}" in self._lines:
                    found = self._split(place, parts, item)
                    if found and place != module:
                        self.renamed[f"{module}.{parameter}"] = next(iter(found))
                    return found
        return None

    def _split(self, place: str, parts: Sequence[str], item: Stacked) -> dict[str, Update] | None:
        """Return the updates of matrices that the file has one by one."""
        found: dict[str, Update] = {}
        if f"{place}.{item.count}.{parts[0]}{_WEIGHT}" in self._lines:
            return None
        for number, one in enumerate(item.experts()):
            names = [f"{place}.{number}.{part}{_WEIGHT}" for part in parts]
            if not all(name in self._lines and len(self._lines[name].shape) == 2 for name in names):
                return None
            rows, columns = self._lines[names[0]].shape
            wanted = (rows * len(parts), columns)
            # Older versions of PEFT take experts of (out, in) for ones of (in, out).
            fitting = [way for way in (one, one.turned()) if _shape(way) == wanted]
            if not fitting:
                return None
            for at, name in enumerate(names):
                found[name] = replace(fitting[0], u=fitting[0].u[at * rows : (at + 1) * rows])
        return found

    def _slices(self, place: str, line: Line, item: Stacked) -> dict[str, Update] | None:
        """Return the update of a tensor that has the matrices of all experts."""
        count, *shape = line.shape
        turned = self._lies_turned(place) if shape[0] == shape[1] else None
        items = []
        for one in item.experts():
            ways = [(one, False), (one.turned(), True)]
            fits = [
                way for way, is_turned in ways if _shape(way) == tuple(shape) and turned in (None, is_turned)
            ]
            items += fits[:1]
        return {line.name: Slices(tuple(items))} if len(items) == count == item.count else None

    def _lies_turned(self, place: str) -> bool:
        """Return whether square experts are (in, out), as those of both matrices that they are beside."""
        both, down = (self._lines.get(f"{place}.{name}") for name in _FUSED)
        if both is None or down is None or len(both.shape) != 3 or len(down.shape) != 3:
            return False
        return both.shape[2] == 2 * down.shape[1] and both.shape[1] != 2 * down.shape[2]


def _prefixed(head: str) -> Callable[[str], str]:
    return lambda name: f"{head}.{name}"


def _shape(item: LowRank) -> tuple[int, int]:
    return item.u.shape[0], item.v.shape[0]
