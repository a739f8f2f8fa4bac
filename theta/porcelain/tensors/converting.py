"""``theta convert`` and ``theta export``: stream the tensors of a checkpoint into a new file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from theta import _fs, _room
from theta.errors import FormatError, NotFoundError, UsageError, WouldOverwriteError, no_tensor
from theta.formats import safetensors, sharded, writers
from theta.formats.derived import arguments, derive
from theta.formats.layout import Source, TensorSpec, clip
from theta.formats.plan import Plan
from theta.formats.values import Value
from theta.progress import Progress, begin
from theta.units import first_names

SUFFIXES: Final = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".gguf": "gguf",
}


@dataclass(frozen=True)
class Model:
    """The tensors to write.

    Attributes:
        values: name -> value.
        formats: the formats of the source files.
        metadata: the metadata for a safetensors file.
        verify: raises :class:`ChangedWhileReadError` if a source file changed while it was read.
        source: the file, where it is a single one.
    """

    values: Mapping[str, Value]
    formats: frozenset[str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    verify: Callable[[], None] = lambda: None
    source: Source | None = None

    def select(self, glob: str) -> Model:
        """Return the tensors whose names match ``glob``; raises :class:`NotFoundError` if none does."""
        kept = {name: value for name, value in self.values.items() if fnmatchcase(name, glob)}
        if not kept:
            raise no_tensor(glob, self.values)
        return replace(self, values=kept)


def target_format(path: Path) -> str:
    """Return the format for the suffix of ``path``; raises :class:`UsageError` for an unknown suffix."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise UsageError(
            f"{path.name}: theta cannot write this kind of file", hint=f"it writes {', '.join(SUFFIXES)}"
        )
    return found


def write(
    model: Model, out: Path, *, shard_size: int = 0, force: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Write ``model`` to ``out``, or to shards beside it and their index; return the paths of the files.

    All files appear at the end, or none.  Raises :class:`FormatError` for tensors that the format cannot
    hold, :class:`WouldOverwriteError` and :class:`NoSpaceError`, all before anything is written.
    """
    name = target_format(out)
    specs = [TensorSpec(key, value.dtype, value.shape) for key, value in model.values.items()]
    _refuse(name, specs)
    if shard_size and name != safetensors.NAME:
        raise UsageError("only safetensors files are written in shards", hint="name a .safetensors file")
    groups = sharded.plan_shards(_in_order(specs), shard_size) if shard_size else (tuple(specs),)
    names = sharded.shard_names(len(groups), out.stem, out.suffix)
    if not groups:
        raise UsageError("there is nothing to write in shards")
    plans = [writers.plan(name, group, _metadata(model, name)) for group in groups]
    index = out.with_name(out.stem + ".safetensors" + sharded.SUFFIX) if len(groups) > 1 else None
    places = [out.with_name(item) for item in names]
    check_places([*places, *([index] if index else [])], sum(plan.layout.size for plan in plans), force)
    with contextlib.ExitStack() as stack:
        if index is not None:
            stack.enter_context(_fs.AtomicFile(index, mode=0o666, nameless=True)).write(
                _index(names, groups, model)
            )
        for place, plan in zip(places, plans, strict=True):
            begin(progress, "writing", plan.layout.size, place.name)
            _stream(
                stack.enter_context(_fs.AtomicFile(place, mode=0o666, nameless=True)),
                plan,
                model.values,
                progress,
            )
        model.verify()
    return [*places, *([index] if index else [])]


def _in_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Sort by name, so that the same tensors always get the same shards."""
    return sorted(specs, key=lambda spec: spec.name)


def _refuse(name: str, specs: Sequence[TensorSpec]) -> None:
    bad = writers.cannot_hold(name, specs)
    if bad:
        listed = first_names([f"{clip(spec.name)} ({_kind(spec.dtype)})" for spec in bad])
        raise FormatError(
            f"{name} cannot hold {len(bad)} of the {len(specs)} tensors: {listed}",
            hint="choose another format, or export the others with REV:PATH#GLOB",
        )


def _kind(dtype: str) -> str:
    return "quantised, or of no type that theta knows" if dtype == "bytes" else dtype


def _metadata(model: Model, name: str) -> dict[str, str] | None:
    """Return the metadata for a safetensors file: Hugging Face's loaders require the entry "format"."""
    if name != safetensors.NAME:
        return None
    if model.metadata or model.formats == {safetensors.NAME}:
        return dict(model.metadata) or None
    return {"format": "pt" if any(item.startswith("torch") for item in model.formats) else "np"}


def check_places(places: Sequence[Path], size: int, force: bool) -> None:
    """Raise a theta error unless files of ``size`` bytes in all can be created at ``places``.

    All places are in one directory.
    """
    for place in places:
        if place.is_dir() or (place.exists() and not force):
            raise WouldOverwriteError(f"{place} is there already", hint="--force writes over it")
    folder = places[0].parent
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}")
    _room.require(folder, size)


def _index(names: Sequence[str], groups: Sequence[Sequence[TensorSpec]], model: Model) -> bytes:
    weight_map = {spec.name: name for name, group in zip(names, groups, strict=True) for spec in group}
    return sharded.write_index(weight_map, sum(value.nbytes for value in model.values.values()))


def _stream(file: _fs.AtomicFile, plan: Plan, values: Mapping[str, Value], progress: Progress | None) -> None:
    """Write the file of ``plan`` sequentially, then its derived fields, such as checksums."""
    for piece in _pieces(plan, values):
        file.write(piece)
        if progress is not None:
            progress(len(piece))
    if file.size != plan.layout.size:
        raise FormatError("a tensor is not as long as its shape says")
    for place in plan.layout.derived:
        file.patch(place.offset, derive(place, arguments(place, _as_source(file))))


def _as_source(file: _fs.AtomicFile) -> Source:
    return file


def _pieces(plan: Plan, values: Mapping[str, Value]) -> Iterator[bytes]:
    items: list[tuple[int, int, bytes | str]] = [
        *((start, len(data), data) for start, data in plan.literals),
        *((place.offset, place.width, bytes(place.width)) for place in plan.layout.derived),
        *((tensor.offset, tensor.length, tensor.name) for tensor in plan.layout.tensors),
    ]
    for _, _, content in sorted(items, key=lambda item: item[:2]):
        if isinstance(content, str):
            yield from values[content].chunks()
        else:
            yield content
