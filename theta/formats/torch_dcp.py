"""torch's distributed checkpoints: a ``.distcp`` file is one ``torch.save`` zip behind the other.

Which tensor of the model each of them is stands in the ``.metadata`` file beside it, a pickle that is not
read here: the tensors are named by their place, ``0``, ``1``, and so on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from theta.errors import FormatError
from theta.formats import torch_zip, zipped
from theta.formats.layout import Derived, Layout, Source, Tensor, View, Window

NAME: Final = "torch-distributed"
MAX_PARTS: Final = 1_000_000


def detect(source: Source) -> bool:
    """Whether the file begins as a torch zip and ends with another one."""
    if not zipped.first_name(source).endswith("/data.pkl"):
        return False
    try:
        return zipped.archive_start(source) > 0
    except FormatError:
        return False


def scan(source: Source) -> Layout:
    """The storages of all parts in file order; ``FormatError`` when one of the parts is not sound."""
    windows: list[Window] = []
    end = source.size
    while end:
        start = zipped.archive_start(Window(source, 0, end))
        if not 0 <= start < end or len(windows) >= MAX_PARTS:
            raise FormatError("torch: the parts of a distributed checkpoint do not follow one another")
        windows.append(Window(source, start, end - start))
        end = start
    tensors: list[Tensor] = []
    derived: list[Derived] = []
    views: list[View] = []
    for number, window in enumerate(reversed(windows)):
        part = torch_zip.scan(window)
        tensors.extend(_moved_tensor(tensor, window.start, number) for tensor in part.tensors)
        derived.extend(_moved_field(field, window.start) for field in part.derived)
        views.extend(
            replace(view, name=_name(number, view.name), tensor=_name(number, view.tensor))
            for view in part.views
        )
    return Layout(NAME, source.size, tuple(tensors), tuple(derived), tuple(views))


def _name(number: int, name: str) -> str:
    return str(number) if name == "tensor" else f"{number}.{name}"


def _moved_tensor(tensor: Tensor, start: int, number: int) -> Tensor:
    return replace(tensor, name=_name(number, tensor.name), offset=tensor.offset + start)


def _moved_field(field: Derived, start: int) -> Derived:
    ranges = tuple((offset + start, length) for offset, length in field.arguments)
    return replace(field, offset=field.offset + start, arguments=ranges)
