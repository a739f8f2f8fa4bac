"""Frames of the Huffman coder are Zstandard's: its own decoder reads them."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from theta_native import huffman

LARGE = huffman.BLOCK


def back(frame: huffman.Bytes, size: int) -> bytes:
    assert zstandard.get_frame_parameters(frame.tobytes()).content_size == size
    return zstandard.ZstdDecompressor().decompress(frame.tobytes(), max_output_size=size)


def check(data: np.ndarray) -> int:
    frame = huffman.frame(data)
    assert frame is not None
    assert back(frame, data.size) == data.tobytes()
    return int(frame.size)


def fibonacci(size: int) -> np.ndarray:
    """Bytes whose Huffman codes would be as long as they can be."""
    numbers = [1, 1]
    while sum(numbers) < size:
        numbers.append(numbers[-1] + numbers[-2])
    return np.repeat(np.arange(len(numbers), dtype=np.uint8), numbers)[-size:]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 31, 1000, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 12])
@pytest.mark.parametrize("symbols", [1, 2, 3, 40, 129])
def test_any_size_and_number_of_symbols(size: int, symbols: int) -> None:
    random = np.random.default_rng(size * symbols)
    check(random.integers(0, symbols, size).astype(np.uint8))
    check(np.minimum(random.geometric(0.4, size) - 1, symbols - 1).astype(np.uint8))
    check((random.random(size) < 1e-4).astype(np.uint8) * np.uint8(symbols - 1))


@given(st.binary(min_size=1, max_size=300), st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_any_mixture(symbols: bytes, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.pareto(0.3, len(symbols)) + 1e-9
    data = random.choice(np.frombuffer(symbols, np.uint8), size, p=weights / weights.sum())
    frame = huffman.frame(np.ascontiguousarray(data))
    assert (frame is None) == bool(data[: size & ~7].size and data[: size & ~7].max() > huffman.MAX_SYMBOL)
    assert frame is None or back(frame, size) == data.tobytes()


def test_codes_are_cut_to_what_zstandard_allows() -> None:
    data = fibonacci(LARGE)
    assert check(data) == pytest.approx(check(np.random.default_rng(0).permutation(data)), rel=0.001)


def test_blocks_share_a_tree_where_that_is_cheaper_and_change_it_where_not() -> None:
    random = np.random.default_rng(4)
    alike = np.minimum(random.geometric(0.3, 8 * LARGE), 60).astype(np.uint8)
    other = (60 - alike[: 4 * LARGE]).astype(np.uint8)
    assert check(np.concatenate([alike[: 4 * LARGE], other])) < 1.001 * check(alike)


def test_not_larger_than_the_library_in_what_exponents_are_like() -> None:
    words = np.random.default_rng(5).standard_normal(1 << 20).astype(np.float32).view(np.uint32)
    exponents = ((words >> 23) & 0xFF).astype(np.uint8) - np.uint8(6)
    library = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(
            compression_level=1, strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, min_match=7
        )
    )
    assert check(exponents) < 1.001 * len(library.compress(exponents.tobytes()))


def test_bytes_that_are_too_large_are_left_to_others() -> None:
    data = np.zeros(LARGE + 8, np.uint8)
    data[-1] = huffman.MAX_SYMBOL + 1
    assert huffman.frame(data) is None


KINDS = ("equal", "noise", "few", "skewed", "other")


def run_of(kind: str, size: int, random: np.random.Generator) -> np.ndarray:
    if kind == "equal":
        return np.full(size, 7, np.uint8)
    if kind == "noise":
        return random.integers(0, 129, size, np.uint8)
    if kind == "few":
        return random.integers(3, 5, size, np.uint8)
    skewed = np.minimum(random.geometric(0.4, size), 60).astype(np.uint8)
    return skewed if kind == "skewed" else np.uint8(120) - skewed


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), st.integers(0, 400), st.integers(0, 2**32))
def test_blocks_of_any_kinds_one_after_the_other(kinds: list[str], rest: int, seed: int) -> None:
    """Blocks that are raw, equal bytes, with codes of their own or with those of the block before."""
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(huffman, "BLOCK", 512)
        runs = [run_of(kind, 512, random) for kind in kinds]
        check(np.concatenate([*runs, run_of(kinds[0], rest, random)]))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=129))
def test_codes_use_all_room_and_are_not_too_long(weights: list[int]) -> None:
    """A decoder computes the last length from the others, and refuses codes that leave room."""
    lengths = huffman._lengths(np.array(weights))
    assert 1 <= lengths.min() <= lengths.max() <= huffman.MAX_BITS
    assert sum(2.0**-length for length in lengths.tolist()) == 1
    order = np.argsort(weights, kind="stable")
    assert (np.diff(lengths[order]) <= 0).all()
