"""numpy's ``.npz``: a zip of ``.npy`` members.

``savez`` stores its members, so every array is a tensor.  ``savez_compressed`` deflates them; such a file
is opaque, because theta cannot reproduce the deflate stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from theta.errors import FormatError
from theta.formats import npy
from theta.formats.archives import zipped
from theta.formats.archives.zip_writer import ZipBuilder
from theta.formats.fields import Derived
from theta.formats.layout import Layout, Source, Tensor, TensorSpec, View, clip
from theta.formats.plan import Plan

NAME: Final = "npz"


def detect(source: Source) -> bool:
    """Return whether the file is a zip whose first member is an ``.npy``."""
    return zipped.first_name(source).endswith(".npy")


def scan(source: Source) -> Layout:
    """Return a layout with a tensor for each member, named without ``.npy``; their CRC-32s are derived.

    Members that are not plain arrays (objects, structured dtypes, other files) are skeleton.
    Raises ``FormatError`` for a compressed member.
    """
    tensors: list[Tensor] = []
    derived: list[Derived] = []
    views: list[View] = []
    for member in sorted(zipped.read_members(source), key=lambda member: member.payload):
        if not member.stored:
            raise FormatError(f"npz: the member {clip(member.name)} is compressed")
        name = member.name.removesuffix(".npy")
        if name == member.name or not name:
            continue
        try:
            array = npy.read_header(source, member.payload, member.size)
        except FormatError:
            continue
        tensors.append(array.tensor(name))
        views.extend(array.views(name))
        derived.extend(member.derived())
    return Layout(NAME, source.size, tuple(tensors), tuple(derived), tuple(views))


def plan(specs: Sequence[TensorSpec]) -> Plan:
    """Plan a new file with its arrays in the order of ``specs``.

    Raises ``FormatError`` for dtypes that numpy does not have and for names that a zip cannot hold.
    """
    archive = ZipBuilder()
    for spec in specs:
        archive.member(f"{spec.name}.npy", npy.header(spec.name, spec.dtype, spec.shape), spec)
    return archive.finish().plan(NAME)
