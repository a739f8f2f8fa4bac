"""An example of a format plug-in for theta: ``.tbox`` files.

A file is the magic ``TBOX``, a number of tensors (32 bits), and for each: the length of its name (16
bits), the name, its shape as two 32-bit numbers, rows times columns float32, and the CRC-32 of those.  All
numbers are little-endian.  The reader reports the CRC as a derived field, so that branches which changed
different tensors merge.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from theta.errors import FormatError
from theta.formats import Derived, Layout, Source, Tensor

MAGIC = b"TBOX"


class TboxReader:
    """A reader as theta wants it: a name, a cheap test by content, and a scan."""

    NAME = "tbox"

    def detect(self, source: Source) -> bool:
        """Return whether the file begins with the magic."""
        return source.size >= 8 and source.read(0, 4) == MAGIC

    def scan(self, source: Source) -> Layout:
        """The tensors and their checksums; ``FormatError`` for a malformed file.

        theta itself checks that nothing overlaps and that everything is inside the file.
        """
        (count,) = struct.unpack("<I", source.read(4, 4))
        tensors: list[Tensor] = []
        derived: list[Derived] = []
        at = 8
        for _ in range(count):
            (length,) = struct.unpack("<H", source.read(at, 2))
            name = source.read(at + 2, length).decode()
            rows, columns = struct.unpack("<2I", source.read(at + 2 + length, 8))
            at += 10 + length
            tensor = Tensor(name, "f32", (rows, columns), at, 4 * rows * columns)
            if tensor.end + 4 > source.size:
                raise FormatError("tbox: cut off")
            tensors.append(tensor)
            derived.append(Derived("crc32", tensor.end, 4, ((tensor.offset, tensor.length),)))
            at = tensor.end + 4
        return Layout(self.NAME, source.size, tuple(tensors), tuple(derived))


reader = TboxReader()


def dump(tensors: Mapping[str, tuple[int, int, bytes]]) -> bytes:
    """A file of ``tensors``: name -> rows, columns, values."""
    data = MAGIC + struct.pack("<I", len(tensors))
    for name, (rows, columns, values) in tensors.items():
        data += struct.pack("<H", len(name.encode())) + name.encode() + struct.pack("<2I", rows, columns)
        data += values + struct.pack("<I", zlib.crc32(values))
    return data
