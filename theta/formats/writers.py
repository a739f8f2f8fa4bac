"""The formats that theta can write anew, each as a plan: for merges whose layout changed, and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from theta.errors import FormatError
from theta.formats import gguf, npz, safetensors, torch_writer
from theta.formats.layout import TensorSpec
from theta.formats.plan import Builder, Plan

Writer = Callable[[Sequence[TensorSpec], Mapping[str, str] | None], Plan]


def plan(format_name: str, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None) -> Plan:
    """Lay out a new file of the format ``format_name`` (a key of ``WRITERS``) with the tensors ``specs``.

    npz and torch files have no place for ``metadata`` and leave it out.  ``FormatError`` for a format that
    theta does not write, and for tensors that the format cannot hold.
    """
    if format_name not in WRITERS:
        raise FormatError(f"theta does not write {format_name} files; it writes {', '.join(WRITERS)}")
    return WRITERS[format_name](specs, metadata)


def _safetensors(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> Plan:
    header, names = safetensors.plan(specs, metadata)
    by_name = {spec.name: spec for spec in specs}
    builder = Builder()
    builder.literal(header)
    for name in names:
        builder.tensor(by_name[name])
    return builder.plan(safetensors.NAME)


WRITERS: Final[dict[str, Writer]] = {
    safetensors.NAME: _safetensors,
    torch_writer.NAME: lambda specs, _: torch_writer.plan(specs),
    npz.NAME: lambda specs, _: npz.plan(specs),
    gguf.NAME: gguf.plan,
}
