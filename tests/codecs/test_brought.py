"""Updates that somebody brings: what is stored decodes to them without any residual."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.layer_cases import any_bits, chunks_of, from_values, to_values, weights
from theta.codecs import brought, codec
from theta.codecs.base import Target, TensorWords
from theta.codecs.brought import Applied
from theta.codecs.factoring.factors import MAX_RANK

MATRICES = ["bf16", "f16", "f32"]
FLOATS = [*MATRICES, "f64", "f8_e4m3", "f8_e5m2"]


def check(base: TensorWords, done: Applied, limit: int) -> int:
    """Encode the update on its base, decode it, and answer the bytes of what chunks share."""
    assert done.encode is not None
    ranges = chunks_of(done.new, limit)
    encoded = done.encode(done.new, base, ranges)
    assert set(encoded.chunks) == {b"\0"}
    decoder = codec(encoded.codec).decoder(encoded.shared, Target(base.dtype, base.shape), base)
    words = [decoder.decode(chunk, *r) for chunk, r in zip(encoded.chunks, ranges, strict=True)]
    np.testing.assert_array_equal(np.concatenate(words), done.new.words)
    return len(encoded.shared or b"")


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(MATRICES), st.integers(1, 5), st.booleans())
def test_factors_of_any_kind_leave_no_residual(seed: int, dtype: str, rank: int, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    base = any_bits(dtype, (40, 30), seed) if wild else weights(dtype, (40, 30), seed)
    u, v = rng.normal(0, 0.1, (40, rank)), rng.normal(0, 0.1, (30, rank))
    if wild:
        u *= 10.0 ** rng.integers(-30, 30, rank)
        v[rng.random(v.shape) < 0.5] = 0
        u[:, 0] = 0
    check(base, brought.add_product(base, u, v, int(rng.choice([8, 11, 24])), 10**6), 600)


def test_an_update_of_nothing_but_zeros() -> None:
    base = weights("f32", (40, 30))
    done = brought.add_product(base, np.zeros((40, 2)), np.zeros((30, 2)), 24, 1000)
    np.testing.assert_array_equal(done.new.words, base.words)
    check(base, done, 1 << 20)


@pytest.mark.parametrize(("dtype", "mantissa", "most"), [("bf16", 8, 16), ("bf16", 24, 20), ("f32", 24, 31)])
def test_factors_cost_what_they_came_with(dtype: str, mantissa: int, most: int) -> None:
    rng, base = np.random.default_rng(0), weights(dtype, (512, 400))
    u, v = rng.normal(0, 0.1, (512, 8)), rng.normal(0, 0.1, (400, 8))
    size = check(base, brought.add_product(base, u, v, mantissa, 10**6), 1 << 20)
    assert size <= (most - 0.5) / 8 * 8 * 912
    if mantissa + 4 < most:
        assert check(base, brought.add_product(base, u, v, mantissa, size - 1000), 1 << 20) <= size - 1000


@pytest.mark.parametrize("dtype", ["f64", "f8_e4m3"])
def test_a_product_that_no_codec_stores_is_rounded_once(dtype: str) -> None:
    rng = np.random.default_rng(0)
    base = any_bits("f8_e4m3", (40, 30)) if dtype == "f8_e4m3" else weights(dtype, (40, 30))
    u, v = rng.normal(0, 0.1, (40, 2)), rng.normal(0, 0.1, (30, 2))
    done = brought.add_product(base, u, v, 24, 1000)
    assert done.encode is None
    if dtype == "f64":
        expected = from_values(to_values(base) + u @ v.T, "f64")
        np.testing.assert_array_equal(done.new.words, expected.words)


def test_a_rank_that_is_not_thin_is_not_stored_as_factors() -> None:
    base = weights("f32", (40, 30))
    assert brought.fits_low_rank(base, 10)
    assert not brought.fits_low_rank(base, 18)
    assert not brought.fits_low_rank(weights("f32", (4000, 4000)), MAX_RANK + 1)
    rng = np.random.default_rng(0)
    assert (
        brought.add_product(base, rng.normal(0, 1, (40, 18)), rng.normal(0, 1, (30, 18)), 24, 9).encode
        is None
    )


@given(st.integers(0, 10_000), st.sampled_from(FLOATS), st.booleans())
def test_scales_leave_no_residual(seed: int, dtype: str, by_row: bool) -> None:
    rng, base = np.random.default_rng(seed), any_bits(dtype, (12, 5, 4), seed)
    factors = rng.normal(1, 0.3, (12, 1, 1) if by_row else (5, 4) if seed % 2 else (1, 5, 1))
    check(base, brought.multiply(base, factors), 160)


@pytest.mark.parametrize("shape", [(12, 5), (12, 1, 4), (1,), ()])
def test_scales_of_other_shapes_are_multiplied(shape: tuple[int, ...]) -> None:
    base = weights("f64", (12, 5) if shape == (12, 5) else (12, 5, 4))
    factors = np.random.default_rng(0).normal(1, 0.3, shape)
    done = brought.multiply(base, factors)
    expected = from_values(to_values(base) * factors, "f64")
    np.testing.assert_array_equal(done.new.words, expected.words)


@pytest.mark.parametrize("shape", [(7,), (0, 4), (4, 0), ()])
def test_scales_of_vectors_and_of_nothing(shape: tuple[int, ...]) -> None:
    base = weights("f32", shape)
    done = brought.multiply(base, np.full((1,) * len(shape), 2.0))
    assert done.new.words.size == math.prod(shape)
    np.testing.assert_array_equal(to_values(done.new), 2 * to_values(base))
