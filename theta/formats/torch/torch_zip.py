"""torch's zip checkpoints (``.pt``, ``.pth``, ``.bin``, ``.ckpt``): storages in a zip, objects in a pickle.

An extent is a storage.  The pickle is read symbolically to name the storages after the tensors that view
them; if it cannot be read, the names have the keys of the storages.  The CRC-32s and
``.data/serialization_id`` are derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from theta.errors import FormatError
from theta.formats.archives import zipped
from theta.formats.fields import Derived
from theta.formats.layout import Layout, Source, Tensor, View, clip
from theta.formats.pickle.pickle_vm import read_pickle
from theta.formats.torch import pickled_object
from theta.formats.torch.torch_objects import RawStorage, name_storages, view_of

NAME: Final = "torch"
_PICKLE: Final = "data.pkl"
_ID: Final = ".data/serialization_id"
_ID_HALF: Final = 20


def detect(source: Source) -> bool:
    """Return whether the file is a zip with a member ``NAME/data.pkl``, usually the first."""
    first = zipped.first_name(source)
    if not first or first.endswith(".npy"):
        return False
    if first.count("/") == 1 and first.endswith("/" + _PICKLE):
        return True
    try:
        return _prefix(zipped.read_members(source)) is not None
    except FormatError:
        return False


def scan(source: Source) -> Layout:
    """Return a layout of the storages; raises ``FormatError`` for a malformed archive."""
    members, prefix, by_name = _opened(source)
    storages = _storages(by_name)
    root = _root(source, by_name[_PICKLE])
    tensors, views = name_storages(root, storages, _is_big(source, by_name.get("byteorder")), source.size)
    derived = tuple(_derived(members, prefix))
    return Layout(NAME, source.size, tensors, derived, views)


def read_object(source: Source, tensor: Callable[[Tensor, View], Any]) -> Any:
    """Return the object of the file, made without torch; ``tensor`` returns the view of a storage in it.

    Raises ``FormatError`` for a malformed archive, and for an object that is not of plain values and tensors.
    """
    _, _, by_name = _opened(source)
    storages, member = _storages(by_name), by_name[_PICKLE]
    if not member.stored or _is_big(source, by_name.get("byteorder")):
        raise FormatError("torch: the object is compressed, or of a big-endian machine")
    found = read_pickle(source, member.payload, member.payload + member.size)
    return pickled_object.read(found.root, lambda value: _viewed(value, storages, tensor))


def _viewed(
    value: object, storages: Mapping[str, RawStorage], tensor: Callable[[Tensor, View], Any]
) -> object:
    view = view_of(value)
    if view is None:
        return None
    raw = storages.get(view.tensor)
    if raw is None:
        raise FormatError(f"torch: there is no storage {clip(view.tensor)}")
    return tensor(Tensor(view.tensor, "bytes", (raw.length,), raw.offset, raw.length), view)


def _opened(
    source: Source,
) -> tuple[tuple[zipped.ZipMember, ...], str, dict[str, zipped.ZipMember]]:
    """Return the members, what their names begin with, and name without it -> member."""
    members = zipped.read_members(source)
    prefix = _prefix(members)
    if prefix is None:
        raise FormatError("torch: no data.pkl in the archive")
    named = {member.name.removeprefix(prefix): member for member in members if member.name.startswith(prefix)}
    return members, prefix, named


def _storages(by_name: Mapping[str, zipped.ZipMember]) -> dict[str, RawStorage]:
    storages: dict[str, RawStorage] = {}
    for name, member in by_name.items():
        if name.startswith("data/") and "/" not in name[5:]:
            if not member.stored:
                raise FormatError(f"torch: the storage {clip(name)} is compressed")
            storages[name[5:]] = RawStorage(member.payload, member.size)
    return storages


def _prefix(members: tuple[zipped.ZipMember, ...]) -> str | None:
    found = [m.name for m in members if m.name.endswith("/" + _PICKLE) and m.name.count("/") == 1]
    return found[0].removesuffix(_PICKLE) if len(found) == 1 else None


def _root(source: Source, member: zipped.ZipMember) -> object:
    """Return the object in the pickle; None when it cannot be read."""
    if not member.stored:
        return None
    try:
        return read_pickle(source, member.payload, member.payload + member.size).root
    except FormatError:
        return None


def _is_big(source: Source, member: zipped.ZipMember | None) -> bool:
    if member is None or member.size != 3 or not member.stored:
        return False
    return source.read(member.payload, 3) == b"big"


def _derived(members: tuple[zipped.ZipMember, ...], prefix: str) -> Iterator[Derived]:
    """Yield the CRCs of all storages, then the serialization id, then the CRC of the id.

    torch folds the CRCs of all data descriptors before the id's own into the last 20 digits of the id
    (``PyTorchStreamWriter`` in ``caffe2/serialize/inline_container.cc``).
    """
    described: list[tuple[int, int]] = []
    for member in members:
        if member.name == prefix + _ID:
            if member.stored and member.size == 2 * _ID_HALF:
                yield Derived("fold-decimal", member.payload + _ID_HALF, _ID_HALF, tuple(described))
                yield from member.derived()
        elif member.stored and member.name.startswith(prefix + "data/"):
            yield from member.derived()
        if member.described:
            described.append((member.crc_fields[0], 4))
