"""Container formats: locating the tensors in a file, by its content and never by its extension."""

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


# In the order in which they are tried.
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
    """Return the name of the first format that detects the file; '' if no built-in one does."""
    return next((reader.NAME for reader in READERS if reader.detect(source)), "")


def scan(source: Source) -> Layout:
    """Return the layout of a file, by the first reader that detects it, or by a plug-in, otherwise opaque.

    Raises ``FormatError`` if a reader detects the file and finds it malformed.
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
    """Return the layout of a file that is known to have format ``name``, without trying other readers.

    Raises ``FormatError`` if theta has no such reader, or the reader does not detect the file.
    """
    reader = next((reader for reader in READERS if name == reader.NAME), None)
    if reader is None or not reader.detect(source):
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


def _plugins() -> tuple[tuple[Plugin, ...], str]:
    """Return the readers of other packages, and the errors of broken ones; loaded on first use."""
    from theta.formats import plugins

    return plugins.load(frozenset(reader.NAME for reader in READERS) | {opaque.NAME})
