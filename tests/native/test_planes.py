"""Byte planes: the kernels, and the numpy path of small arrays, against a twin."""

import numpy as np
import pytest

from theta_native import SMALL, byte_planes
from theta_native.byte_planes import join, split

CASES = [
    (width, rotate, size) for width in (1, 2, 4, 8) for rotate in (False, True) for size in (0, 1, 7, 1000)
]


def twin_split(words: np.ndarray, rotate: bool) -> np.ndarray:
    """Plane k = byte k of every word, after a rotation to the left by one bit."""
    bits = words.dtype.itemsize * 8
    if rotate and bits > 8:
        one, rest = words.dtype.type(1), words.dtype.type(bits - 1)
        words = (words << one) | (words >> rest)
    return words.view(np.uint8).reshape(-1, words.dtype.itemsize).T


def random_words(width: int, size: int) -> np.ndarray:
    top = 2 ** (8 * width) - 1
    words = np.random.default_rng(width).integers(0, top, size, f"u{width}", endpoint=True)
    if size > 4:
        words[:4] = (0, 1, top, top // 2 + 1)
    return words


@pytest.mark.parametrize(("width", "rotate", "size"), [case for case in CASES if case[0] > 1])
@pytest.mark.parametrize("way", ["kernel", "numpy"])
def test_split_is_its_twin_and_join_its_inverse(way: str, width: int, rotate: bool, size: int) -> None:
    words = random_words(width, size)
    found = getattr(byte_planes, f"_split_by_{way}")(words, rotate)
    np.testing.assert_array_equal(found, twin_split(words, rotate))
    assert found.flags.c_contiguous
    places = [np.empty_like(words), None] if way == "kernel" else []
    for more in [[place] for place in places] or [[]]:
        back = getattr(byte_planes, f"_join_by_{way}")(found, rotate, *more)
        assert back.tobytes() == words.tobytes()
        assert (back.dtype, back.flags.c_contiguous) == (words.dtype, True)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [5, SMALL, SMALL + 1])
def test_arrays_of_any_size(width: int, size: int) -> None:
    words = random_words(width, size)
    found = split(words, True)
    np.testing.assert_array_equal(found, twin_split(words, True))
    assert join(list(found), True).tobytes() == words.tobytes()


def test_the_top_plane_of_a_bf16_is_its_exponent() -> None:
    words = (np.array([1.0, -1.0, 2.0, -0.5], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert split(words, True)[1].tolist() == [127, 127, 128, 126]
