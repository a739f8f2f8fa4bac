"""Types of tensors (format.md, section 3), and words as values and as integers in order (codecs.md)."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from tests.independent.primitives import refuse, require

Words: TypeAlias = "array[int]"

_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
MAX_CHUNK: Final = 4 * 2**20
MAX_FILE: Final = 2**44


@dataclass(frozen=True)
class Kind:
    """A dtype: the bits of an element, the bytes of a word, and how a word is understood."""

    name: str
    bits: int
    width: int
    signed: bool = False
    exponent: int = 0
    """Bits of the exponent field; 0 if the words are no floats."""

    @cached_property
    def is_float(self) -> bool:
        """Whether words have a sign, an exponent and a mantissa."""
        return self.exponent > 0

    @cached_property
    def has_values(self) -> bool:
        """Whether words are the floats that ``value`` and ``rounded`` know."""
        return self.is_float and self.name not in ("c64", "f8_e4m3fnuz", "f8_e5m2fnuz")

    @cached_property
    def mantissa(self) -> int:
        """Bits of the mantissa field."""
        return 8 * self.width - 1 - self.exponent

    @cached_property
    def bias(self) -> int:
        """The exponent field of the number 1."""
        return (1 << (self.exponent - 1)) - 1

    @cached_property
    def sign(self) -> int:
        """The highest bit of a word."""
        return 1 << (8 * self.width - 1)

    @cached_property
    def is_finite_only(self) -> bool:
        """Whether the type has no infinities, and one NaN of each sign."""
        return self.name == "f8_e4m3"

    def size(self, shape: list[int]) -> int:
        """Return the bytes of a tensor of this type."""
        bits = self.bits * math.prod(shape)
        require(bits % 8 == 0, "a packed tensor does not fill whole bytes")
        require(bits // 8 <= MAX_FILE, "a tensor is larger than any file may be")
        return bits // 8


def _kinds() -> dict[str, Kind]:
    plain = [Kind(name, 8, 1) for name in ("bool", "u8", "bytes", "f8_e8m0")]
    packed = [Kind("f4", 4, 1), Kind("f6_e2m3", 6, 1), Kind("f6_e3m2", 6, 1)]
    integers = [Kind(f"u{8 * width}", 8 * width, width) for width in (2, 4, 8)]
    integers += [Kind(f"i{8 * width}", 8 * width, width, signed=True) for width in (1, 2, 4, 8)]
    fields = [
        ("f16", 2, 5),
        ("bf16", 2, 8),
        ("f32", 4, 8),
        ("f64", 8, 11),
        ("f8_e4m3", 1, 4),
        ("f8_e5m2", 1, 5),
        ("f8_e4m3fnuz", 1, 4),
        ("f8_e5m2fnuz", 1, 5),
    ]
    floats = [Kind(name, 8 * width, width, exponent=exponent) for name, width, exponent in fields]
    floats += [Kind("c64", 64, 4, exponent=8)]
    return {kind.name: kind for kind in plain + packed + integers + floats}


KINDS: Final = _kinds()


def to_words(raw: bytes, kind: Kind) -> Words:
    """Return little-endian bytes as words."""
    words = array(_CODES[kind.width], raw)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def to_bytes(words: Words) -> bytes:
    """Return words as little-endian bytes."""
    if sys.byteorder == "big":
        words = words[:]
        words.byteswap()
    return words.tobytes()


def empty(kind: Kind) -> Words:
    """Return no words of a type, to which words can be appended."""
    return array(_CODES[kind.width])


def magnitude(kind: Kind) -> Callable[[int], int]:
    """Return the function from a word to its magnitude.

    That is the exponent field of a float; of another word its length in bits, complemented if negative.
    """
    sign, mantissa = kind.sign, kind.mantissa
    if kind.is_float:
        return lambda word: (word & (sign - 1)) >> mantissa
    if kind.signed:
        return lambda word: (word ^ (2 * sign - 1) if word & sign else word).bit_length()
    return int.bit_length


def stepper(kind: Kind) -> Callable[[int, int], int]:
    """Return the function from a word and a zigzagged difference to the word that it leads to."""
    sign, mask = kind.sign, 2 * kind.sign - 1

    def of_float(word: int, zigzagged: int) -> int:
        number = word ^ mask if word & sign else word | sign
        difference = -(zigzagged + 1 >> 1) if zigzagged & 1 else zigzagged >> 1
        number = (number - difference if word & sign else number + difference) & mask
        return number ^ sign if number & sign else number ^ mask

    def of_integer(word: int, zigzagged: int) -> int:
        """Step by the same amount whether or not the sign bit is flipped on the way."""
        return word + (-(zigzagged + 1 >> 1) if zigzagged & 1 else zigzagged >> 1) & mask

    return of_float if kind.is_float else of_integer


def integer(word: int, kind: Kind) -> int:
    """Return the value of an integer."""
    return word - 2 * kind.sign if kind.signed and word & kind.sign else word


def value(word: int, kind: Kind) -> float:
    """Return the value of a float, exactly."""
    mantissa = word & ((1 << kind.mantissa) - 1)
    exponent = (word & (kind.sign - 1)) >> kind.mantissa
    highest = (1 << kind.exponent) - 1
    special = word | kind.sign == 0xFF if kind.is_finite_only else exponent == highest
    if special:
        number = math.nan if mantissa else math.inf
    else:
        hidden = (1 << kind.mantissa) if exponent else 0
        number = math.ldexp(mantissa | hidden, max(exponent, 1) - kind.bias - kind.mantissa)
    return -number if word & kind.sign else number


def rounded(number: float, kind: Kind) -> int:
    """Return the word that is nearest to a number; ties to even."""
    infinity = 0x7F if kind.is_finite_only else ((1 << kind.exponent) - 1) << kind.mantissa
    if math.isnan(number):
        return infinity | (1 << (kind.mantissa - 1))
    sign = kind.sign if math.copysign(1, number) < 0 else 0
    if math.isinf(number):
        return infinity | sign
    exponent = max(math.frexp(number)[1] - 1, 1 - kind.bias) if number else 1 - kind.bias
    units = round(math.ldexp(abs(number), kind.mantissa - exponent))
    return sign | min(((exponent + kind.bias - 1) << kind.mantissa) + units, infinity)


def converter(source: Kind, target: Kind) -> Callable[[int], int]:
    """Return the conversion of words between two types (``cast/1``)."""
    require(source != target, "a type is not cast to itself")
    if source.has_values and target.has_values:
        return lambda word: rounded(value(word, source), target)
    if is_integral(source) and is_integral(target):
        return lambda word: integer(word, source) % (2 * target.sign)
    return refuse(f"{source.name} is not cast to {target.name}")


def is_integral(kind: Kind) -> bool:
    """Return whether a type is an integer or bool."""
    return kind.name == "bool" or (kind.name[0] in "ui" and kind.name[1:].isdigit())
