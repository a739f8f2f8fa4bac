"""The formats that theta can write, for merges that change the layout and for exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from theta._numpy import np
from theta.dtypes import name_of
from theta.errors import FormatError
from theta.formats import gguf, npy, safetensors
from theta.formats.archives import npz
from theta.formats.layout import MAX_RANK, TensorSpec
from theta.formats.plan import Builder, Plan, PlannedFile
from theta.formats.torch import torch_writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Writer = Callable[[Sequence[TensorSpec], Mapping[str, str] | None], Plan]


def plan(format_name: str, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None) -> Plan:
    """Plan a new file of the format ``format_name`` (a key of ``WRITERS``) with the tensors ``specs``.

    npz and torch files cannot have ``metadata`` and omit it.  Raises ``FormatError`` for a format that
    theta does not write, and for tensors that the format cannot hold.
    """
    if format_name not in WRITERS:
        raise FormatError(f"theta does not write {format_name} files; it writes {', '.join(WRITERS)}")
    return WRITERS[format_name](specs, metadata)


def in_memory(
    format_name: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> PlannedFile:
    """Return a new file of ``arrays``, of any shape, with the errors of :func:`plan` and of ``name_of``."""
    held = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    specs = [TensorSpec(name, name_of(array.dtype), array.shape) for name, array in held.items()]
    raw = {name: array.reshape(-1).view(np.uint8).data for name, array in held.items()}
    return PlannedFile(plan(format_name, specs, metadata), raw)


def cannot_hold(format_name: str, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the tensors of ``specs`` that a file of ``format_name`` cannot hold.

    No format can hold ``bytes``, because the dtype would be lost: they are quantised blocks, numbers of
    another byte order, or text.
    """
    rank = _RANKS.get(format_name, MAX_RANK)
    return [spec for spec in specs if spec.dtype not in _DTYPES[format_name] or len(spec.shape) > rank]


def _safetensors(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> Plan:
    header, names = safetensors.plan(specs, metadata)
    by_name = {spec.name: spec for spec in specs}
    builder = Builder()
    builder.literal(header)
    for name in names:
        builder.tensor(by_name[name])
    return builder.plan(safetensors.NAME)


# numpy has at most 64 dimensions, ggml 4.
_RANKS: Final = {gguf.NAME: 4}
_DTYPES: Final[dict[str, frozenset[str]]] = {
    safetensors.NAME: safetensors.DTYPES,
    torch_writer.NAME: torch_writer.DTYPES,
    npz.NAME: npy.DTYPES,
    gguf.NAME: gguf.DTYPES,
}

WRITERS: Final[dict[str, Writer]] = {
    safetensors.NAME: _safetensors,
    torch_writer.NAME: lambda specs, _: torch_writer.plan(specs),
    npz.NAME: lambda specs, _: npz.plan(specs),
    gguf.NAME: gguf.plan,
}
