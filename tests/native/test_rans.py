"""The entropy coder: tokens against a twin, streams against their inverse and their entropy."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from theta_native import clusters, rans

if TYPE_CHECKING:
    from numpy.typing import NDArray

RULES = [(0, 0), (4, 1), (8, 2), (8, 0)]


def values_of(width: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 2**63, size, np.uint64) * 2 + 1) >> rng.integers(0, 64, size, np.uint64)
    values[:3] = (0, 1, 2**64 - 1)
    made: NDArray[Any] = (values >> np.uint64(64 - 8 * width)).astype(f"u{width}")
    return made


def twin_token(value: int, s: int, m: int) -> tuple[int, int]:
    """The token and the number of raw bits, by definition."""
    if value < 1 << s:
        return value, 0
    n = value.bit_length() - 1
    return (1 << s) + ((n - s) << m) + ((value >> (n - m)) & ((1 << m) - 1)), n - m


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_tokens_and_raw_bits(width: int, rule: tuple[int, int]) -> None:
    values = values_of(width, 700)
    contexts = np.arange(700, dtype=np.uint16) % 3
    tokens, counts, raw_bits = rans.tokenise(values, *rule, contexts, 3)
    twins = [twin_token(v, *rule) for v in values.tolist()]
    assert tokens.tolist() == [token for token, _ in twins]
    assert raw_bits == sum(bits for _, bits in twins)
    assert max(tokens.tolist()) < rans.alphabet(8 * width, *rule) == counts.shape[1]
    for k in range(3):
        assert counts[k].tolist() == np.bincount(tokens[k::3], minlength=counts.shape[1]).tolist()
    raw = rans.write_raw(values, tokens, *rule, raw_bits)
    assert raw.size == rans.raw_size(tokens, *rule)
    np.testing.assert_array_equal(rans.read_raw(tokens, *rule, raw, values.dtype), values)


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


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1001])
def test_streams(size: int) -> None:
    rng = np.random.default_rng(size)
    labels = rng.integers(0, 4, size, np.uint8)
    tokens = np.array([rng.choice(3, p=TABLE[k] / 4096) for k in labels], np.uint16)
    states, words = rans.encode(tokens, labels, TABLE)
    back = rans.decode(states, words, labels, TABLE)
    assert back is not None
    assert back.tolist() == tokens.tolist()
    assert twin_decode(states.tolist(), words.tolist(), labels.tolist(), TABLE.tolist()) == tokens.tolist()


def test_a_stream_is_near_its_entropy() -> None:
    rng = np.random.default_rng(5)
    tokens = rng.choice(3, 100_000, p=TABLE[1] / 4096).astype(np.uint16)
    shares = np.bincount(tokens) / tokens.size
    entropy = float(-(shares * np.log2(shares)).sum()) * tokens.size / 16
    assert rans.encode(tokens, np.ones(tokens.size, np.uint8), TABLE)[1].size < 1.01 * entropy + 4


def test_damaged_streams_are_noticed() -> None:
    labels = np.full(1000, 3, np.uint8)
    tokens = np.random.default_rng(6).integers(0, 3, 1000, np.uint16)
    states, words = rans.encode(tokens, labels, TABLE)
    assert rans.decode(states, words[:-1].copy(), labels, TABLE) is None
    assert rans.decode(states, np.append(words, np.uint16(0)), labels, TABLE) is None
    assert rans.decode(states ^ np.uint32(1 << 20), words, labels, TABLE) is None
    assert rans.decode(states, words[:0].copy(), labels, TABLE) is None


def test_clusters() -> None:
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 9, (20, 6)).astype(np.uint32)
    costs = rng.random((6, 3))
    labels, total = clusters.assign(counts, costs)
    twin = counts @ costs
    assert labels.tolist() == twin.argmin(axis=1).tolist()
    assert total == pytest.approx(twin.min(axis=1).sum())
    sums = clusters.sum_groups(counts, labels, 3)
    assert [s.tolist() for s in sums] == [counts[labels == k].sum(axis=0).tolist() for k in range(3)]
