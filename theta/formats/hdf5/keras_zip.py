"""Keras's ``.keras``: a zip of ``config.json``, ``metadata.json`` and a stored ``model.weights.h5``."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from theta.errors import FormatError
from theta.formats.archives import zipped
from theta.formats.hdf5 import hdf5
from theta.formats.layout import Layout, Source, Window

NAME: Final = "keras"
_WEIGHTS: Final = "model.weights.h5"
_FIRST: Final = ("metadata.json", "config.json", _WEIGHTS)


def detect(source: Source) -> bool:
    """Return whether the file is a zip whose first member has a name of Keras."""
    return zipped.first_name(source) in _FIRST


def scan(source: Source) -> Layout:
    """Return a layout of the datasets of the inner HDF5 file; the CRC-32 of that file is derived."""
    members = [member for member in zipped.read_members(source) if member.name == _WEIGHTS]
    if len(members) != 1 or not members[0].stored:
        raise FormatError("keras: no model.weights.h5, or it is compressed")
    (member,) = members
    inner = hdf5.scan(Window(source, member.payload, member.size))
    tensors = tuple(replace(tensor, offset=tensor.offset + member.payload) for tensor in inner.tensors)
    return Layout(NAME, source.size, tensors, tuple(member.derived()), inner.views)
