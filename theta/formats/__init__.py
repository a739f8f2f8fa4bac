"""Container formats: where the tensors lie in a file, found by content and never by extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from theta.errors import FormatError
from theta.formats import flax_msgpack, gguf, npy, opaque, safetensors, tensorflow
from theta.formats.archives import npz
from theta.formats.fields import Derived
from theta.formats.hdf5 import hdf5, keras_zip
from theta.formats.layout import BytesSource, Layout, Source, Tensor, TensorSpec, View
from theta.formats.onnx import onnx, onnx_external
from theta.formats.pickle_files import pickled
from theta.formats.torch import torch_dcp, torch_legacy, torch_tar, torch_zip

if TYPE_CHECKING:
    from theta.formats.plugins import Plugin

__all__ = [
    "READERS",
    "BytesSource",
    "Derived",
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
    """What a format module has: a name, a cheap test by content, and a scan."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """The name that stands in a manifest."""
        ...

    def detect(self, source: Source) -> bool:
        """Whether the file claims to be of this format; reads a few bytes only."""
        ...

    def scan(self, source: Source) -> Layout:
        """The layout of the file; ``FormatError`` when it is malformed."""
        ...


# In the order in which they are asked.
READERS: tuple[Reader, ...] = (
    tensorflow,
    onnx_external,
    safetensors,
    npy,
    npz,
    keras_zip,
    torch_dcp,
    torch_zip,
    torch_legacy,
    torch_tar,
    gguf,
    pickled,
    flax_msgpack,
    hdf5,
    tensorflow.index_reader,
    onnx,
)


def detected(source: Source) -> str:
    """The name of the first format that the file claims to be of; '' where it is none of theta's own."""
    return next((reader.NAME for reader in READERS if reader.detect(source)), "")


def scan(source: Source) -> Layout:
    """The layout of a file: by the first reader that detects it, then by plug-ins, else opaque.

    Raises ``FormatError`` when a reader detects the file and finds it malformed.
    """
    for reader in READERS:
        if reader.detect(source):
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
    """The layout of a file that is known to be of format ``name``: no other reader looks into it.

    Raises ``FormatError`` where theta has no such reader, or the reader does not know the file.
    """
    reader = next((reader for reader in READERS if name == reader.NAME), None)
    if reader is None or not reader.detect(source):
        raise FormatError(f"{name}: no reader of theta's own knows this file")
    layout = reader.scan(source)
    layout.validate()
    return layout


def scan_or_opaque(source: Source) -> tuple[Layout, str]:
    """As :func:`scan`, but a malformed file is opaque; the text says why, in one line ('' if it is fine)."""
    try:
        layout = scan(source)
    except FormatError as error:
        return opaque.scan(source), str(error)
    return layout, _plugins()[1] if layout.format == opaque.NAME else ""


def _plugins() -> tuple[tuple[Plugin, ...], str]:
    """The readers of other packages, looked for when a file is none of theta's formats."""
    from theta.formats import plugins

    return plugins.load(frozenset(reader.NAME for reader in READERS) | {opaque.NAME})
