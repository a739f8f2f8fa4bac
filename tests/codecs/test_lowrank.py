"""lowrank/1: a merged LoRA is found, costs little more than its factors, and decodes everywhere."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.layer_cases import (
    any_bits,
    check,
    chunks_of,
    from_values,
    nudged,
    ratio,
    to_values,
    weights,
    with_words,
)
from theta import _blas
from theta._blas import one_thread, threads
from theta.codecs import arith, brought, delta, lowrank
from theta.codecs.base import Target, TensorWords
from theta.codecs.factoring import factors, projections, spectrum
from theta.codecs.factoring.exact_sums import Product
from theta.errors import CodecError


def merged(base: TensorWords, rank: int, size: float, seed: int = 0) -> TensorWords:
    """The base with a product of two random f32 factors added, rounded to its dtype."""
    rng = np.random.default_rng(seed)
    rows = base.shape[0]
    up, down = rng.normal(0, 1, (rows, rank)), rng.normal(0, 1, (rank, base.words.size // rows))
    update = up.astype(np.float32) @ down.astype(np.float32)
    update *= np.float32(size / update.std())
    return from_values(to_values(base) + update.reshape(base.shape).astype(np.float64), base.dtype)


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.033), ("f16", 0.038), ("f32", 0.05)])
def test_a_merged_lora_is_found(dtype: str, bound: float) -> None:
    base = weights(dtype, (640, 768))
    new = merged(base, 8, 0.0018)
    encoded = check(lowrank, new, base, 1 << 20)
    assert struct.unpack_from("<H", encoded.shared or b"")[0] == 8
    assert ratio(encoded, new) <= bound


def test_a_lora_merged_before_both_versions_were_rounded() -> None:
    values, rng = np.random.default_rng(3).normal(0, 0.02, (640, 768)), np.random.default_rng(4)
    update = rng.normal(0, 1, (640, 8)) @ rng.normal(0, 6e-4, (8, 768))
    base, new = from_values(values, "bf16"), from_values(values + update, "bf16")
    assert ratio(check(lowrank, new, base), new) < 0.09


def test_several_merges_are_found_as_one() -> None:
    base = new = weights("bf16", (512, 512))
    for seed in range(3):
        new = merged(new, 4, 0.0018, seed)
    assert ratio(check(lowrank, new, base), new) < 0.13


def test_it_beats_delta_by_far_at_high_rank_and_small_size() -> None:
    base = weights("bf16", (768, 768))
    for rank, size in ((40, 0.002), (4, 0.0004)):
        new = merged(base, rank, size)
        ranges = chunks_of(new)
        found, plain = lowrank.encode(new, base, ranges), delta.encode(new, base, ranges)
        assert found is not None
        assert plain is not None
        assert found.size < 0.5 * plain.size


def test_convolutions_are_matrices() -> None:
    base = weights("bf16", (128, 32, 3, 3))
    assert ratio(check(lowrank, merged(base, 4, 0.002), base, 4096), base) < 0.2


def test_rows_longer_than_a_chunk() -> None:
    base = weights("f16", (64, 700))
    check(lowrank, merged(base, 2, 0.002), base, 500)


def test_a_dense_step_is_declined() -> None:
    base = weights("bf16", (400, 400))
    assert lowrank.encode(nudged(base, 1e-3), base, chunks_of(base)) is None
    assert lowrank.encode(base, base, chunks_of(base)) is None
    assert lowrank.encode(weights("bf16", (400,)), weights("bf16", (400,), 1), [(0, 400)]) is None


@pytest.mark.parametrize("dtype", lowrank.DTYPES_OF_MATRICES)
@given(seed=st.integers(0, 2**32))
def test_any_bits_and_any_factors_come_back(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    new, base = any_bits(dtype, (9, 14), seed), any_bits(dtype, (9, 14), seed + 1)
    rank, bits = int(rng.integers(1, 6)), int(rng.integers(1, 29))
    u, v = (rng.integers(-(1 << bits), 1 << bits, (n, rank)) for n in (9, 14))
    given_factors = factors.Factors(u, v, int(rng.integers(-90, 20)))
    if not given_factors.is_exact():
        return
    ranges = chunks_of(new, 100)
    encoded = lowrank.encode_factors(new, base, ranges, given_factors)
    decoder = lowrank.decoder(encoded.shared, Target(dtype, (9, 14)), base)
    for payload, (start, stop) in zip(encoded.chunks, ranges, strict=True):
        np.testing.assert_array_equal(decoder.decode(payload, start, stop), new.words[start:stop])


@pytest.mark.parametrize("bits", [10, 22, 28])
def test_the_product_is_the_integer_product(bits: int) -> None:
    rng = np.random.default_rng(bits)
    u, v = (rng.integers(-(1 << bits) + 1, 1 << bits, (20, 16)) for _ in range(2))
    product = factors.Factors(u, v, -bits).product(slice(None), slice(None))
    for i in range(20):
        for j in range(20):
            exact = sum(a * b for a, b in zip(u[i].tolist(), v[j].tolist(), strict=True))
            high = sum((a >> 14) * b for a, b in zip(u[i].tolist(), v[j].tolist(), strict=True))
            expected = float(exact) if bits < 24 else float(high * 2**14) + float(exact - high * 2**14)
            assert product[i, j] == expected * 2.0**-bits


@pytest.mark.parametrize(
    "unreadable",
    [
        factors.Factors(np.ones((32, 17), np.int64), np.ones((32, 17), np.int64), 0),
        factors.Factors(np.ones((32, 0), np.int64), np.ones((32, 0), np.int64), 0),
        factors.Factors(np.ones((32, 1), np.int64), np.ones((32, 1), np.int64), -401),
        factors.Factors(np.full((32, 1), 1 << 52), np.full((32, 1), 1 << 52), 0),
    ],
)
def test_factors_that_a_reader_refuses_are_not_written(unreadable: factors.Factors) -> None:
    base = weights("bf16", (32, 32))
    with pytest.raises(CodecError, match="cannot be stored"):
        lowrank.encode_factors(base, base, chunks_of(base), unreadable)


def test_factors_of_an_adapter_that_are_too_small_for_a_layer_are_added_without_it() -> None:
    base = weights("f32", (40, 30))
    tiny = np.full((40, 1), 1e-150), np.full((30, 1), 1e-150)
    done = brought.add_product(base, Product(*tiny, np.ones(1)))
    assert done.encode is None
    np.testing.assert_array_equal(done.new.words, base.words)


def test_too_large_factors_are_refused() -> None:
    huge = np.full((128, 64), 2**31 - 1)
    with pytest.raises(CodecError):
        lowrank.unpack(memoryview(lowrank.pack(factors.Factors(huge, huge, 0))), Target("f32", (128, 128)))
    target, base = Target("f32", (16, 16)), weights("f32", (16, 16))
    good = lowrank.pack(factors.Factors(huge[:16, :8] >> 8, huge[:16, :8] >> 8, 0))
    assert lowrank.decoder(good, target, base) is not None
    for bad in (None, b"", good[:3], good[:-1], good + b"\0", b"\0\0" + good[2:], b"\x09\0" + good[2:]):
        with pytest.raises(CodecError):
            lowrank.decoder(bad, target, base)
    with pytest.raises(CodecError):
        lowrank.decoder(good[:2] + b"\xff\x7f" + good[4:], target, base)


def test_a_few_busy_rows_are_left_to_delta() -> None:
    base = weights("f16", (600, 300))
    values = to_values(base)
    values[::40] += np.random.default_rng(3).normal(0, 1e-3, values[::40].shape)
    assert spectrum.look(from_values(values, "f16"), base) is None


def test_part_of_a_dense_step_is_of_low_rank() -> None:
    base = weights("bf16", (500, 400))
    rng = np.random.default_rng(4)
    common = rng.normal(0, 1, (500, 6)) @ rng.normal(0, 1, (6, 400)) * 5e-4
    new = from_values(to_values(base) + common + rng.normal(0, 4e-4, base.shape), "bf16")
    plain = delta.encode(new, base, chunks_of(new))
    assert plain is not None
    assert check(lowrank, new, base).size < 0.85 * plain.size


SCRIPT = """
import hashlib, numpy as np
from tests.codecs.test_lowrank import merged, weights, chunks_of, lowrank
base = weights("bf16", (512, 512)); new = merged(base, 8, 0.002)
encoded = lowrank.encode(new, base, chunks_of(new))
print(hashlib.sha256(encoded.shared + b"".join(encoded.chunks)).hexdigest())
"""


def test_threads_do_not_change_the_encoding() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": threads,
                "PYTHONPATH": os.pathsep.join(["", *sys.path]),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


def test_the_sketch_has_the_rank_of_the_product() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(0, 1, (200, 5)) @ rng.normal(0, 1, (5, 150)) + rng.normal(0, 1e-3, (200, 150))
    steps = projections.Steps(from_values(d, "f32"), from_values(np.zeros(d.shape), "f32"))
    u, v = projections.sketch(steps, 15, 1e-6)
    assert (u.shape, v.shape) == ((200, 5), (5, 150))
    assert np.abs(d - u @ v).max() < 0.01


@pytest.mark.parametrize("dtype", lowrank.DTYPES_OF_MATRICES)
def test_words_that_are_no_numbers_are_left_to_the_residual(dtype: str) -> None:
    base = weights(dtype, (256, 256))
    new = merged(base, 4, 0.0018)
    words, old = new.words.copy(), base.words.copy()
    words[::9973] = from_values(np.array([np.nan]), dtype).words
    old[5::9973] = from_values(np.array([np.inf]), dtype).words
    new, base = with_words(new, words), with_words(base, old)
    assert ratio(check(lowrank, new, base), new) < 0.12


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("places", [[(7, 9)], [(3, 5), (3, 77)], [(row, 40) for row in range(8)]])
def test_differences_that_overflow_are_no_error(dtype: str, places: list[tuple[int, int]]) -> None:
    base = weights(dtype, (256, 256))
    new = merged(base, 4, 0.002)
    values, below = to_values(new).astype(np.float64), to_values(base).astype(np.float64)
    for number, place in enumerate(places):
        values[place], below[place] = 3.2e38, -3.2e38 if number == 0 else 1.0
    new, base = from_values(values, dtype), from_values(below, dtype)
    if lowrank.encode(new, base, chunks_of(new)) is not None:
        check(lowrank, new, base)


def test_one_word_that_overflows_does_not_hide_an_update() -> None:
    base = weights("bf16", (256, 256))
    new = merged(base, 4, 0.002)
    words, old = new.words.copy(), base.words.copy()
    words[2000], old[2000] = 0x7F70, 0xFF70
    new, base = with_words(new, words), with_words(base, old)
    assert ratio(check(lowrank, new, base), new) < 0.12


def test_the_blas_has_its_threads_again_when_the_last_search_ends() -> None:
    found = threads()
    assert found is not None
    read, write = found
    before = read()
    write(2)
    with one_thread:
        with one_thread:
            assert read() == 1
        assert read() == 1
    assert read() == 2
    write(before)


def test_products_of_several_threads_do_not_wait_for_those_of_the_blas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(_blas, "threads", lambda: (lambda: 2, asked.append))
    rng = np.random.default_rng(0)
    whole = factors.Factors(rng.integers(-9, 9, (64, 4)), rng.integers(-9, 9, (64, 4)), -3)
    whole.product(slice(0, 64), slice(0, 64))
    assert asked == [1, 2]


@pytest.mark.parametrize("columns", [768, 1 << 17])
def test_a_prediction_does_not_depend_on_how_it_is_cut(columns: int) -> None:
    base, rng = weights("bf16", (4 * 98304 // columns, columns)), np.random.default_rng(5)
    u, v = rng.integers(-4000, 4000, (base.shape[0], 2)), rng.integers(-4000, 4000, (columns, 2))
    product = factors.Factors(u, v, -34)
    exact = to_values(base) + (u @ v.T) * 2.0**-34
    expected = arith.to_words(exact.reshape(-1), "bf16")
    for start, stop in [(0, expected.size), (1, 3), (700, expected.size - 5), (98304, 98304 + 65536)]:
        assert np.array_equal(lowrank.predict(base, product, start, stop), expected[start:stop])


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_only_hopeless_differences_are_given_up_early(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, found = np.random.default_rng(3), 0
    answers: list[bool] = []
    real = spectrum._Sample.is_hopeless

    def noted(sample: spectrum._Sample, gram: np.ndarray) -> bool:
        answers.append(real(sample, gram))
        return answers[-1]

    for turn in range(36):
        rows, columns = rng.choice([64, 256, 384], 2)
        rank, size, noise = int(rng.integers(1, 140)), 10 ** rng.uniform(-4, -1.5), 10 ** rng.uniform(-7, -2)
        base = from_values(rng.normal(0, 0.02, (rows, columns)), dtype)
        change = (rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))) * size * (turn % 3 > 0)
        new = from_values(
            to_values(base) + change + rng.normal(0, noise, (rows, columns)) * (turn % 2), dtype
        )
        with monkeypatch.context() as patch:
            patch.setattr(spectrum._Sample, "is_hopeless", noted)
            early = spectrum.look(new, base)
            patch.setattr(spectrum._Sample, "is_hopeless", lambda *_: False)
            assert spectrum.look(new, base) == early
        found += early is not None
    assert found
    assert 0 < sum(answers) < len(answers)
