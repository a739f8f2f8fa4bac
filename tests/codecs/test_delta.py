"""delta/1, sparse/1, steps/1 and nudges/1: exact for every dtype and every bit pattern, and small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.layer_cases import (
    any_bits,
    check,
    from_values,
    nudged,
    ratio,
    to_values,
    weights,
    with_words,
)
from theta.codecs import delta, residual, sparse, steps
from theta.codecs.base import Target, TensorWords
from theta.codecs.moves import nudges
from theta.dtypes import DTYPES
from theta.errors import CodecError

ALL = sorted(DTYPES)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("shape", [(4,), (0, 4), (64, 40), (6, 2, 3, 4), (3000,)])
def test_unrelated_bits_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    new, base = any_bits(dtype, shape), any_bits(dtype, shape, 1)
    check(delta, new, base, 4096)
    check(steps, new, base, 4096)
    if dtype in nudges.DTYPES:
        check(nudges, new, base, 4096)
    if new.words.size:
        check(sparse, new, base, 4096)


@pytest.mark.parametrize("dtype", ALL)
@given(data=st.data())
def test_any_change_comes_back(dtype: str, data: st.DataObject) -> None:
    base = any_bits(dtype, (200,), data.draw(st.integers(0, 5)))
    words = base.words.copy()
    for _ in range(data.draw(st.integers(1, 8))):
        words[data.draw(st.integers(0, words.size - 1))] ^= data.draw(
            st.integers(1, np.iinfo(words.dtype).max)
        )
    new = with_words(base, words)
    check(delta, new, base)
    check(steps, new, base)
    if dtype in nudges.DTYPES:
        check(nudges, new, base)
    if (words != base.words).any():
        check(sparse, new, base)


def test_scalars() -> None:
    check(delta, any_bits("f32", ()), any_bits("f32", (), 1))


@pytest.mark.parametrize("name", ["delta", "sparse", "steps", "nudges"])
@pytest.mark.parametrize("other", [("f16", (8, 8)), ("bf16", (8, 7))])
def test_a_base_that_does_not_fit(name: str, other: tuple[str, tuple[int, ...]]) -> None:
    codec = {"delta": delta, "sparse": sparse, "steps": steps, "nudges": nudges}[name]
    new, base = weights("bf16", (8, 8)), weights(*other)
    assert codec.encode(new, base, [(0, 64)]) is None
    with pytest.raises(CodecError):
        codec.decoder(None, Target("bf16", (8, 8)), base)
    with pytest.raises(CodecError):
        codec.decoder(b"x", Target("bf16", (8, 8)), new)


def test_equal_chunks_cost_a_byte() -> None:
    base = weights("bf16", (1024, 1024))
    for codec in (delta, steps, nudges):
        assert check(codec, base, base, 1 << 20).chunks == (b"\0", b"\0")
    assert sparse.encode(base, base, [(0, 1 << 20)]) is None


# Bounds are what is reached, and a little more; compression.md §2 has the older figures:
# grouped planes took .404, .254, .148 and .087.
@pytest.mark.parametrize(("step", "bound"), [(1e-3, 0.400), (2e-4, 0.252), (4e-5, 0.130), (1e-5, 0.064)])
def test_size_of_small_steps_of_bf16(step: float, bound: float) -> None:
    base = weights("bf16", (1024, 1024))
    assert ratio(check(delta, nudged(base, step), base), base) <= bound


@pytest.mark.parametrize(("step", "bound"), [(3e-7, 0.0053), (1e-6, 0.0128), (3e-6, 0.0268)])
def test_size_of_steps_that_move_few_words(step: float, bound: float) -> None:
    base = weights("bf16", (1024, 1024))
    new = nudged(from_values(to_values(base), "bf16"), step)
    found = ratio(check(steps, new, base), base)
    assert found <= bound
    assert found <= ratio(check(delta, new, base), base)


@pytest.mark.parametrize(("step", "bound"), [(3e-6, 0.0268), (1e-5, 0.0572), (2e-5, 0.0848)])
def test_size_of_steps_that_move_some_words(step: float, bound: float) -> None:
    base = weights("bf16", (1024, 1024))
    new = nudged(from_values(to_values(base), "bf16"), step)
    found = ratio(check(nudges, new, base), base)
    assert found <= bound
    assert found <= ratio(check(delta, new, base), base)


def test_a_codec_of_words_of_16_bits_declines_others() -> None:
    new, base = weights("f32", (8, 8)), weights("f32", (8, 8), 1)
    assert nudges.encode(new, base, [(0, 64)]) is None
    with pytest.raises(CodecError):
        nudges.decoder(None, Target("f32", (8, 8)), base)


def test_weight_decay_of_f32_is_nearly_free() -> None:
    base = weights("f32", (1024, 512))
    values = base.words.view(np.float32)
    for _ in range(40):
        values = values * np.float32(1 - 2e-7)
    new = TensorWords("f32", base.shape, values.view(np.uint32))
    assert ratio(check(delta, new, base), base) <= 0.02


def test_active_rows_are_told_from_quiet_ones() -> None:
    base = weights("bf16", (2048, 512))
    values = to_values(base)
    values[::50] += np.random.default_rng(2).normal(0, 0.001, values[::50].shape)
    assert ratio(check(delta, from_values(values, "bf16"), base), base) <= 0.011


def test_rows_that_differ_by_chance_alone_have_one_level() -> None:
    random = np.random.default_rng(5)
    base = np.zeros(1 << 17, np.uint32)
    noise = random.normal(0, 200, base.size)
    scale = np.repeat(random.permutation(np.linspace(0.7, 1.4, 128)), 1024)
    for moved, most in ((noise, 1), (noise * scale, 6)):
        values = np.abs(moved).astype(np.uint32)
        layout = residual.layout_of(values, base, "f32", 1024, None)
        assert layout.level_count == most


def test_one_percent_of_new_values() -> None:
    base, other = weights("bf16", (2048, 1024)), weights("bf16", (2048, 1024), 9)
    chosen = np.random.default_rng(3).random(base.words.size) < 0.01
    new = with_words(base, np.where(chosen, other.words, base.words))
    found = ratio(check(sparse, new, base), base)
    assert found <= 0.0120
    assert found < ratio(check(delta, new, base), base)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("rows", [slice(4, None, 8), slice(3, None, 8), slice(-5, None)])
def test_rows_that_are_changed_among_many_that_are_not_cost_what_they_are(dtype: str, rows: slice) -> None:
    # A plan on a sample of the rows may see none of these, or nothing else.
    base = weights(dtype, (1024, 512))
    words, moved = base.words.reshape(1024, 512).copy(), nudged(base, 0.02).words.reshape(1024, 512)
    words[rows] = moved[rows]
    new = with_words(base, words.reshape(-1))
    encoded = check(delta, new, base)
    share = np.count_nonzero((words != base.words.reshape(1024, 512)).any(axis=1)) / 1024
    alone = check(delta, with_words(base, moved.reshape(-1)), base)
    assert encoded.size < 1.1 * share * alone.size + 4096
