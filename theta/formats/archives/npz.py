"""numpy's ``.npz``: a zip of ``.npy`` members.

``savez`` stores its members and every array is a tensor.  ``savez_compressed`` deflates them; such a
file is kept verbatim, because theta could not write the same deflate stream again.
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
    """Whether the file is a zip whose first member is an ``.npy``."""
    return zipped.first_name(source).endswith(".npy")


def scan(source: Source) -> Layout:
    """A tensor for each member, by its name without ``.npy``; their CRC-32s are derived.

    Members that are not plain arrays (objects, structured types, other files) are skeleton.
    ``FormatError`` for a compressed member.
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
    """Lay a new file out, its arrays in the order of ``specs``.

    ``FormatError`` for dtypes that numpy does not have and for names that no zip can hold.
    """
    archive = ZipBuilder()
    for spec in specs:
        archive.member(f"{spec.name}.npy", npy.header(spec.name, spec.dtype, spec.shape), spec)
    return archive.finish().plan(NAME)
