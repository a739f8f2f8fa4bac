"""Derived fields: the operations by value, and what makes a layout of them sound."""

from __future__ import annotations

import pytest

from theta.errors import FormatError
from theta.formats.derived import derive, prove
from theta.formats.fields import Derived
from theta.formats.layout import BytesSource, Layout, Tensor


def test_the_operations_by_value() -> None:
    assert derive(Derived("crc32", 0, 4, ()), [b"1234", b"56789"]).hex() == "2639f4cb"
    assert derive(Derived("crc32", 0, 4, (), "big"), [b"123456789"]).hex() == "cbf43926"
    assert derive(Derived("copy", 0, 3, ()), [b"a", b"bc"]) == b"abc"
    assert derive(Derived("fold-decimal", 0, 20, ()), []) == b"0" * 20
    # The CRCs of the first two records of a file that torch 2.13 wrote, and its running state.
    words = [(0xBD961A36).to_bytes(4, "little"), (0x83DCEFB7).to_bytes(4, "little")]
    assert derive(Derived("fold-decimal", 0, 20, ()), words) == b"00000000383185410500"


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown operation 'exec'"):
        derive(Derived("exec", 0, 4, ()), [])


def test_prove_keeps_only_what_holds() -> None:
    good = Derived("crc32", 9, 4, ((0, 9),))
    wrong = Derived("crc32", 13, 4, ((0, 9),))
    copied = Derived("copy", 17, 4, ((13, 4),))
    data = b"123456789" + bytes.fromhex("2639f4cb") + bytes(8)
    layout = Layout("test", len(data), (), (good, wrong, copied))
    layout.validate()
    assert prove(layout, BytesSource(data)).derived == (good, copied)
    assert list(layout.literals()) == [(0, 9)]
    assert list(layout.gaps()) == [(0, len(data))]


_CRC = Derived("crc32", 40, 4, ((0, 10),))


@pytest.mark.parametrize(
    "fields",
    [
        (Derived("exec", 40, 4, ((0, 10),)),),
        (Derived("crc32", 40, 8, ((0, 10),)),),
        (Derived("fold-decimal", 40, 4, ((0, 8),)),),
        (Derived("fold-decimal", 40, 20, ((0, 9),)),),
        (Derived("copy", 40, 4, ((0, 5),)),),
        (Derived("copy", 20, 80, ((0, 80),)),),
        (Derived("crc32", 98, 4, ((0, 10),)),),
        (Derived("crc32", -4, 4, ((0, 10),)),),
        (Derived("crc32", 9, 4, ((20, 10),)),),
        (Derived("crc32", 40, 4, ((95, 10),)),),
        (Derived("crc32", 40, 4, ((-1, 10),)),),
        (Derived("crc32", 40, 4, ((0, -1),)),),
        (Derived("crc32", 40, 4, ((41, 1),)),),
        (_CRC, Derived("crc32", 42, 4, ((0, 10),))),
        (_CRC, _CRC),
        (Derived("crc32", 50, 4, ((36, 5),)), _CRC),
        (Derived("copy", 50, 4, ((60, 4),)), Derived("copy", 60, 4, ((50, 4),))),
    ],
)
def test_unsound_fields_are_refused(fields: tuple[Derived, ...]) -> None:
    tensor = Tensor("a", "u8", (10,), 0, 10)
    with pytest.raises(FormatError):
        Layout("test", 100, (tensor,), fields).validate()


def test_a_field_may_depend_on_an_earlier_one() -> None:
    tensor = Tensor("a", "u8", (10,), 0, 10)
    Layout("test", 100, (tensor,), (_CRC, Derived("crc32", 10, 4, ((38, 5),)))).validate()
