"""The kernels of thin factors, beside numpy and beside the steps one by one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theta.codecs import arith
from theta_native.factoring import pulls, sums

DTYPES = ("f16", "bf16", "f32")
POINTS = pulls.Intervals(np.float32(0), np.float32(0), np.float32(np.inf))


def words_of(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return arith.to_words(np.asarray(values, np.float64).reshape(-1), dtype)


def expected_pulls(
    new: NDArray[Any], base: NDArray[Any], dtype: str, product: NDArray[Any], intervals: pulls.Intervals
) -> NDArray[Any]:
    """The pulls as their definition says, in float64."""
    with np.errstate(all="ignore"):
        value, below = (arith.to_values(words, dtype).reshape(product.shape) for words in (new, base))
        finite = np.isfinite(value) & np.isfinite(below)
        d = np.where(finite, value - below, 0)
        least = 2 - (1 << (arith.layout(dtype).exponent - 1))
        exponent = np.frexp(np.where(finite, value, 0))[1] - 1
        exponent = np.where(value == 0, least, np.maximum(exponent, least))
        half = np.maximum(np.ldexp(0.5, exponent - arith.layout(dtype).mantissa), intervals.noise)
        room = half * intervals.inside
        beyond = product - d
        beyond -= np.clip(beyond, -room, room)
        return np.where(finite, beyond * np.minimum(intervals.reference / half, 1), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "rank", "block"), [((64, 96), 8, 4096), ((7, 33), 5, 16), ((1, 1), 1, 4096), ((50, 41), 3, 20)]
)
def test_pulls_are_as_by_numpy(
    dtype: str, shape: tuple[int, int], rank: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "_COLUMNS", block)
    rng = np.random.default_rng(5)
    values = rng.normal(0, 0.02, shape)
    values[rng.random(shape) < 0.1] = 0
    moved = np.where(rng.random(shape) < 0.2, 0, values + rng.normal(0, 1e-3, shape))
    new, base = words_of(moved, dtype), words_of(values, dtype)
    new[:: 1 + new.size // 3] = words_of(np.array([np.nan]), dtype)
    base[1 :: 1 + base.size // 3] = words_of(np.array([-np.inf]), dtype)
    kind = np.float64 if dtype == "f32" else np.float32
    u, v = (
        rng.normal(0, 0.03, (shape[0], rank)).astype(kind),
        rng.normal(0, 0.03, (rank, shape[1])).astype(kind),
    )
    by = rng.normal(0, 1, (shape[0], 6)).astype(kind), rng.normal(0, 1, (6, shape[1])).astype(kind)
    found = pulls.Pulls(new, base, arith.layout(dtype), kind)
    nothing = np.zeros((shape[0], 0), kind), np.zeros((0, shape[1]), kind)
    middling = [pulls.Intervals(*map(np.float32, given)) for given in ((0.8, 0, 1e-4), (0, 3e-5, 1e-4))]
    for intervals, (a, b) in [
        (POINTS, nothing),
        (middling[0], nothing),
        *((one, (u, v)) for one in middling),
    ]:
        product = a.astype(np.float64) @ b.astype(np.float64)
        expected = expected_pulls(new, base, dtype, product, intervals)
        columns, energy = found.to_columns(intervals, a, b, by[0])
        most = max(float(np.abs(expected).max()), 1e-30)
        np.testing.assert_allclose(columns, by[0].T @ expected, rtol=0, atol=1e-4 * most * shape[0] ** 0.5)
        rows = found.to_rows(intervals, a, b, by[1])
        np.testing.assert_allclose(rows, expected @ by[1].T, rtol=0, atol=1e-4 * most * shape[1] ** 0.5)
        assert energy == pytest.approx(np.square(expected).sum(), rel=1e-4)


def check_sums(words: NDArray[Any], added: NDArray[np.float64], dtype: str) -> None:
    """Compare with the values, their sum, its rounding and its classes, one after the other."""
    with np.errstate(all="ignore"):
        exact = added + arith.to_values(words, dtype)
    rounded = arith.to_words(exact, dtype)
    found, classes = sums.sums(words, arith.layout(dtype), added)
    np.testing.assert_array_equal(found, rounded)
    np.testing.assert_array_equal(classes, arith.boundary_classes(exact, rounded, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_those_of_the_steps(dtype: str) -> None:
    rng = np.random.default_rng(6)
    count = 1 << 16
    every = np.arange(count, dtype=np.uint32)
    words = every.astype(np.uint16) if dtype != "f32" else rng.integers(0, 2**32, count, np.uint32)
    ordinary = words_of(rng.normal(0, 0.02, count), dtype)
    sizes = 2.0 ** rng.integers(-160, 140, count)
    for given in (words, ordinary, ordinary[:1023], ordinary[:1], ordinary[:0]):
        check_sums(given, np.zeros(given.size), dtype)
        check_sums(given, (rng.normal(0, 1, count) * sizes)[: given.size], dtype)
        values = arith.to_values(given, dtype)
        values = np.where(np.isfinite(values), values, 0)
        # To nothing, to twice the value, and to halves, quarters and other ties of units of the last place.
        for factor in (-1, 1, 2.0**-8, 3 * 2.0**-9, 2.0**-11, 2.0**-24, 2.0**-25, -(2.0**-12)):
            check_sums(given, values * factor, dtype)
    tiny = 2.0 ** -(arith.layout(dtype).mantissa + 2 + (1 << (arith.layout(dtype).exponent - 1)))
    check_sums(ordinary, -arith.to_values(ordinary, dtype) + rng.integers(-3000, 3000, count) * tiny, dtype)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_differences_that_overflow_have_no_pull(dtype: str) -> None:
    kind = np.float64 if dtype == "f32" else np.float32
    new, base = words_of(np.array([3e38, 1.0]), dtype), words_of(np.array([-3e38, 0.5]), dtype)
    found = pulls.Pulls(new, base, arith.layout(dtype), kind)
    nothing = np.zeros((1, 0), kind), np.zeros((0, 2), kind)
    columns, energy = found.to_columns(POINTS, *nothing, np.ones((1, 1), kind))
    assert columns.tolist() == [[0.0, -0.5]]
    assert energy == 0.25


def test_intervals_that_vanish_in_float32_have_the_weight_1() -> None:
    new, base = np.array([1, 0], np.uint32), np.array([0, 0], np.uint32)
    found = pulls.Pulls(new, base, arith.layout("f32"), np.float64)
    nothing = np.zeros((1, 0)), np.zeros((0, 2))
    tiny = pulls.Intervals(np.float32(0), np.float32(0), np.float32(0))
    assert np.isfinite(found.to_columns(tiny, *nothing, np.ones((1, 1)))[0]).all()


SUBNORMAL = """
import ctypes, hashlib, sys
import numpy as np
from theta.codecs import arith
if sys.argv[1]:
    ctypes.CDLL(sys.argv[1]).flush()
told = hashlib.sha256()
every = np.arange(1 << 16, dtype=np.uint16)
some = np.arange(0, 1 << 32, 65521).astype(np.uint32) & np.uint32(0x81FFFFFF)
for dtype, words in (("bf16", every), ("f16", every), ("f32", some)):
    told.update(arith.to_values(words, dtype).tobytes())
    for added in (0.0, 1e-7):
        for part in arith.sums(words, np.full(words.size, added), dtype):
            told.update(part.tobytes())
print(told.hexdigest())
"""


def test_a_thread_that_takes_subnormal_numbers_for_0_reads_the_same(tmp_path: Path) -> None:
    """As ``torch.set_flush_denormal`` and libraries that were compiled with -ffast-math set it."""
    if platform.machine() != "x86_64":
        pytest.skip("the flags of another processor")
    library = tmp_path / "flush.so"
    text = "#include <xmmintrin.h>\nvoid flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }\n"
    built = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(built, input=text, text=True, check=True)
    told = [
        subprocess.run(
            [sys.executable, "-c", SUBNORMAL, name], capture_output=True, text=True, check=True
        ).stdout
        for name in ("", str(library))
    ]
    assert told[0] == told[1]
