"""Pickles with numpy arrays: scikit-learn's models, and joblib's uncompressed files.

Arrays with contiguous bytes are tensors, named by their path through the objects; the rest is skeleton.
Pickles of protocols 0 to 2 have arrays as text and are opaque.
"""

from __future__ import annotations

from typing import Final

from theta.errors import FormatError
from theta.formats.layout import Layout, Source, Tensor, View
from theta.formats.npy import array_of
from theta.formats.pickle.numpy_pickle import JoblibMachine, pickled_array
from theta.formats.pickle.object_walk import walk
from theta.formats.torch import torch_legacy

NAME: Final = "pickle"
_PROTOCOLS: Final = (b"\x80\x03", b"\x80\x04", b"\x80\x05")


def detect(source: Source) -> bool:
    """Return whether the file starts like a pickle of protocol 3 or later that is not torch's."""
    return source.size > 16 and source.read(0, 2) in _PROTOCOLS and not torch_legacy.detect(source)


def scan(source: Source) -> Layout:
    """Return a layout of the arrays; raises ``FormatError`` for consecutive pickles or no arrays."""
    machine = JoblibMachine(source, 0, source.size)
    root = machine.run()
    if machine.position != source.size:
        raise FormatError("pickle: bytes behind its end")
    tensors: dict[int, Tensor] = {}
    views: list[View] = []
    names: set[str] = set()
    for path, found in walk(root, pickled_array, source.size):
        name = path or "array"
        if found.offset in tensors or name in names:
            continue
        array = array_of(found.kind, found.shape, found.fortran, found.offset)
        if array.length != found.length:
            continue
        names.add(name)
        tensors[found.offset] = array.tensor(name)
        views.extend(array.views(name))
    if not tensors:
        raise FormatError("pickle: no arrays that lie in one piece")
    return Layout(NAME, source.size, tuple(tensors[offset] for offset in sorted(tensors)), views=tuple(views))
