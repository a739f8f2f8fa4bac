"""Moves of words come back, whatever their shares; damaged streams are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native import told_leaves
from theta_native.contexts import ContextKeys, Levels
from theta_native.gaps import moves
from theta_native.gaps.moves import GROUP, OTHER, SHARES

CONTEXTS = 5
CLUSTERS = np.array([0, 1, 2, 1, 0], np.uint8)
TABLE = np.array([[4000, 40, 50, 6], [1024, 1024, 1024, 1024], [0, 4095, 0, 1]], np.uint32)


def keys_of(seed: int, groups: int, block: int = GROUP) -> ContextKeys:
    """Words in blocks of two levels, whose contexts are by three of their bits."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 0xFFFF, groups * GROUP).astype(np.uint16)
    words.flags.writeable = False
    levels = rng.integers(0, 2, -(-words.size // block)).astype(np.uint8)
    numbers = rng.integers(0, CONTEXTS, (2, 8)).astype(np.uint16)
    return ContextKeys(words, 5, numbers, Levels(levels, 2, block), CONTEXTS)


def clusters_of(keys: ContextKeys) -> np.ndarray:
    levels = np.repeat(keys.levels.of_blocks, keys.levels.block)[: keys.words.size]
    found: np.ndarray = CLUSTERS[keys.numbers[levels, (keys.words >> 5) & 7]]
    return found


def drawn(keys: ContextKeys, shares: np.ndarray, seed: int) -> np.ndarray:
    """Moves as their shares say."""
    ends, there = np.cumsum(shares, axis=1)[clusters_of(keys)], np.random.default_rng(seed)
    found: np.ndarray = (there.integers(0, SHARES, keys.words.size)[:, None] >= ends).sum(axis=1)
    return found.astype(np.uint8)


def decoded(
    states: np.ndarray, stream: np.ndarray, keys: ContextKeys, shares: np.ndarray = TABLE
) -> tuple[np.ndarray, moves.OtherMoves | None]:
    out = np.empty(keys.words.size, np.uint16)
    return out, moves.decode(states, stream, keys, CLUSTERS, shares, out, keys.words.size)


@given(st.integers(0, 40), st.integers(1, 40), st.sampled_from([GROUP, 5 * GROUP, 1 << 14]))
def test_any_moves_come_back(seed: int, groups: int, block: int) -> None:
    keys = keys_of(seed, groups, block)
    told = drawn(keys, TABLE, seed)
    out, found = decoded(*moves.encode(keys, told, CLUSTERS, TABLE), keys)
    assert found is not None
    steps = np.array([0, -1, 1, 0])[told]
    assert np.array_equal(out, (keys.words + steps).astype(np.uint16))
    assert np.array_equal(found.places, np.flatnonzero(told == OTHER))
    levels = np.repeat(keys.levels.of_blocks, block)[found.places].astype(int)
    assert np.array_equal(found.numbers, levels * 8 + ((keys.words[found.places] >> 5) & 7))


def test_more_words_than_there_may_be_are_refused() -> None:
    keys = keys_of(0, 40)
    told = drawn(keys, TABLE, 0)
    states, stream = moves.encode(keys, told, CLUSTERS, TABLE)
    count, out = int((told == OTHER).sum()), np.empty(keys.words.size, np.uint16)
    for most in (0, 1, count - 1, count, count + 1):
        found = moves.decode(states, stream, keys, CLUSTERS, TABLE, out, most)
        assert (found is None) == (most < count)


def test_what_is_told_of_the_arguments_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = told_leaves.checked(monkeypatch, moves)
    for groups in (1, 40):
        keys = keys_of(groups, groups)
        _, found = decoded(*moves.encode(keys, drawn(keys, TABLE, 0), CLUSTERS, TABLE), keys)
        assert found is not None
    assert len(known) == 1


def test_moves_tell_one_unit_from_anything_else() -> None:
    base = np.array([5, 5, 5, 5, 0, 0xFFFF, 0x7FFF], np.uint16)
    words = np.array([5, 4, 6, 9, 0xFFFF, 0, 0x8000], np.uint16)
    assert moves.moves_of(words, base).tolist() == [0, 1, 2, 3, 3, 3, 2]


def test_frequencies_add_up_and_none_of_a_possible_symbol_is_0() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        cuts = np.sort(random.integers(0, SHARES + 1, (8, 3)) // random.choice([1, 40, 4000], (8, 3)), axis=1)
        shares = np.diff(cuts, axis=1, prepend=0, append=SHARES).astype(np.uint32)
        found = moves.frequencies_of(shares)
        assert (found.sum(axis=1) == 1024).all()
        possible = (shares[:, None, None, :] > 0) & (shares[None, :, :, None] > 0)
        assert np.array_equal(found > 0, possible.reshape(-1, 16))


def test_moves_cost_what_their_shares_say() -> None:
    keys = keys_of(0, 20_000, 1 << 14)
    told = drawn(keys, TABLE, 1)
    _, stream = moves.encode(keys, told, CLUSTERS, TABLE)
    ideal = -np.log2(TABLE[clusters_of(keys), told] / SHARES).sum()
    assert 32 * stream.size <= 1.01 * ideal + 64


@pytest.mark.parametrize("seed", range(20))
def test_damaged_streams_are_refused_or_have_places_in_order(seed: int) -> None:
    rng, keys = np.random.default_rng(seed), keys_of(seed, 50)
    states, stream = moves.encode(keys, drawn(keys, TABLE, seed), CLUSTERS, TABLE)
    states, stream = states.copy(), stream.copy()
    if seed % 3:
        stream[rng.integers(0, stream.size)] ^= np.uint32(1 << int(rng.integers(0, 32)))
    elif seed % 2:
        states[rng.integers(0, 4)] = rng.integers(0, 1 << 63)
    else:
        stream = stream[: rng.integers(0, stream.size)]
    _, found = decoded(states, stream, keys)
    assert found is None or (np.diff(found.places.astype(np.int64)) > 0).all()
