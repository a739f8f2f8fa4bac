"""The chooser: each kind of change is stored by the codec made for it, and nothing costs more than dense."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.layer_cases import any_bits, chunks_of, from_values, nudged, to_values, weights, with_words
from tests.codecs.test_cast_scaled_rows import factors
from tests.codecs.test_lowrank import merged
from theta.codecs import codec, dense
from theta.codecs.base import Target, TensorWords
from theta.codecs.chooser import Choice, choose, encode_dense, price_alone, sample_ranges
from theta.dtypes import DTYPES

BASE = weights("bf16", (512, 640))


def replaced(base: TensorWords) -> TensorWords:
    chosen = np.random.default_rng(0).random(base.words.size) < 0.01
    return with_words(base, np.where(chosen, weights(base.dtype, base.shape, 8).words, base.words))


def trimmed(base: TensorWords) -> TensorWords:
    words = np.delete(base.words.reshape(base.shape), 100, axis=0)
    return TensorWords(base.dtype, words.shape, words.reshape(-1))


CHANGES: dict[str, Callable[[TensorWords], TensorWords]] = {
    "delta/1": lambda base: nudged(base, 1e-3),
    "sparse/1": replaced,
    "steps/1": lambda base: nudged(from_values(to_values(base), "bf16"), 3e-7),
    "nudges/1": lambda base: nudged(from_values(to_values(base), "bf16"), 1e-5),
    "cast/1": lambda base: from_values(to_values(base), "f32"),
    "scaled/1": lambda base: from_values(to_values(base) * factors(512)[:, None], base.dtype),
    "rows/1": trimmed,
    "lowrank/1": lambda base: merged(base, 4, 0.002),
    "dense/1": lambda base: weights("bf16", base.shape, 77),
}


def decoded(choice: Choice, new: TensorWords, bases: list[TensorWords], limit: int) -> bool:
    """Return whether every chunk comes back."""
    encoded, ranges = choice.encoded, chunks_of(new, limit)
    if choice.base is None:
        raw = [
            dense.decode(c, new.dtype, new.words[a:b].nbytes)
            for c, (a, b) in zip(encoded.chunks, ranges, strict=True)
        ]
        return b"".join(raw) == new.words.tobytes()
    decoder = codec(encoded.codec).decoder(encoded.shared, Target(new.dtype, new.shape), bases[choice.base])
    words = [decoder.decode(c, a, b) for c, (a, b) in zip(encoded.chunks, ranges, strict=True)]
    return bool((np.concatenate(words) == new.words).all())


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_change_has_its_codec(name: str) -> None:
    new = CHANGES[name](BASE)
    choice = choose(new, [BASE], chunks_of(new, 1 << 18))
    assert choice.encoded.codec == name
    assert decoded(choice, new, [BASE], 1 << 18)
    assert choice.base == (None if name == "dense/1" else 0)


def test_the_nearer_base_is_taken() -> None:
    far, near = nudged(BASE, 3e-3, 1), nudged(BASE, 2e-5, 2)
    choice = choose(near, [far, BASE, weights("f16", (3,))], chunks_of(near))
    assert choice.base == 1


def test_without_a_base_it_is_dense() -> None:
    ranges = chunks_of(BASE)
    assert choose(BASE, [], ranges) == Choice(None, encode_dense(BASE, ranges), price_alone(BASE, ranges))


@given(st.data())
def test_anything_comes_back_at_no_more_than_dense(data: st.DataObject) -> None:
    dtypes = st.sampled_from(sorted(DTYPES))
    shapes = st.sampled_from([(4,), (12, 8), (40, 4, 3), (8, 12), (16, 8), (96,)])
    new = any_bits(data.draw(dtypes), data.draw(shapes), 1)
    bases = [any_bits(data.draw(dtypes), data.draw(shapes), k) for k in range(data.draw(st.integers(0, 3)))]
    choice = choose(new, bases, chunks_of(new, 64))
    assert decoded(choice, new, bases, 64)
    assert choice.encoded.size <= encode_dense(new, chunks_of(new, 64)).size


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (48, 96)])
def test_a_small_matrix_that_moved_in_a_few_directions_comes_back(dtype: str, shape: tuple[int, int]) -> None:
    """Its factors may have more numbers than it has itself; such a layer no reader takes."""
    base = from_values(np.random.default_rng(0).normal(0, 1, shape), dtype)
    moved, new = [], base
    for _ in range(10):  # what the steps add has rank one, and their rounding any
        new = from_values(to_values(new) + 1e-3, dtype)
        moved.append(new)
    moved += [merged(base, rank, size) for rank in (5, 31) for size in (1e-3, 1e-1)]
    for new in moved:
        choice = choose(new, [base], chunks_of(new))
        assert decoded(choice, new, [base], 4 << 20)


def test_the_sample_is_inside_the_chunks() -> None:
    ranges = [(0, 10), (1000, 300_000), (900_000, 900_001)]
    places = np.concatenate([np.arange(*part) for part in sample_ranges(ranges)])
    assert places.size == 8 << 13
    assert np.unique(places).size == places.size
    assert all(any(a <= p < b for a, b in ranges) for p in places.tolist())
    assert sample_ranges([(5, 8), (20, 22)]) == [(5, 8), (20, 22)]
