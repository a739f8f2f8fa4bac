"""Float conversion against numpy and ml_dtypes, for every bit pattern or a spread of them."""

import ml_dtypes
import numpy as np
import pytest

from theta.merging.strategies import numbers
from theta_native import floats
from theta_native.floats import FloatLayout, boundary_classes, narrow, widen

LAYOUTS = {
    "f16": (FloatLayout(5, 10), np.float16),
    "bf16": (FloatLayout(8, 7), ml_dtypes.bfloat16),
    "f32": (FloatLayout(8, 23), np.float32),
    "f64": (FloatLayout(11, 52), np.float64),
    "e4m3": (FloatLayout(4, 3, finite=True), ml_dtypes.float8_e4m3fn),
    "e5m2": (FloatLayout(5, 2), ml_dtypes.float8_e5m2),
}


def patterns(dtype: type) -> np.ndarray:
    width = np.dtype(dtype).itemsize
    if width <= 2:
        return np.arange(1 << (8 * width)).astype(f"u{width}")
    top = 2 ** (8 * width) - 1
    drawn = np.random.default_rng(0).integers(0, top, 50_000, f"u{width}", endpoint=True)
    near = np.concatenate([np.arange(200), top - np.arange(200, dtype=np.uint64)]).astype(drawn.dtype)
    return np.concatenate([drawn, near, drawn & np.array(top >> 9, drawn.dtype)])


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_widening_is_exact(name: str) -> None:
    layout, dtype = LAYOUTS[name]
    words = patterns(dtype)
    values, expected = widen(words, layout), words.view(dtype).astype(np.float64)
    np.testing.assert_array_equal(values, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(values[numbers]), np.signbit(expected[numbers]))
    np.testing.assert_array_equal(narrow(values, layout)[numbers], words[numbers])
    assert np.unique(narrow(values, layout)[~numbers]).size <= 1


@pytest.mark.parametrize("name", ["f16", "f32", "e5m2", "e4m3"])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_rounding_is_to_nearest_even(name: str) -> None:
    layout, dtype = LAYOUTS[name]
    words = patterns(dtype)
    finite = np.unique(words.view(dtype).astype(np.float64))
    finite = finite[np.isfinite(finite)]
    values = np.concatenate(
        [(finite[1:] + finite[:-1]) / 2, np.nextafter(finite, 0), finite * 1.001, finite * 2.7]
    )
    if name in ("e4m3", "e5m2"):
        values = values.astype(np.float32).astype(np.float64)  # ml_dtypes rounds through float32
    if name == "e4m3":
        values = values[np.abs(values) < 448]  # beyond, a NaN as in torch; others saturate
    expected = values.astype(dtype).view(words.dtype)
    np.testing.assert_array_equal(narrow(values, layout), expected)


def test_bf16_ties_and_overflow() -> None:
    layout = LAYOUTS["bf16"][0]
    f32 = np.random.default_rng(1).integers(0, 2**32, 100_000, np.uint32)
    f32[:3] = (0x3F808000, 0x3F818000, 0x7F7FFFFF)
    values = f32.view(np.float32)
    f32, values = f32[np.isfinite(values)], values[np.isfinite(values)]
    expected = (f32.astype(np.uint64) + 0x7FFF + ((f32 >> 16) & 1)) >> 16
    np.testing.assert_array_equal(narrow(values.astype(np.float64), layout), expected)


def test_e4m3_overflows_to_its_nan() -> None:
    found = narrow(np.array([448.0, 464.0, 465.0, -1e9, np.inf]), LAYOUTS["e4m3"][0])
    assert found.tolist() == [126, 126, 127, 255, 127]


@pytest.mark.parametrize("name", ["f16", "bf16", "f32"])
def test_boundary_classes(name: str) -> None:
    layout = LAYOUTS[name][0]
    rng = np.random.default_rng(2)
    exact = rng.normal(0, 1, 3000) * 10.0 ** rng.integers(-46 if layout.exponent == 8 else -8, 3, 3000)
    rounded = widen(narrow(exact, layout), layout)
    exponent = np.where(rounded == 0, -999, np.frexp(rounded)[1] - 1)
    exponent = np.maximum(exponent, 2 - 2 ** (layout.exponent - 1))
    t = (np.abs(exact) - np.abs(rounded)) / np.ldexp(1.0, exponent - layout.mantissa)
    with np.errstate(divide="ignore"):
        depth = np.floor(-np.log2(0.5 - np.abs(t))) - 1
    expected = 2 * np.minimum(depth, 7) + (t < 0)
    np.testing.assert_array_equal(boundary_classes(exact, rounded, layout), expected)
    odd = np.array([np.nan, np.inf, 1.0, 9.0])
    assert boundary_classes(odd, np.array([1.0, np.inf, np.nan, 1.0]), layout).tolist() == [14, 14, 14, 14]


def test_bfloats_are_those_of_ml_dtypes() -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    values = floats.widen_bfloats(words)
    np.testing.assert_array_equal(values.view(np.uint32), words.astype(np.uint32) << np.uint32(16))
    random = np.random.default_rng(3).integers(0, 1 << 32, 1 << 18, np.uint64).astype(np.uint32)
    halves = np.concatenate(
        [words.astype(np.uint32) << np.uint32(16) | np.uint32(low) for low in (0x7FFF, 0x8000, 0x8001)]
    )
    for bits in (random, halves):
        found = floats.narrow_to_bfloats(bits.view(np.float32))
        with np.errstate(all="ignore"):
            twin = bits.view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
        nan = np.isnan(bits.view(np.float32))
        np.testing.assert_array_equal(found[~nan], twin[~nan])
        np.testing.assert_array_equal(
            found[nan], (bits[nan] >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
        )
        parts = [
            numbers.narrow(bits[at : at + 999].view(np.float32), "bf16") for at in range(0, bits.size, 999)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), found)
