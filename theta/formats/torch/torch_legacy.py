"""torch's checkpoints before 1.6: five consecutive pickles, then the storages.

The pickles are a magic number, a protocol version, facts about the machine, the object, and the keys of
the storages in their order.  A storage is an ``int64`` number of elements and the elements.
"""

from __future__ import annotations

from typing import Final

from theta.errors import FormatError
from theta.formats.layout import Layout, Source, clip
from theta.formats.pickle.pickle_vm import Dict, Persistent, read_pickle
from theta.formats.torch.torch_objects import RawStorage, element_size, name_storages

NAME: Final = "torch-legacy"
# The integer 0x1950a86a20f9469cfc6c, pickled with protocol 2.
MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION: Final = 1001


def detect(source: Source) -> bool:
    """Return whether the file starts with the pickled magic number."""
    return source.size > len(MAGIC) and source.read(0, len(MAGIC)) == MAGIC


def scan(source: Source) -> Layout:
    """Return a layout of the storages; raises ``FormatError`` if a pickle cannot be read."""
    version = read_pickle(source, len(MAGIC))
    if version.root != _VERSION:
        raise FormatError("torch: an unknown protocol version")
    system = read_pickle(source, version.end)
    content = read_pickle(source, system.end)
    keys = read_pickle(source, content.end)
    storages = _storages(source, keys.root, _sizes(content.persistent), keys.end)
    tensors, views = name_storages(content.root, storages, _is_big(system.root), source.size)
    return Layout(NAME, source.size, tensors, views=views)


def _is_big(system: object) -> bool:
    if not isinstance(system, Dict):
        raise FormatError("torch: no facts about the machine")
    return any(
        isinstance(key, str) and key == "little_endian" and value is False for key, value in system.pairs
    )


def _sizes(persistent: tuple[Persistent, ...]) -> dict[str, tuple[int, int]]:
    """Return key -> (bytes of an element, number of elements) of all storages that the object names."""
    sizes: dict[str, tuple[int, int]] = {}
    for found in persistent:
        pid = found.pid
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise FormatError("torch: a persistent id that is no storage")
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int):
            raise FormatError("torch: a persistent id that is no storage")
        width = element_size(storage)
        if not width or sizes.setdefault(key, (width, count)) != (width, count):
            raise FormatError(f"torch: the storage {clip(key)} is of an unknown kind, or of two")
    return sizes


def _storages(
    source: Source, keys: object, sizes: dict[str, tuple[int, int]], position: int
) -> dict[str, RawStorage]:
    if not isinstance(keys, list):
        raise FormatError("torch: no list of storages")
    storages: dict[str, RawStorage] = {}
    for key in keys:
        if not isinstance(key, str) or key not in sizes or key in storages:
            raise FormatError("torch: the list of storages does not fit the object")
        width, count = sizes[key]
        if source.size - position < 8:
            raise FormatError("torch: truncated")
        found = int.from_bytes(source.read(position, 8), "little", signed=True)
        position += 8
        if found != count or count < 0 or count * width > source.size - position:
            raise FormatError(f"torch: the storage {clip(key)} is not as long as the object says")
        storages[key] = RawStorage(position, count * width)
        position += count * width
    if position != source.size or len(storages) != len(sizes):
        raise FormatError("torch: bytes behind the last storage, or a storage is missing")
    return storages
