"""torch's distributed checkpoints: a ``.distcp`` file is a concatenation of ``torch.save`` zips.

The names of their tensors are in the ``.metadata`` file beside it, a pickle that is read symbolically.
Without it the tensors are named by their position, ``0``, ``1``, and so on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from theta.errors import FormatError
from theta.formats.archives import zipped
from theta.formats.fields import Derived
from theta.formats.layout import BytesSource, Layout, Placed, Source, Tensor, View
from theta.formats.pickle.pickle_vm import Call, Dict, read_pickle
from theta.formats.torch import torch_zip

NAME: Final = "torch-distributed"
MAX_PARTS: Final = 1_000_000


def detect(source: Source) -> bool:
    """Return whether the file starts with a torch zip and ends with another one."""
    if not zipped.first_name(source).endswith("/data.pkl"):
        return False
    try:
        return zipped.archive_start(source) > 0
    except FormatError:
        return False


def scan(source: Source) -> Layout:
    """Return a layout of the storages of all parts; raises ``FormatError`` if a part is malformed."""
    windows = zipped.archives(source, MAX_PARTS)
    if not windows:
        raise FormatError("torch: the parts of a distributed checkpoint do not follow one another")
    tensors: list[Tensor] = []
    derived: list[Derived] = []
    views: list[View] = []
    names = _names(source)
    for number, window in enumerate(windows):
        part = torch_zip.scan(window)
        prefix = names.get(window.start, str(number))
        tensors.extend(_moved_tensor(tensor, window.start, prefix) for tensor in part.tensors)
        derived.extend(_moved_field(field, window.start) for field in part.derived)
        views.extend(
            replace(view, name=_name(prefix, view.name), tensor=_name(prefix, view.tensor))
            for view in part.views
        )
    return Layout(NAME, source.size, tuple(tensors), tuple(derived), tuple(views))


def _names(source: Source) -> dict[int, str]:
    """Return offset of a part -> its name in the model, as far as ``.metadata`` has it."""
    if not isinstance(source, Placed):
        return {}
    data = source.sibling(".metadata")
    try:
        root = read_pickle(BytesSource(data or b"")).root
    except FormatError:
        return {}
    found: dict[int, str] = {}
    for key, value in _pairs(_fields(root).get("storage_data")):
        index, place = _fields(key), _fields(value)
        name, start = _full_name(index), place.get("offset")
        if place.get("relative_path") == source.name and isinstance(start, int) and name:
            found[start] = name if name not in found.values() else str(len(found))
    return found


def _full_name(index: dict[str, object]) -> str:
    """Return the name in the model, with the start index for a part of a distributed tensor."""
    name, offset = index.get("fqn"), index.get("offset")
    if not isinstance(name, str):
        return ""
    numbers = offset.args[0] if isinstance(offset, Call) and isinstance(offset.args, tuple) else ()
    if not isinstance(numbers, tuple) or not any(numbers):
        return name
    return f"{name}@{','.join(str(number) for number in numbers if isinstance(number, int))}"


def _fields(value: object) -> dict[str, object]:
    """Return the attributes of a symbolic dataclass object."""
    return {key: item for key, item in _pairs(getattr(value, "state", None)) if isinstance(key, str)}


def _pairs(value: object) -> list[tuple[object, object]]:
    return value.pairs if isinstance(value, Dict) else []


def _name(prefix: str, name: str) -> str:
    return prefix if name == "tensor" else f"{prefix}.{name}"


def _moved_tensor(tensor: Tensor, start: int, prefix: str) -> Tensor:
    return replace(tensor, name=_name(prefix, tensor.name), offset=tensor.offset + start)


def _moved_field(field: Derived, start: int) -> Derived:
    ranges = tuple((offset + start, length) for offset, length in field.arguments)
    return replace(field, offset=field.offset + start, arguments=ranges)
