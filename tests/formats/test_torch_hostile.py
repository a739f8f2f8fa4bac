"""Hostile torch archives: every field at its limits, contradictions, overlaps, bombs.

What theta reads is byte-exact and its extents are sound; everything else is kept as bytes, with one line
that says why.  What torch itself would do with them does not matter here: nothing is loaded.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import pytest

from tests.formats.helpers import rebuild
from theta.formats import scan_or_opaque
from theta.formats.derived import prove
from theta.formats.layout import BytesSource
from theta.formats.pickle_files.pickle_scan import scan_pickles
from theta.formats.torch import torch_zip

_STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0%cX\x03\0\0\0cpuK\x04tQ"
_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(%bK\x00(K\x04t(K\x01t\x89NtR"


def pickled(*keys: bytes) -> bytes:
    """A dict of a tensor of four elements for each storage."""
    items = b"".join(b"X\x01\0\0\0%c" % key + _TENSOR % (_STORAGE % key) for key in keys)
    return b"\x80\x02}(" + items + b"u."


def archive(members: dict[str, bytes], comment: bytes = b"", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.comment = comment
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


PARTS = {
    "x/data.pkl": pickled(b"0", b"1"),
    "x/byteorder": b"little",
    "x/data/0": b"a" * 16,
    "x/data/1": b"b" * 16,
}
GOOD = archive(PARTS)
END = len(GOOD) - 22
DIRECTORY = GOOD.index(b"PK\x01\x02")
LAST = GOOD.rindex(b"PK\x01\x02")
LOCAL = GOOD.rindex(b"PK\x03\x04")


def put(at: int, *values: bytes, data: bytes = GOOD) -> bytes:
    """``data`` with ``values`` at ``at``."""
    value = b"".join(values)
    return data[:at] + value + data[at + len(value) :]


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def without(*names: str, **more: bytes) -> bytes:
    """An archive without some members, with others."""
    return archive(
        {k: v for k, v in PARTS.items() if k not in names} | {f"x/{k}": v for k, v in more.items()}
    )


def overlapping() -> bytes:
    """Both storages' entries point to one local header."""
    first = struct.unpack_from("<I", GOOD, GOOD.index(b"PK\x01\x02", DIRECTORY + 100) + 42)[0]
    return put(LAST + 42, u32(first))


def zip64(size: int, packed: int, offset: int) -> bytes:
    """The last entry with its sizes and offset in the extra field of zip64."""
    extra = struct.pack("<2H3Q", 1, 24, size, packed, offset)
    data = put(LAST + 20, b"\xff" * 8)
    data = put(LAST + 30, u16(len(extra)), data=data)
    data = put(LAST + 42, b"\xff" * 4, data=data)
    name_end = LAST + 46 + len("x/data/1")
    data = data[:name_end] + extra + data[name_end:]
    return put(len(data) - 10, u32(len(data) - 22 - DIRECTORY), data=data)


# Name -> archive, and whether it is still read as tensors.
CASES: dict[str, tuple[bytes, bool]] = {
    "good": (GOOD, True),
    "a comment": (archive(PARTS, b"comment"), True),
    "a comment that is an end record": (archive(PARTS, GOOD[END:]), False),
    "a comment of 65535": (archive(PARTS, b"c" * 65_535), True),
    "empty": (b"", False),
    "four bytes": (GOOD[:4], False),
    "cut in the middle": (GOOD[: len(GOOD) // 2], False),
    "cut by a byte": (GOOD[:-1], False),
    "a byte behind": (GOOD + b"x", False),
    "a byte before": (b"x" + GOOD, False),
    "junk before that is a zip": (GOOD[:40] + GOOD, False),
    "the end record alone": (GOOD[END:], False),
    "no central directory": (GOOD[:DIRECTORY] + GOOD[END:], False),
    "disk 1": (put(END + 4, u16(1)), False),
    "directory on disk 1": (put(END + 6, u16(1)), False),
    "count 0": (put(END + 8, u16(0) * 2), False),
    "count 3": (put(END + 8, u16(3) * 2), False),
    "count 5": (put(END + 8, u16(5) * 2), False),
    "count 65535": (put(END + 8, u16(65_535) * 2), False),
    "counts differ": (put(END + 8, u16(4), u16(3)), False),
    "directory length 0": (put(END + 12, u32(0)), False),
    "directory length max": (put(END + 12, u32(2**32 - 1)), False),
    "directory offset 0": (put(END + 16, u32(0)), False),
    "directory offset max": (put(END + 16, u32(2**32 - 1)), False),
    "comment length 1": (put(END + 20, u16(1)), False),
    "entry magic": (put(LAST, b"PK\x01\x03"), False),
    "entry encrypted": (put(LAST + 8, u16(1)), False),
    "entry strong encryption": (put(LAST + 8, u16(0x41)), False),
    "entry deflated": (put(LAST + 10, u16(8)), False),
    "entry of an unknown method": (put(LAST + 10, u16(99)), False),
    "entry size 15": (put(LAST + 24, u32(15)), False),
    "entry sizes 15": (put(LAST + 20, u32(15) * 2), True),
    "entry sizes 0": (put(LAST + 20, u32(0) * 2), True),
    "entry sizes 2**31": (put(LAST + 20, u32(2**31) * 2), False),
    "entry sizes max without zip64": (put(LAST + 20, b"\xff" * 8), False),
    "entry name 0": (put(LAST + 28, u16(0)), False),
    "entry name max": (put(LAST + 28, u16(65_535)), False),
    "entry extra max": (put(LAST + 30, u16(65_535)), False),
    "entry comment max": (put(LAST + 32, u16(65_535)), False),
    "entry offset beyond": (put(LAST + 42, u32(len(GOOD))), False),
    "entry offset max": (put(LAST + 42, b"\xff" * 4), False),
    "entry offset into another": (put(LAST + 42, u32(7)), False),
    "two entries, one member": (overlapping(), False),
    "zip64 sound": (zip64(16, 16, LOCAL), True),
    "zip64 size max": (zip64(2**64 - 1, 2**64 - 1, LOCAL), False),
    "zip64 sizes differ": (zip64(16, 15, LOCAL), False),
    "zip64 offset max": (zip64(16, 16, 2**64 - 1), False),
    "zip64 offset wraps": (zip64(16, 16, 2**64 - 100), False),
    "local magic": (put(LOCAL, b"PK\x03\x05"), False),
    "local flags": (put(LOCAL + 6, u16(8)), False),
    "local method": (put(LOCAL + 8, u16(8)), False),
    "local sizes": (put(LOCAL + 18, u32(1) * 2), True),
    "local crc": (put(LOCAL + 14, u32(1)), True),
    "local name": (put(LOCAL + 30, b"y"), False),
    "local name length": (put(LOCAL + 26, u16(9)), False),
    "local extra max": (put(LOCAL + 28, u16(65_535)), False),
    "local extra 1": (put(LOCAL + 28, u16(1)), False),
    "a crc of another value": (put(LAST + 16, u32(1)), True),
    "duplicate storage": (GOOD.replace(b"x/data/1", b"x/data/0"), False),
    "duplicate pickle": (GOOD.replace(b"x/data/1", b"x/data.pkl"[:8]), True),
    "a name with a zero": (GOOD.replace(b"x/data/1", b"x/data/\0"), False),
    "a name that climbs": (GOOD.replace(b"x/data/1", b"x/../../"), True),
    "an absolute name": (GOOD.replace(b"x/data/1", b"/etc/pas"), True),
    "a folder below data": (without(**{"data/1/2": b"c"}), True),
    "no pickle": (without("x/data.pkl"), False),
    "two pickles": (archive(PARTS | {"y/data.pkl": b"N."}), False),
    "no storages": (without("x/data/0", "x/data/1"), True),
    "a storage nobody names": (without(**{"data/9": b"c" * 7}), True),
    "a short storage": (without(**{"data/0": b"c" * 15}), True),
    "an empty storage": (without(**{"data/0": b""}), True),
    "all deflated": (archive(PARTS, method=zipfile.ZIP_DEFLATED), False),
    "a pickle that breaks off": (without(**{"data.pkl": PARTS["x/data.pkl"][:-9]}), True),
    "an empty pickle": (without(**{"data.pkl": b""}), True),
    "a serialization id of 39": (without(**{".data/serialization_id": b"0" * 39}), True),
    "a serialization id": (without(**{".data/serialization_id": b"0" * 40}), True),
    "byteorder of noise": (without(byteorder=b"\xff\xfe\xfd"), True),
    "a member of a name not utf-8": (GOOD.replace(b"x/data/1", b"x/data/\xff"), True),
    "10,000 members": (without(**{f"extra/{number}": b"" for number in range(10_000)}), True),
}


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_hostile_archives(name: str) -> None:
    data, read = CASES[name]
    source = BytesSource(data)
    layout, reason = scan_or_opaque(source)
    assert (layout.format == "torch") is read, reason
    assert "\n" not in reason and len(reason) < 200
    assert reason or read or not torch_zip.detect(source)
    layout.validate()
    assert rebuild(prove(layout, source), data, {}) == data
    scan_pickles(source)


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_nested_archives_are_not_followed_for_ever(depth: int) -> None:
    data = archive(PARTS)
    for _ in range(depth):
        data = archive({"x/data.pkl": data})
    assert scan_pickles(BytesSource(data)).worst() in ("safe", "unknown")


def test_a_deflate_bomb_costs_a_bounded_amount() -> None:
    """128 MiB of zeros in 128 kB."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(deflater.compress(bytes(2**24)) for _ in range(8)) + deflater.flush()
    head = (
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(packed), 2**27, 10, 0) + b"x/data.pkl"
    )
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(packed), 2**27, 10, 0, 0, 0, 0, 0, 0
    )
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) + 10, len(head) + len(packed), 0)
    data = head + packed + entry + b"x/data.pkl" + end
    tracemalloc.start()
    try:
        layout, _ = scan_or_opaque(BytesSource(data))
        small = tracemalloc.get_traced_memory()[1]
        scan_pickles(BytesSource(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert layout.size == len(data)
    assert small < 2**21 + 2 * len(data) and peak < 64 * 2**20 + len(data)
