"""torch's checkpoints before 0.1.10: a tar of ``storages``, ``tensors`` and ``pickle``.

``storages`` has a pickled count; for each a pickled ``(key, location, class)``, an ``int64`` number of
elements and the elements; and a pickled list of views ``(key, key of the root, offset, size)``.
``tensors`` has a pickled count; for each tensor a pickled ``(key, key of the storage, class)``, an ``int64``
number of dimensions (its upper half is ignored), sizes, strides and an offset.  ``pickle`` is the object; its
persistent ids are keys of ``tensors``.  ``torch.serialization._legacy_load`` reads it in the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from theta.errors import FormatError
from theta.formats.archives import tarred
from theta.formats.cursor import Cursor
from theta.formats.layout import MAX_RANK, Layout, Source, Window, clip
from theta.formats.pickle.pickle_vm import Call, Global, Persistent, Pickle, read_pickle
from theta.formats.torch.torch_objects import RawStorage, element_size, name_storages

NAME: Final = "torch-tar"
STREAMS: Final = ("storages", "tensors")
OBJECTS: Final = "pickle"
MAX_ITEMS: Final = 100_000
_REBUILD: Final = Global("torch._utils", "_rebuild_tensor_v2")

Views = dict[str, tuple[str, int]]
Storages = dict[str, tuple[Global, RawStorage]]


def detect(source: Source) -> bool:
    """Return whether the file is a tar archive with the three members."""
    if not tarred.detect(source):
        return False
    try:
        return {member.name for member in tarred.read_members(source)} >= {*STREAMS, OBJECTS}
    except FormatError:
        return False


def scan(source: Source) -> Layout:
    """Return a layout of the storages; raises ``FormatError`` for files that torch cannot read."""
    members = {member.name: member for member in tarred.read_members(source)}
    for name in (*STREAMS, OBJECTS):
        if name not in members:
            raise FormatError(f"torch: no {name} in the archive")
    start = members["storages"].payload
    inner = Window(source, start, members["storages"].size)
    found, views = _storages(inner)
    tensors = _tensors(Window(source, members["tensors"].payload, members["tensors"].size), found, views)
    objects = members[OBJECTS]
    root = read_pickle(Window(source, objects.payload, objects.size)).root
    raw = {key: RawStorage(place.offset + start, place.length) for key, (_, place) in found.items()}

    def tensor_of(value: object) -> object:
        pid = value.pid if isinstance(value, Persistent) else None
        return tensors.get(str(pid)) if isinstance(pid, (int, str)) else None

    extents, shown = name_storages(root, raw, False, source.size, tensor_of)
    return Layout(NAME, source.size, extents, views=shown)


def pickle_starts(source: Source, member: str) -> Iterator[int]:
    """Yield the offsets of the pickles in ``storages`` or ``tensors`` up to the first error."""
    yield 0
    try:
        steps = _storage_steps(source) if member == "storages" else _tensor_steps(source)
        for step in steps:
            yield step[0]
    except FormatError:
        return


def _count(source: Source) -> Pickle:
    head = read_pickle(source)
    if not isinstance(head.root, int) or not 0 <= head.root <= MAX_ITEMS:
        raise FormatError("torch: no number of storages or tensors")
    return head


def _triple(found: Pickle) -> tuple[object, object, object]:
    if not isinstance(found.root, tuple) or len(found.root) != 3:
        raise FormatError("torch: a storage or a tensor that is no triple")
    return found.root


def _key(value: object) -> str:
    if not isinstance(value, (int, str)) or len(str(value)) > 100:
        raise FormatError("torch: the key of a storage is no number")
    return str(value)


def _storage_steps(source: Source) -> Iterator[tuple[int, Pickle, int, int]]:
    """Yield the offset of its pickle, the pickle, offset and length of the elements of each storage.

    The last item is the list of views, without elements.
    """
    head = _count(source)
    position = head.end
    for _ in range(int(str(head.root))):
        found = read_pickle(source, position)
        width = element_size(_triple(found)[2])
        if not width:
            raise FormatError("torch: a storage of an unknown class")
        cursor = Cursor(source, found.end, source.size, "torch")
        length = cursor.number(8) * width
        yield position, found, cursor.skip(length), length
        position = found.end + 8 + length
    yield position, read_pickle(source, position), 0, 0


def _tensor_steps(source: Source) -> Iterator[tuple[int, Pickle, list[int]]]:
    """Yield the offset of its pickle, the pickle, and the numbers of each tensor."""
    head = _count(source)
    position = head.end
    for _ in range(int(str(head.root))):
        found = read_pickle(source, position)
        cursor = Cursor(source, found.end, source.size, "torch")
        rank = cursor.number(4)
        cursor.skip(4)
        if rank > MAX_RANK:
            raise FormatError(f"torch: {rank} dimensions")
        numbers = list(struct.unpack(f"<{2 * rank + 1}q", cursor.take(16 * rank + 8)))
        yield position, found, numbers
        position = cursor.position


def _storages(source: Source) -> tuple[Storages, Views]:
    """Return key -> storage, and key of a view -> (key of its storage, offset)."""
    *steps, last = _storage_steps(source)
    stored: Storages = {}
    for _, found, offset, length in steps:
        key, _, kind = _triple(found)
        if _key(key) in stored or not isinstance(kind, Global):
            raise FormatError(f"torch: the storage {clip(_key(key))} is there twice")
        stored[_key(key)] = (kind, RawStorage(offset, length))
    views: Views = {}
    for item in last[1].root if isinstance(last[1].root, list) else []:
        if not isinstance(item, tuple) or len(item) != 4 or not isinstance(item[2], int):
            raise FormatError("torch: a view that is none")
        views[_key(item[0])] = (_key(item[1]), item[2])
    return stored, views


def _tensors(source: Source, stored: Storages, views: Views) -> dict[str, Call]:
    """Return key of a tensor -> the call that would rebuild it in torch today."""
    made: dict[str, Call] = {}
    for _, found, numbers in _tensor_steps(source):
        key, storage, _ = _triple(found)
        root, shift = views.get(_key(storage), (_key(storage), 0))
        if root not in stored:
            raise FormatError(f"torch: no storage {clip(root)}")
        rank = len(numbers) // 2
        kind, place = stored[root]
        pid = ("storage", kind, root, "cpu", place.length)
        shape, strides = tuple(numbers[:rank]), tuple(numbers[rank : 2 * rank])
        made[_key(key)] = Call(_REBUILD, (Persistent(pid), numbers[-1] + shift, shape, strides))
    return made
