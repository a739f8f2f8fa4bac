"""Container formats: locating the tensors in a file, by its content and never by its extension.

A reader is imported when a file may have its format: every file of the format has a sign, in its name or in
its first bytes.  ``detect`` of the reader still looks at a file that has the sign.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from theta.errors import FormatError
from theta.formats import opaque
from theta.formats.fields import Derived
from theta.formats.layout import BytesSource, Layout, Placed, Source, Tensor, TensorSpec, View
from theta.lazy import lazy

if TYPE_CHECKING:
    from theta.formats.plugins import Plugin

__all__ = [
    "READERS",
    "BytesSource",
    "Derived",
    "FormatReader",
    "Head",
    "Layout",
    "Reader",
    "Source",
    "Tensor",
    "TensorSpec",
    "View",
    "detected",
    "scan",
    "scan_as",
    "scan_or_opaque",
]


class Reader(Protocol):
    """The interface of a format module: a name, a cheap test of the content, and a scan."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """The name of the format in manifests."""
        ...

    def detect(self, source: Source) -> bool:
        """Return whether the file claims to have this format, after reading a few bytes."""
        ...

    def scan(self, source: Source) -> Layout:
        """Return the layout of the file; raises ``FormatError`` if it is malformed."""
        ...


_HEAD: Final = 512
"""Bytes at the beginning of a file that the signs look at: a header of tar."""


@dataclass(frozen=True)
class Head:
    """The parts of a file that signs look at; ``name`` is empty if its folder is unknown."""

    source: Source
    name: str
    first: bytes

    @classmethod
    def of(cls, source: Source) -> Head:
        """Return the head of ``source``."""
        name = source.name if isinstance(source, Placed) else ""
        return cls(source, name, source.read(0, min(_HEAD, source.size)))


Sign = Callable[[Head], bool]


class FormatReader:
    """A reader of this package, imported on first use: a module, or an object in one."""

    def __init__(self, name: str, place: str, sign: Sign) -> None:
        self.NAME = name
        """The name of the format in manifests."""
        self._place = place
        self._sign = sign

    def load(self) -> None:
        """Import the reader now."""
        _ = self._reader

    @lazy
    def _reader(self) -> Any:
        module, _, name = self._place.partition(":")
        found = importlib.import_module(f"theta.formats.{module}")
        return getattr(found, name) if name else found

    def may_be(self, head: Head) -> bool:
        """Return whether the file of ``head`` has the sign of this format."""
        return self._sign(head)

    def detect(self, source: Source, head: Head | None = None) -> bool:
        """Return whether the file claims to have this format, after reading a few bytes."""
        return self.may_be(head or Head.of(source)) and self.knows(source)

    def knows(self, source: Source) -> bool:
        """Return the same without looking for the sign, which may lie in a tensor that is not here yet."""
        return bool(self._reader.detect(source))

    def scan(self, source: Source) -> Layout:
        """Return the layout of the file; raises ``FormatError`` if it is malformed."""
        found: Layout = self._reader.scan(source)
        return found


def _begins(*magic: bytes) -> Sign:
    return lambda head: head.first.startswith(magic)


def _named(*parts: str) -> Sign:
    return lambda head: any(part in head.name for part in parts)


def _first(*numbers: int) -> Sign:
    return lambda head: head.first[:1] in {bytes((number,)) for number in numbers}


def _checksum(head: Head) -> bool:
    """Return whether the checksum field of a tar header holds nothing but octal digits."""
    return len(head.first) == _HEAD and set(head.first[148:156]) <= set(b"01234567 \0")


def _ends(magic: bytes) -> Sign:
    def sign(head: Head) -> bool:
        size = head.source.size
        return size >= len(magic) and head.source.read(size - len(magic), len(magic)) == magic

    return sign


_ZIP: Final = _begins(b"PK\x03\x04")
_MODEL_FIELDS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26)
"""The field numbers of ONNX's ModelProto; a file begins with one of them, shifted by three bits."""

# In the order in which they are tried.
READERS: Final = (
    FormatReader("tensorflow", "tensorflow", _named(".data-")),
    FormatReader("onnx-data", "onnx.onnx_external", _named(".onnx.data", ".onnx_data")),
    FormatReader("safetensors", "safetensors", lambda head: head.first[8:9] == b"{"),
    FormatReader("npy", "npy", _begins(b"\x93NUMPY")),
    FormatReader("npz", "archives.npz", _ZIP),
    FormatReader("keras", "hdf5.keras_zip", _ZIP),
    FormatReader("torch-distributed", "torch.torch_dcp", _ZIP),
    FormatReader("torch", "torch.torch_zip", _ZIP),
    FormatReader("torch-legacy", "torch.torch_legacy", _begins(b"\x80\x02")),
    FormatReader("torch-tar", "torch.torch_tar", _checksum),
    FormatReader("gguf", "gguf", _begins(b"GGUF")),
    FormatReader("pickle", "pickle_files.pickled", _begins(b"\x80\x03", b"\x80\x04", b"\x80\x05")),
    FormatReader("flax", "flax_msgpack", _first(*range(0x81, 0x90), 0xDE)),
    FormatReader("hdf5", "hdf5.hdf5", _begins(b"\x89HDF")),
    FormatReader("tensorflow-index", "tensorflow:index_reader", _ends(bytes.fromhex("57fb808b247547db"))),
    FormatReader("onnx", "onnx.onnx", lambda head: (head.first[:1] or b"\0")[0] >> 3 in _MODEL_FIELDS),
)


def detected(source: Source) -> str:
    """Return the name of the first format that detects the file; '' if no built-in one does."""
    reader = _reader_of(source)
    return reader.NAME if reader else ""


def scan(source: Source) -> Layout:
    """Return the layout of a file, by the first reader that detects it, or by a plug-in, otherwise opaque.

    Raises ``FormatError`` if a reader detects the file and finds it malformed.
    """
    if reader := _reader_of(source):
        layout = reader.scan(source)
        if layout.size != source.size:
            raise FormatError(f"{reader.NAME}: the layout is not of this file")
        layout.validate()
        return layout
    for plugin in _plugins()[0]:
        found = plugin.scan(source)
        if found is not None:
            return found
    return opaque.scan(source)


def scan_as(name: str, source: Source) -> Layout:
    """Return the layout of a file that is known to have format ``name``, without trying other readers.

    Raises ``FormatError`` if theta has no such reader, or the reader does not detect the file.
    """
    reader = next((reader for reader in READERS if name == reader.NAME), None)
    if reader is None or not reader.knows(source):
        raise FormatError(f"{name}: no reader of theta's own knows this file")
    layout = reader.scan(source)
    layout.validate()
    return layout


def scan_or_opaque(source: Source) -> tuple[Layout, str]:
    """Like :func:`scan`, but return an opaque layout and the reason, one line, for a malformed file."""
    try:
        layout = scan(source)
    except FormatError as error:
        return opaque.scan(source), str(error)
    return layout, _plugins()[1] if layout.format == opaque.NAME else ""


def _reader_of(source: Source) -> FormatReader | None:
    """Return the first reader that detects the file, or None."""
    head = Head.of(source)
    return next((reader for reader in READERS if reader.detect(source, head)), None)


def _plugins() -> tuple[tuple[Plugin, ...], str]:
    """Return the readers of other packages, and the errors of broken ones; loaded on first use."""
    from theta.formats import plugins

    return plugins.load(frozenset(reader.NAME for reader in READERS) | {opaque.NAME})
