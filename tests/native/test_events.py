"""Places of rare events come back, whatever the hazards; damaged streams are refused."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native import told_leaves
from theta_native import unwritable
from theta_native.contexts import ContextKeys, Levels
from theta_native.gaps import events
from theta_native.gaps.events import MOST, UNIT, decode, encode

HAZARDS = np.array([1, 2, 7, 100, 9000, UNIT, MOST - 1, MOST], np.uint32)


def contexts_of(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, HAZARDS.size, size).astype(np.uint16)


def coded(contexts: np.ndarray, there: np.ndarray, hazards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return encode(contexts, hazards, int(hazards[contexts].sum(dtype=np.int64)), there)


@given(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))),
    st.integers(0, 9),
    st.sampled_from([HAZARDS, np.full(8, 1, np.uint32), np.full(8, MOST, np.uint32)]),
)
def test_any_places_come_back(case: tuple[int, set[int]], seed: int, hazards: np.ndarray) -> None:
    size, chosen = case
    contexts = contexts_of(size, seed)
    there = np.array(sorted(place for place in chosen if place < size), np.uint32)
    states, words = coded(contexts, there, hazards)
    keys = ContextKeys.of(contexts, hazards.size)
    found = decode(states, words, keys, hazards, there.size)
    assert found is not None
    assert np.array_equal(found[0], there)
    assert np.array_equal(keys.numbers.reshape(-1)[found[1]], contexts[there])


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_contexts_in_bits_of_words_and_levels_of_blocks(block: int) -> None:
    rng = np.random.default_rng(block)
    words = rng.integers(0, 1 << 16, 5000).astype(np.uint16)
    levels = rng.integers(0, 2, -(-words.size // block)).astype(np.uint8)
    numbers = rng.integers(0, HAZARDS.size, (2, 16)).astype(np.uint16)
    keys = ContextKeys(words, 5, numbers, Levels(levels, 2, block), HAZARDS.size)
    contexts = numbers[np.repeat(levels, block)[: words.size], (words >> 5) & 15]
    there = np.flatnonzero(rng.random(words.size) < 0.1).astype(np.uint32)
    states, stream = coded(contexts, there, HAZARDS)
    found = decode(states, stream, keys, HAZARDS, there.size)
    assert found is not None
    assert np.array_equal(found[0], there)
    assert np.array_equal(numbers.reshape(-1)[found[1]], contexts[there])


def test_places_cost_what_their_rates_say() -> None:
    rng = np.random.default_rng(0)
    hazards = np.array([UNIT // 1000, UNIT // 30, UNIT // 3], np.uint32)
    contexts = rng.integers(0, 3, 200_000).astype(np.uint16)
    share = -np.expm1(-(hazards / UNIT))[contexts]
    happens = rng.random(contexts.size) < share
    _, words = coded(contexts, np.flatnonzero(happens).astype(np.uint32), hazards)
    ideal = -np.log2(np.where(happens, share, 1 - share)).sum()
    assert 32 * words.size <= 1.002 * ideal + 64


def test_each_slot_belongs_to_the_hazard_that_reaches_it() -> None:
    curve, rng = events._curve(), random.Random(0)
    slots = [0, 1, (1 << 28) - 1, *(rng.randrange(1 << 28) for _ in range(300))]
    slots += [int(end) + shift for end in curve[1:33] for shift in (-1, 0)]
    for slot in slots:
        hazard = int(events._hazard(np.uint64(slot), curve))
        assert int(events._share(np.uint64(hazard), curve)) <= slot
        if hazard < MOST:
            assert slot < int(events._share(np.uint64(hazard + 1), curve))


def test_damaged_streams_are_refused_or_have_places_in_order() -> None:
    contexts, rng = contexts_of(2000, 1), random.Random(1)
    there = np.flatnonzero(np.random.default_rng(2).random(2000) < 0.05).astype(np.uint32)
    states, words = coded(contexts, there, HAZARDS)
    keys, refused = ContextKeys.of(contexts, HAZARDS.size), 0
    for _ in range(200):
        bad_states, bad_words = states.copy(), words.copy()
        where = rng.randrange(3)
        if where == 0:
            bad_states[rng.randrange(2)] = rng.choice((0, 1, (1 << 64) - 1, rng.randrange(1 << 64)))
        elif where == 1:
            bad_words[rng.randrange(words.size)] ^= np.uint32(1 << rng.randrange(32))
        else:
            bad_words = words[: rng.randrange(words.size)]
        found = decode(bad_states, bad_words, keys, HAZARDS, there.size)
        refused += found is None
        if found is not None:
            assert bool((np.diff(found[0].astype(np.int64)) > 0).all())
            assert int(found[0][-1]) < contexts.size
    assert refused > 150


def test_what_is_told_of_the_arguments_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = told_leaves.checked(monkeypatch, events)
    for size, shut in ((40, False), (40, True), (3000, True)):
        contexts, there = contexts_of(size, 1), np.array([3, 30], np.uint32)
        states, words = coded(contexts, there, HAZARDS)
        keys = ContextKeys.of(unwritable(contexts) if shut else contexts, HAZARDS.size)
        found = decode(states, words, keys, HAZARDS, there.size)
        assert found is not None
        assert np.array_equal(found[0], there)
    assert len(known) == 2
