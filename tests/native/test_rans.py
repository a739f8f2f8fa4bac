"""The entropy coder: streams against their inverse and their entropy, groups against a twin."""

import numpy as np
import pytest

from tests.native import stepwise
from theta_native import clusters, rans
from theta_native.contexts import ContextKeys, Levels


def twin_decode(states: list[int], words: list[int], labels: list[int], table: list[list[int]]) -> list[int]:
    """The decoder of the format description, word for word."""
    tokens, states = [], list(states)
    for i, label in enumerate(labels):
        x = states[i % 4]
        slot, token, start = x % 4096, 0, 0
        while slot >= start + table[label][token]:
            start += table[label][token]
            token += 1
        x = table[label][token] * (x // 4096) + slot - start
        states[i % 4] = (x << 16) | words.pop(0) if x < 1 << 16 else x
        tokens.append(token)
    assert not words
    assert states == [1 << 16] * 4
    return tokens


TABLE = np.array([[4096, 0, 0], [4000, 95, 1], [1, 2000, 2095], [1365, 1365, 1366]], np.uint32)
SAME = np.arange(4, dtype=np.uint8)
"""The look-up where contexts are clusters."""


def places(tokens: np.ndarray, labels: np.ndarray, table: np.ndarray = TABLE) -> np.ndarray:
    """The number of each frequency in the table, row by row."""
    found: np.ndarray = labels.astype(np.uint16) * table.shape[1] + tokens
    return found.astype(np.uint16)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1001])
def test_streams(size: int) -> None:
    rng = np.random.default_rng(size)
    contexts, lookup = rng.integers(0, 7, size, np.uint16), np.array([0, 3, 1, 2, 2, 0, 1], np.uint8)
    labels = lookup[contexts]
    tokens = np.array([rng.choice(3, p=TABLE[k] / 4096) for k in labels], np.uint16)
    states, words = rans.encode(places(tokens, labels), TABLE)
    back = stepwise.named(states, words, ContextKeys.of(contexts, 7), lookup, TABLE)
    assert back is not None
    assert back.tolist() == tokens.tolist()
    assert twin_decode(states.tolist(), words.tolist(), labels.tolist(), TABLE.tolist()) == tokens.tolist()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 31, 1003])
def test_streams_whose_contexts_are_in_bits_of_words_and_levels_of_blocks(size: int) -> None:
    rng = np.random.default_rng(size)
    words, levels = rng.integers(0, 1 << 16, size, np.uint16), rng.integers(0, 3, -(-size // 8), np.uint8)
    numbers = rng.integers(0, 4, (3, 32), np.uint16)
    numbers[numbers == 2] = 1
    keys = ContextKeys(words, 5, numbers, Levels(levels, 3, 8), 4)
    contexts = numbers[np.repeat(levels, 8)[:size], (words >> 5) & 31]
    assert stepwise.occurring(keys).tolist() == np.unique(contexts).tolist()
    tokens = np.array([rng.choice(3, p=TABLE[k] / 4096) for k in contexts], np.uint16)
    states, stream = rans.encode(places(tokens, contexts), TABLE)
    back = stepwise.named(states, stream, keys, SAME, TABLE)
    assert back is not None
    assert back.tolist() == tokens.tolist()
    kinds = np.array([0, 0, 1, 2])
    assert stepwise.occurring(keys.grouped(kinds)).tolist() == np.unique(kinds[contexts]).tolist()


def test_a_stream_is_near_its_entropy() -> None:
    rng = np.random.default_rng(5)
    tokens = rng.choice(3, 100_000, p=TABLE[1] / 4096).astype(np.uint16)
    shares = np.bincount(tokens) / tokens.size
    entropy = float(-(shares * np.log2(shares)).sum()) * tokens.size / 16
    assert rans.encode(places(tokens, np.ones(tokens.size)), TABLE)[1].size < 1.01 * entropy + 4


def test_every_frequency_divides_exactly() -> None:
    # Quotients come from products with reciprocals: all frequencies, at both ends of what a state may be.
    table = np.zeros((4095, 3), np.uint32)
    table[:, 0] = np.arange(1, 4096)
    table[:, 1] = 4096 - table[:, 0]
    contexts = np.repeat(np.arange(4095, dtype=np.uint16), 12)
    for token in (0, 1):
        tokens = np.full(contexts.size, token, np.uint16)
        for part in (slice(0, 12 * 255), slice(12 * 2000, 12 * 2255), slice(12 * 3840, None)):
            first = int(contexts[part][0])
            found = contexts[part] - np.uint16(first)
            rows = table[first : first + 256]
            states, words = rans.encode(places(tokens[part], found, rows), rows)
            assert (
                twin_decode(states.tolist(), words.tolist(), found.tolist(), rows.tolist())
                == tokens[part].tolist()
            )


def test_damaged_streams_are_noticed() -> None:
    labels = np.full(1000, 3, np.uint16)
    keys = ContextKeys.of(labels, 4)
    tokens = np.random.default_rng(6).integers(0, 3, 1000, np.uint16)
    states, words = rans.encode(places(tokens, labels), TABLE)
    words = words.copy()
    assert stepwise.named(states, words[:-1], keys, SAME, TABLE) is None
    assert stepwise.named(states, np.append(words, np.uint16(0)), keys, SAME, TABLE) is None
    assert stepwise.named(states ^ np.uint32(1 << 20), words, keys, SAME, TABLE) is None
    assert stepwise.named(states, words[:0].copy(), keys, SAME, TABLE) is None


def some_counts(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 90, (40, 12)) * (rng.random((40, 12)) < 0.5)
    counts[:, 0] += 1
    counts[7] *= 1000  # more than is looked up
    return counts.astype(np.uint32)


def test_groups_are_improved_as_a_twin_does() -> None:
    counts = some_counts(9)
    listed = clusters.Listed(np.insert(counts, [0, 3, 40], 0, axis=0))
    assert listed.occurring.tolist() == [1, 2, 3, *range(5, 42)]
    assert listed.totals.tolist() == counts.sum(axis=0).tolist()
    assert listed.weights.tolist() == counts.sum(axis=1).tolist()
    np.testing.assert_allclose(listed.means, counts @ np.arange(12) / counts.sum(axis=1))
    initial = np.random.default_rng(9).permutation(np.arange(40) % 7).astype(np.int64)
    sums = np.array([counts[initial == k].sum(axis=0) for k in range(7)])
    with np.errstate(divide="ignore"):
        costs = np.minimum(-np.log2(sums / sums.sum(axis=1, keepdims=True)), 14.0).T
    total = counts @ costs
    found, bits, used = listed.improve(initial, 14.0)
    assert found.tolist() == np.unique(total.argmin(axis=1), return_inverse=True)[1].tolist()
    assert bits == pytest.approx(total.min(axis=1).sum())
    assert used == np.count_nonzero(sums)


def bits_of_groups(counts: np.ndarray, groups: list[list[int]], costs: tuple[float, ...]) -> float:
    """Add up what tokens, tables and the map take."""
    total = 0.0
    for group in groups:
        sums = counts[group].sum(axis=0).astype(float)
        sums = sums[sums > 0]
        total -= float((sums * np.log2(sums / sums.sum())).sum()) - costs[0] * sums.size
        total -= costs[1] * len(group) * float(np.log2(len(group) / len(counts)))
    return total + costs[2] * len(groups)


@pytest.mark.parametrize("most", [1, 9, 64])
def test_neighbours_are_joined_as_a_twin_does(most: int) -> None:
    counts, costs = some_counts(11), (10.0, 1.0, 16.0, 0.004)
    listed = clusters.Listed(counts)
    order = np.argsort(listed.means, kind="stable")
    before = np.cumsum(listed.weights[order]) - listed.weights[order]
    places = before * most // (listed.weights.sum() + 1)
    groups = [order[places == place].tolist() for place in np.unique(places)]
    best, least = groups, float("inf")
    while True:
        bits = bits_of_groups(counts, groups, costs)
        if bits * (1 + costs[3] * np.log2(len(groups))) <= least:
            best, least = groups, bits * (1 + costs[3] * np.log2(len(groups)))
        if len(groups) == 1:
            break
        ways = [[*groups[:k], groups[k] + groups[k + 1], *groups[k + 2 :]] for k in range(len(groups) - 1)]
        groups = min(ways, key=lambda way: bits_of_groups(counts, way, costs))
    labels, bits = listed.joined(most, costs)
    assert [np.flatnonzero(labels == k).tolist() for k in range(labels.max() + 1)] == [
        sorted(group) for group in best
    ]
    assert bits == pytest.approx(bits_of_groups(counts, best, costs))


def test_sums_of_groups() -> None:
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 9, (20, 6)).astype(np.uint32) * (rng.random((20, 1)) < 0.8)
    counts = counts.astype(np.uint32)
    listed = clusters.Listed(counts)
    labels = rng.integers(0, 3, 20)
    expected = np.array([counts[labels == k].sum(axis=0) for k in range(3)])
    assert listed.sums(labels[listed.occurring]).tolist() == expected.tolist()
    rising, names = np.sort(labels), np.array([0, 0, 1, 2, 2, 2], np.uint16)
    expected = np.array([counts[rising == k].sum(axis=0) for k in range(3)])
    same = np.arange(6, dtype=np.uint16)
    assert listed.regrouped(rising, same, 6).tolist() == expected.tolist()
    expected = np.stack([expected[:, names == k].sum(axis=1) for k in range(3)], axis=1)
    assert listed.regrouped(rising, names, 3).tolist() == expected.tolist()
