"""``theta extract-lora``: write the difference of two revisions as a PEFT adapter."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theta import _fs
from theta._numpy import np
from theta.dtypes import name_of, numpy_dtype
from theta.errors import NotFoundError, UsageError
from theta.formats import safetensors, writers
from theta.formats.layout import Source
from theta.formats.values import Value, side_by_side
from theta.merging.adapters.extraction import LoraAdapter, Pair, extract
from theta.porcelain.tensors import converting, sources, tied_weights
from theta.porcelain.tensors.converting import Model
from theta.porcelain.tensors.sources import Named
from theta.porcelain.tensors.tied_weights import TiedWeights
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
_METADATA: Final = {"format": "pt"}
TASKS: Final = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
_TASK_OF: Final = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "T5ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "BartForConditionalGeneration": "SEQ_2_SEQ_LM",
}


def revisions(text: str) -> tuple[str, str]:
    """Split ``BASE..TUNED``; raises :class:`UsageError`."""
    base, dots, tuned = text.partition("..")
    if not dots or not base or tuned.startswith("."):
        raise UsageError(
            f"{text!r} is not BASE..TUNED", hint="theta extract-lora v1..v2 --rank 16 -o adapter"
        )
    return base, tuned or "HEAD"


def the_checkpoint(session: Session, revision: str) -> str:
    """Return the path of the only model in ``revision``; raises :class:`NotFoundError` if not exactly one."""
    found = sorted({*session.at(revision).models()})
    if len(found) != 1:
        raise NotFoundError(
            f"{revision} has {len(found)} checkpoints", hint="name one: theta extract-lora BASE..TUNED PATH"
        )
    return found[0]


@dataclass(frozen=True)
class AdapterWanted:
    """The adapter to extract.

    Attributes:
        rank: the largest rank of a module.
        epsilon: singular values up to this share of the largest are dropped.
        whole: globs of modules that are saved in full; None for embeddings and heads.
        base_model: the name of the base, for PEFT to load.
        task_type: PEFT's name of the task; without it, ``config.json`` tells it.
    """

    rank: int
    epsilon: float = 0.0
    whole: Sequence[str] | None = None
    base_model: str = ""
    task_type: str = ""


def adapter(
    session: Session,
    ends: tuple[str, str],
    paths: tuple[str, str],
    wanted: AdapterWanted,
    progress: Progress | None = None,
) -> tuple[LoraAdapter, str]:
    """Extract the adapter from the checkpoints at ``paths`` of the revisions ``ends``.

    Returns the adapter and a warning, which may be empty.
    """
    if wanted.task_type and wanted.task_type not in TASKS:
        raise UsageError(f"there is no task type {wanted.task_type!r}", hint=f"one of {', '.join(TASKS)}")
    with contextlib.ExitStack() as stack:
        base, tuned = (
            stack.enter_context(sources.opened(Named(revision, path), session.cwd))
            for revision, path in zip(ends, paths, strict=True)
        )
        pairs = _pairs(base, tuned, progress)
        config = tied_weights.beside(session, paths[1], ends[1])
        tied = tied_weights.find(config, tuned.values)
        chosen: dict[str, Any] = {} if wanted.whole is None else {"whole": wanted.whole}
        modules = tied.modules if tied.certain else ()
        chosen |= {"base_model": wanted.base_model, "task_type": wanted.task_type or _task(config)}
        found = extract(pairs, wanted.rank, epsilon=wanted.epsilon, tied=modules, **chosen)
        for name in sorted(base.values.keys() - tuned.values.keys()):
            found.left_out[name] = "the fine-tune lacks it, and an adapter takes nothing away"
        return found, _tie_warning(found, tied)


def _task(config: Mapping[str, Any]) -> str:
    """Return PEFT's name of what a model is for, by its class; "" when PEFT's class of it would add more."""
    classes = config.get("architectures")
    name = str(classes[0]) if isinstance(classes, list) and classes else ""
    return next((task for end, task in _TASK_OF.items() if name.endswith(end)), "")


def _tie_warning(found: LoraAdapter, tied: TiedWeights) -> str:
    """Return a warning if an embedding changed and no configuration says whether the head is tied to it."""
    if tied.certain or not set(tied.modules) & set(found.saved):
        return ""
    return (
        f"{tied.modules[0]} is saved, and no config.json says whether the head is tied to it: if it is, PEFT "
        "gives the head the base's values"
    )


def _pairs(base: Model, tuned: Model, progress: Progress | None) -> Iterator[Pair]:
    """Yield a pair for each tensor of the fine-tuned model; values are compared chunk by chunk."""
    begin(progress, "extracting", sum(value.nbytes for value in tuned.values.values()))
    for name, value in tuned.values.items():
        before = base.values.get(name)
        if progress is not None:
            progress(value.nbytes)
        yield Pair(
            name,
            value.dtype,
            value.shape,
            before is None or _differ(before, value),
            _reader(value),
            _reader(before) if before is not None else None,
            before.shape if before is not None else None,
        )


def _differ(one: Value, other: Value) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return True
    return any(left != right for left, right in side_by_side(one.chunks(), other.chunks()))


def _reader(value: Value) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        flat: NDArray[Any] = np.frombuffer(b"".join(value.chunks()), numpy_dtype(value.dtype))
        return flat.reshape(value.shape)

    return read


def write(found: LoraAdapter, directory: Path, *, force: bool) -> None:
    """Write both files of the adapter into ``directory``, the configuration last."""
    _fs.make_dirs(directory)
    converting.check_places([directory / CONFIG], 0, force)
    values = {name: _value(array) for name, array in found.tensors.items()}
    model = Model(values, frozenset({safetensors.NAME}), _METADATA)
    converting.write(model, directory / WEIGHTS, force=force)
    _fs.write_atomic(directory / CONFIG, _configuration(found))


def in_memory(found: LoraAdapter) -> tuple[Source, bytes]:
    """Return both files of the adapter, as :func:`write` writes them."""
    return writers.in_memory(safetensors.NAME, found.tensors, _METADATA), _configuration(found)


def _configuration(found: LoraAdapter) -> bytes:
    return (json.dumps(found.config, indent=2, sort_keys=True) + "\n").encode()


def _value(array: NDArray[Any]) -> Value:
    return Value(name_of(array.dtype), array.shape, lambda: iter([array.tobytes()]))
