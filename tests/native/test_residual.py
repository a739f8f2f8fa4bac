"""Residuals and contexts against numpy twins, on a matrix of widths and kinds."""

import numpy as np
import pytest

from theta_native import contexts, differences
from theta_native.contexts import Levels

WIDTHS = (1, 2, 4, 8)


def random_words(width: int, size: int, seed: int) -> np.ndarray:
    top = 2 ** (8 * width) - 1
    words = np.random.default_rng(seed).integers(0, top, size, f"u{width}", endpoint=True)
    words[:4] = (0, top, top // 2, top // 2 + 1)
    return words


def twin_difference(words: np.ndarray, predicted: np.ndarray, is_float: bool) -> list[int]:
    """The definition, in Python's unbounded integers."""
    bits = words.dtype.itemsize * 8
    top = 1 << (bits - 1)

    def ordered(x: int) -> int:
        return x if not is_float else (x | top if x < top else (1 << bits) - 1 - x)

    found = []
    for x, p in zip(words.tolist(), predicted.tolist(), strict=True):
        d = ordered(x) - ordered(p)
        d = (-d if is_float and p >= top else d) % (1 << bits)
        d = d - (1 << bits) if d >= top else d
        found.append(2 * d if d >= 0 else -2 * d - 1)
    return found


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_difference_is_its_twin_and_restore_its_inverse(width: int, is_float: bool) -> None:
    words, predicted = random_words(width, 500, 1), random_words(width, 500, 2)[::-1].copy()
    zigzag = differences.difference(words, predicted, is_float)
    assert zigzag.tolist() == twin_difference(words, predicted, is_float)
    np.testing.assert_array_equal(differences.restore(zigzag, predicted, is_float), words)


def test_neighbouring_floats_differ_by_one_step() -> None:
    values = np.array([-1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, np.inf], np.float32)
    after = np.nextafter(values, np.float32(np.inf))
    zigzag = differences.difference(after.view(np.uint32), values.view(np.uint32), True)
    # Away from zero counts upwards; -0.0 is a step of its own, which nextafter skips.
    assert zigzag.tolist() == [1, 1, 3, 2, 2, 2, 0]


@pytest.mark.parametrize("width", WIDTHS)
def test_magnitudes(width: int) -> None:
    words = random_words(width, 300, 3)
    bits = 8 * width
    lengths = differences.bit_lengths(words, False)
    assert lengths.tolist() == [x.bit_length() for x in words.tolist()]
    signed = differences.bit_lengths(words, True)
    expected = [(x if x >= 0 else ~x).bit_length() for x in words.view(f"i{width}").tolist()]
    assert signed.tolist() == expected
    exponents = differences.exponents(words, 4)
    assert exponents.tolist() == [(x >> (bits - 5)) & 15 for x in words.tolist()]


def test_fold_and_fine_bits() -> None:
    assert contexts.fold(np.array([9, 5, 3, 0], np.uint16), 5, 4).tolist() == [0, 0, 2, 3]
    assert contexts.fine_bits(np.array([0b10110, 0b1], np.uint8), 1, 3).tolist() == [0b011, 0]


@pytest.mark.parametrize("block", [1, 3, 7, 64, 1000])
def test_combine_and_excess(block: int) -> None:
    rng = np.random.default_rng(4)
    size = 500
    classes, fine = rng.integers(0, 5, size, np.uint8), rng.integers(0, 3, size, np.uint8)
    levels = rng.integers(0, 4, -(-size // block), np.uint8)
    expected = (classes.astype(int) * 4 + np.repeat(levels, block)[:size]) * 3 + fine
    np.testing.assert_array_equal(contexts.combine(classes, Levels(levels, 4, block), fine, 3), expected)
    assert (
        contexts.histogram(expected.astype(np.uint16), 60).tolist()
        == np.bincount(expected, minlength=60).tolist()
    )
    values = rng.integers(0, 2**12, size, np.uint16)
    magnitudes = (9 - classes).astype(np.uint16)
    lengths = np.array([v.bit_length() for v in values.tolist()], float)
    means = np.array([lengths[classes == k].mean() for k in range(5)])
    over = lengths - means[classes]
    twin = [over[k : k + block].mean() for k in range(0, size, block)]
    top, found, chance = contexts.activity(values, magnitudes, 5, block)
    assert top == 9
    np.testing.assert_allclose(found, twin, atol=1e-12)
    halves = [chance_of(over[k : k + block]) for k in range(0, size, block)]
    np.testing.assert_allclose(chance, np.mean(np.square(halves)), rtol=1e-9)


def test_the_first_class_is_that_of_all_but_one_in_4096() -> None:
    magnitudes = np.full(9000, 7, np.uint16)
    for count, top in ((0, 7), (1, 7), (2, 7), (3, 2047)):
        magnitudes[:count] = 2047
        assert contexts.activity(np.zeros(9000, np.uint8), magnitudes, 24, 64)[0] == top


def chance_of(over: np.ndarray) -> float:
    """The difference between half of a block, two of four words and all odd ones, and the other half."""
    whole = over.size & ~3
    fours = over[:whole].reshape(-1, 4)
    return float((fours[:, :2].sum() - fours[:, 2:].sum() + over[whole:].sum()) / over.size)


@pytest.mark.parametrize("fine", [0, 3])
@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("width", WIDTHS)
def test_contexts_of_floats_in_one_pass(width: int, block: int, fine: int) -> None:
    words = random_words(width, 500, 5)
    levels = np.random.default_rng(6).integers(0, 4, -(-500 // block), np.uint8)
    shift = 8 * width - 1 - 4
    classes = contexts.fold(differences.exponents(words, 4), 11, 6)
    places = Levels(levels, 4, block)
    expected = contexts.combine(classes, places, contexts.fine_bits(words, 0, fine), 1 << fine)
    found = contexts.of_floats(words, (shift, 4), (0, fine), 11, 6, places)
    np.testing.assert_array_equal(found, expected)
