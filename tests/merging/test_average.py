"""``average`` in numbers: what it promises per element, checked without the code that it uses."""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merging.in_memory import Geometry, merge_arrays
from theta.codecs.base import word_dtype
from theta.dtypes import DTYPES
from theta.errors import UsageError
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, is_averaged, make, parse
from theta.store.format.manifest import Line

FLOATS = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f8_e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
SMALL = {name: kind for name, kind in FLOATS.items() if kind.itemsize <= 2}
ALPHAS = st.floats(0, 1)


def average(ours: bytes, theirs: bytes, dtype: str, alpha: float) -> bytes:
    """``alpha * ours + (1 - alpha) * theirs`` of raw little-endian values of ``dtype``."""
    sides = [np.frombuffer(raw, word_dtype(dtype)) for raw in (ours, theirs)]
    shape = (sides[0].size // (2 if dtype == "c64" else 1),)
    strategy = make("average", {"alpha": float(alpha)})
    return merge_arrays(strategy, sides, None, Geometry(dtype, shape), allow_nan=True).tobytes()


def words(name: str) -> np.dtype[Any]:
    return np.dtype(f"<u{FLOATS[name].itemsize}")


def all_values(name: str) -> np.ndarray[Any, Any]:
    """Every bit pattern of a type of one or two bytes."""
    return np.arange(1 << 8 * FLOATS[name].itemsize, dtype=words(name))


@st.composite
def pairs(draw: st.DrawFn, name: str) -> tuple[bytes, bytes]:
    """Two chunks of any bits, with some elements equal."""
    size = FLOATS[name].itemsize * draw(st.integers(0, 9))
    one = draw(st.binary(min_size=size, max_size=size))
    other = draw(st.one_of(st.just(one), st.binary(min_size=size, max_size=size)))
    return one, other


@pytest.mark.parametrize("name", [*FLOATS, "c64"])
@given(data=st.data(), alpha=ALPHAS)
def test_a_value_with_itself_is_itself(name: str, data: st.DataObject, alpha: float) -> None:
    """Bit for bit: NaN payloads, signalling NaNs and negative zeros too."""
    size = 8 if name == "c64" else FLOATS[name].itemsize
    raw = data.draw(st.integers(0, 9).flatmap(lambda n: st.binary(min_size=size * n, max_size=size * n)))
    assert average(raw, raw, name, alpha) == raw


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_every_bit_pattern_stays_what_it_is(name: str, alpha: float) -> None:
    raw = all_values(name).tobytes()
    assert average(raw, raw, name, alpha) == raw


@pytest.mark.parametrize("name", FLOATS)
@given(data=st.data())
def test_a_weight_of_one_or_zero_takes_a_side(name: str, data: st.DataObject) -> None:
    one, other = data.draw(pairs(name))
    assert average(one, other, name, 1.0) == one
    assert average(one, other, name, 0.0) == other


@pytest.mark.parametrize("name", FLOATS)
@given(data=st.data())
def test_half_and_half_is_symmetric(name: str, data: st.DataObject) -> None:
    one, other = data.draw(pairs(name))
    left = np.frombuffer(average(one, other, name, 0.5), FLOATS[name])
    right = np.frombuffer(average(other, one, name, 0.5), FLOATS[name])
    # Which of two NaN payloads survives an addition is up to the processor.
    nan = np.isnan(left)
    assert np.array_equal(nan, np.isnan(right))
    assert left[~nan].tobytes() == right[~nan].tobytes()


def nearest(value: Fraction, table: list[tuple[Fraction, int]]) -> int:
    """The code of the value of the sorted ``table`` nearest to ``value``, ties to an even code."""
    place = bisect_left(table, (value, 0))
    beside = table[max(place - 1, 0) : place + 2]
    best = min(abs(value - entry) for entry, _ in beside)
    codes = [code for entry, code in beside if abs(value - entry) == best]
    return next(code for code in codes if len(codes) == 1 or code % 2 == 0)


@pytest.mark.parametrize("name", ["f8_e4m3", "f8_e5m2", "f8_e4m3fnuz", "f8_e5m2fnuz"])
def test_small_floats_are_rounded_to_nearest_even(name: str) -> None:
    """All pairs of finite values: the exact mean, rounded by comparing fractions."""
    codes = all_values(name)
    floats = codes.view(FLOATS[name]).astype(np.float64)
    finite = np.isfinite(floats) & ~(np.signbit(floats) & (floats == 0))
    pairs = zip(floats[finite], codes[finite], strict=True)
    table = sorted((Fraction(float(value)), int(code)) for value, code in pairs)
    one, other = np.repeat(codes[finite], 7), np.resize(codes[finite][::5], codes[finite].size * 7)
    mixed = np.frombuffer(average(one.tobytes(), other.tobytes(), name, 0.5), words(name))
    exact = dict(zip((code for _, code in table), (value for value, _ in table), strict=True))
    for left, right, found in zip(one.tolist(), other.tolist(), mixed.tolist(), strict=True):
        mean = (exact[left] + exact[right]) / 2
        wanted = nearest(mean, table)
        zero = wanted == 0 and found == int(np.array(-0.0, FLOATS[name]).view("u1"))
        assert found == wanted or zero, (left, right)


def bfloat_from(single: int) -> int:
    """The bfloat16 nearest to a finite float32, by its bits: add half of the last place, ties to even."""
    return (single + 0x7FFF + (single >> 16 & 1)) >> 16


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), min_size=1, max_size=20), ALPHAS)
def test_bfloats_are_accumulated_in_float32_and_rounded_once(
    rows: list[tuple[int, int]], alpha: float
) -> None:
    left, right = (np.array(side, "<u2") for side in zip(*rows, strict=True))
    found = np.frombuffer(average(left.tobytes(), right.tobytes(), "bf16", alpha), "<u2")
    for one, other, mixed in zip(left.tolist(), right.tolist(), found.tolist(), strict=True):
        with np.errstate(all="ignore"):
            wide = [np.array([bits << 16], "<u4").view("<f4")[0] for bits in (one, other)]
            total = np.float32(alpha) * wide[0] + np.float32(1 - alpha) * wide[1]
        if one == other or alpha in (0.0, 1.0):
            assert mixed == (one if one == other or alpha == 1.0 else other)
        elif math.isfinite(total):
            bits = int(np.frombuffer(struct.pack("<f", total), "<u4")[0])
            assert mixed == bfloat_from(bits)
        else:
            assert not math.isfinite(np.array([mixed << 16], "<u4").view("<f4")[0])


@given(st.lists(st.tuples(st.floats(width=16), st.floats(width=16)), min_size=1, max_size=20))
def test_halves_are_the_exact_mean_rounded_once(rows: list[tuple[float, float]]) -> None:
    """The mean of two float16 is exact in float64, and Python packs float16 with one rounding."""
    left, right = (np.array(side, "<f2") for side in zip(*rows, strict=True))
    found = np.frombuffer(average(left.tobytes(), right.tobytes(), "f16", 0.5), "<f2")
    for one, other, mixed in zip(left.tolist(), right.tolist(), found.tolist(), strict=True):
        mean = one / 2 + other / 2
        if math.isfinite(mean):
            assert mixed == struct.unpack("<e", struct.pack("<e", mean))[0]
        else:
            assert not math.isfinite(mixed)


@given(
    st.lists(st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)), min_size=1, max_size=20),
    st.sampled_from([0.5, 0.25, 0.75]),
)
def test_doubles_are_averaged_in_double(rows: list[tuple[float, float]], alpha: float) -> None:
    left, right = (np.array(side, "<f8") for side in zip(*rows, strict=True))
    found = np.frombuffer(average(left.tobytes(), right.tobytes(), "f64", alpha), "<f8")
    assert found.tolist() == [
        a if a == b else a * alpha + b * (1 - alpha)
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    ]


@given(st.data(), ALPHAS)
def test_a_complex_number_is_two_floats(data: st.DataObject, alpha: float) -> None:
    """An infinite real part does not make the imaginary part NaN."""
    count = data.draw(st.integers(1, 6))
    one, other = (
        np.array(data.draw(st.lists(st.floats(width=32), min_size=2 * count, max_size=2 * count)), "<f4")
        for _ in range(2)
    )
    found = np.frombuffer(average(one.tobytes(), other.tobytes(), "c64", alpha), "<f4").reshape(-1, 2)
    parts = np.frombuffer(average(one.tobytes(), other.tobytes(), "f32", alpha), "<f4").reshape(-1, 2)
    same = (one.view("<u4") == other.view("<u4")).reshape(-1, 2).all(axis=1)
    assert np.array_equal(found[~same], parts[~same], equal_nan=True)


def conflict(dtype: str, theirs: tuple[int, ...] = (2,)) -> Conflict:
    ours = Line("t", dtype, (2,), "a" * 64, "1" * 40)
    return Conflict("t", None, ours, Line("t", dtype, theirs, "b" * 64, "2" * 40))


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_numbers_are_averaged(dtype: str) -> None:
    wanted = dtype in FLOATS or dtype == "c64"
    assert is_averaged(dtype) is wanted
    assert Strategy("average").applies(conflict(dtype)) is wanted
    assert all(Strategy(side).applies(conflict(dtype)) for side in ("ours", "theirs", "base"))


def test_an_average_needs_two_of_one_shape() -> None:
    assert not Strategy("average").applies(conflict("f32", theirs=(1, 2)))
    gone = conflict("f32")
    assert not Strategy("average").applies(Conflict("t", gone.ours, gone.ours, None))
    assert not Strategy("average").applies(Conflict("t", gone.ours, None, gone.ours))


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("ours", Strategy("ours")),
        ("theirs", Strategy("theirs")),
        ("base", Strategy("base")),
        ("average", parse("average:alpha=0.5")),
        ("avg", parse("average:alpha=0.5")),
        ("average:alpha=0.25", parse("average:alpha=0.25")),
        ("average:alpha=1", parse("average:alpha=1.0")),
    ],
)
def test_a_strategy_is_parsed(text: str, strategy: Strategy) -> None:
    assert parse(text) == strategy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mean",
        "ours:alpha=1",
        "average:alpha=",
        "average:alpha=2",
        "average:alpha=-1",
        "average:alpha=nan",
        "average:alpha=inf",
        "average:beta=1",
        "average:alpha",
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
