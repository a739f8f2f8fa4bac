"""The workloads of bench/run.py: which models are made, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contestants import Step
from measure import apart


@dataclass(frozen=True)
class Workload:
    """Versions of a model in ``folder/VERSION/``, and steps."""

    about: str
    make: Callable[[Path, float, Path | None], None]
    steps: Callable[[float], list[Step]]
    once: bool = False
    """The repository is made once, and only the steps that may be are repeated."""
    real: bool = False
    """It needs what bench/finetunes.py wrote."""


def _commit(version: str, name: str, *, empty: bool = False) -> Step:
    return Step("commit", f"add + commit, {name}", version, empty=empty)


def _switch(version: str, *, again: bool = False) -> Step:
    return Step("switch", f"switch to {version}", version, again)


LOOK = [
    Step("status", "status, nothing changed", again=True),
    Step("log", "log -1", again=True),
    Step("version", "--version", again=True),
]


def _changes(scale: float) -> list[Step]:
    del scale
    return [
        _commit("base", "new model"),
        _commit("full", "full fine-tune"),
        _switch("base"),
        _commit("lora", "merged LoRA (q, v; rank 16)"),
        _switch("full"),
        _switch("base"),
        _commit("layer", "one layer changed"),
        _switch("full"),
        *LOOK,
    ]


def _real(scale: float) -> list[Step]:
    del scale
    return [
        _commit("base", "new model"),
        _commit("full", "full fine-tune"),
        _commit("full-more", "30 more steps"),
        _switch("base"),
        _commit("lora-f32", "merged LoRA (q, v; rank 8)"),
        _switch("base"),
        _commit("last", "last layer"),
        _switch("full"),
    ]


def _large(scale: float) -> list[Step]:
    del scale
    return [_commit("base", "new model"), *LOOK]


def _small(scale: float) -> list[Step]:
    del scale
    tensors = [_commit("base", "new model"), LOOK[0], _commit("some", "one tensor of a hundred changed")]
    return [*tensors, LOOK[0], _switch("base", again=True), _switch("some", again=True)]


def commits(scale: float) -> int:
    """The length of the history."""
    return max(2, round(100 * scale))


def _history(scale: float) -> list[Step]:
    last = commits(scale)
    made = [Step("commit", "add + commit, a step of training", str(number)) for number in range(last + 1)]
    first = Step("restore", "restore the first", "0", again=True)
    return [*made, first, Step("restore", f"restore the last of {last} more", str(last), again=True)]


def _adamw(scale: float) -> list[Step]:
    del scale
    return [_commit("0", "first save"), _commit("1", "second save"), _commit("2", "third save"), _switch("0")]


def _fresh(scale: float) -> list[Step]:
    del scale
    found = [_commit("base", "base")]
    for name, version in (("new model", "new"), ("full fine-tune", "full"), ("merged LoRA", "lora")):
        for empty in (False, True):
            tail = "kernel cache empty" if empty else "warm"
            found.append(_commit(f"{version}-{'empty' if empty else 'warm'}", f"{name}, {tail}", empty=empty))
            found.append(_switch("base"))
    found.append(Step("switch", "switch to full, kernel cache empty", "full-warm", empty=True))
    return found


def _layers(scale: float, layers: int) -> int:
    return max(1, round(layers * scale))


def _make_changes(folder: Path, scale: float, _: Path | None) -> None:
    _llamas(folder, _layers(scale, 24), 1024, _layers(scale, 32000), "full lora layer")


def _make_large(folder: Path, scale: float, _: Path | None) -> None:
    _llamas(folder, _layers(scale, 112), 1024, _layers(scale, 32000), "")


def _make_fresh(folder: Path, _: float, __: Path | None) -> None:
    kinds = ("new", "full", "lora")
    _llamas(folder, 2, 512, 1000, " ".join(f"{kind}-{end}" for kind in kinds for end in ("warm", "empty")))


def _llamas(folder: Path, layers: int, side: int, words: int, changes: str) -> None:
    call = "models.llamas(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5])"
    apart("models", call, folder, layers, side, words, changes)


def _make_small(folder: Path, scale: float, _: Path | None) -> None:
    count = max(200, round(20_000 * scale))
    apart("models", "models.small_tensors(Path(sys.argv[1]), int(sys.argv[2]))", folder, count)


def _make_history(folder: Path, scale: float, _: Path | None) -> None:
    call = "models.history(Path(sys.argv[1]), int(sys.argv[2]), 2048)"
    apart("models", call, folder, commits(scale))


def _make_adamw(folder: Path, scale: float, _: Path | None) -> None:
    apart("models", "models.adamw(Path(sys.argv[1]), 3, int(sys.argv[2]), 1024)", folder, _layers(scale, 2))


def _make_real(folder: Path, _: float, pairs: Path | None) -> None:
    assert pairs is not None
    apart("models", "models.pairs(*map(Path, sys.argv[1:]))", folder, pairs.resolve())


WORKLOADS: Mapping[str, Workload] = {
    "minilm": Workload("the 90 MB sentence encoder in f32 and its fine-tunes", _make_real, _real, real=True),
    "llama": Workload("0.75 GB in bf16, 24 layers", _make_changes, _changes),
    "large": Workload("3 GB in bf16, 112 layers", _make_large, _large, once=True),
    "tensors": Workload("20,000 tensors of 64 kB in bf16", _make_small, _small, once=True),
    "history": Workload("100 steps of an 8 MB matrix in bf16", _make_history, _history, once=True),
    "adamw": Workload("a training folder: bf16 weights, f32 moments", _make_adamw, _adamw),
    "fresh": Workload("a 15 MB model in bf16 where no kernel is compiled yet", _make_fresh, _fresh),
}


def chosen(names: str, pairs: Path | None) -> Iterator[tuple[str, Workload]]:
    """The workloads called ``names``, or all that can be run."""
    for name in names.split(",") if names else WORKLOADS:
        if names or pairs or not WORKLOADS[name].real:
            yield name, WORKLOADS[name]
