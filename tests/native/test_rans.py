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
    tokens, counts = rans.tokenise(values, *rule, contexts, 3)
    twins = [twin_token(v, *rule) for v in values.tolist()]
    assert tokens.tolist() == [token for token, _ in twins]
    widths = rans.raw_widths(8 * width, *rule)
    assert widths[tokens].tolist() == [bits for _, bits in twins]
    assert max(tokens.tolist()) < rans.alphabet(8 * width, *rule) == counts.shape[1]
    for k in range(3):
        assert counts[k].tolist() == np.bincount(tokens[k::3], minlength=counts.shape[1]).tolist()
    raw = rans.write_raw(values, tokens, widths, sum(bits for _, bits in twins))
    assert raw.size == -(-sum(bits for _, bits in twins) // 8)
    number = sum(
        (v & ((1 << bits) - 1)) << at
        for v, (_, bits), at in zip(
            values.tolist(), twins, np.cumsum([0, *(bits for _, bits in twins[:-1])]).tolist(), strict=True
        )
    )
    assert int.from_bytes(raw.tobytes(), "little") == number
    behind = np.concatenate([raw, np.arange(9, dtype=np.uint8)])
    for given in (raw, behind):
        found = rans.read_raw(tokens, *rule, given, values.dtype)
        assert found is not None
        np.testing.assert_array_equal(found[0], values)
        assert found[1] == raw.size
    assert raw.size == 0 or rans.read_raw(tokens, *rule, raw[:-1], values.dtype) is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_coarser_rule_has_names_for_the_tokens_of_a_finer_one(width: int, rule: tuple[int, int]) -> None:
    values = values_of(width, 700)
    contexts = np.zeros(700, np.uint16)
    fine, coarse = (rans.tokenise(values, *r, contexts, 1)[0] for r in ((8, 2), rule))
    assert rans.coarser(8 * width, (8, 2), rule)[fine].tolist() == coarse.tolist()


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


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1001])
def test_streams(size: int) -> None:
    rng = np.random.default_rng(size)
    contexts, lookup = rng.integers(0, 7, size, np.uint16), np.array([0, 3, 1, 2, 2, 0, 1], np.uint8)
    labels = lookup[contexts]
    tokens = np.array([rng.choice(3, p=TABLE[k] / 4096) for k in labels], np.uint16)
    states, words = rans.encode(tokens, contexts, lookup, TABLE)
    back = rans.decode(states, words, contexts, lookup, TABLE)
    assert back is not None
    assert back.tolist() == tokens.tolist()
    assert twin_decode(states.tolist(), words.tolist(), labels.tolist(), TABLE.tolist()) == tokens.tolist()


def test_a_stream_is_near_its_entropy() -> None:
    rng = np.random.default_rng(5)
    tokens = rng.choice(3, 100_000, p=TABLE[1] / 4096).astype(np.uint16)
    shares = np.bincount(tokens) / tokens.size
    entropy = float(-(shares * np.log2(shares)).sum()) * tokens.size / 16
    assert rans.encode(tokens, np.ones(tokens.size, np.uint16), SAME, TABLE)[1].size < 1.01 * entropy + 4


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
            found, lookup = contexts[part] - np.uint16(first), np.arange(256, dtype=np.uint8)
            rows = table[first : first + 256]
            states, words = rans.encode(tokens[part], found, lookup, rows)
            labels = lookup[found].tolist()
            assert (
                twin_decode(states.tolist(), words.tolist(), labels, rows.tolist()) == tokens[part].tolist()
            )


def test_tokens_by_their_names() -> None:
    names = np.array([0, 0, 1, 2], np.uint16)
    tokens = np.random.default_rng(8).integers(0, 4, 999, np.uint16)
    contexts = np.full(999, 3, np.uint16)
    states, words = rans.encode(tokens, contexts, SAME, TABLE, names)
    back = rans.decode(states, words, contexts, SAME, TABLE)
    assert back is not None
    assert back.tolist() == names[tokens].tolist()


def test_damaged_streams_are_noticed() -> None:
    labels = np.full(1000, 3, np.uint16)
    tokens = np.random.default_rng(6).integers(0, 3, 1000, np.uint16)
    states, words = rans.encode(tokens, labels, SAME, TABLE)
    assert rans.decode(states, words[:-1].copy(), labels, SAME, TABLE) is None
    assert rans.decode(states, np.append(words, np.uint16(0)), labels, SAME, TABLE) is None
    assert rans.decode(states ^ np.uint32(1 << 20), words, labels, SAME, TABLE) is None
    assert rans.decode(states, words[:0].copy(), labels, SAME, TABLE) is None


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_groups_are_improved_as_a_twin_does(rounds: int) -> None:
    rng = np.random.default_rng(9)
    counts = (rng.integers(0, 90, (40, 12)) * (rng.random((40, 12)) < 0.5)).astype(np.uint32)
    counts[:, 0] += 1
    listed = clusters.Listed(np.insert(counts, [0, 3, 40], 0, axis=0))
    assert listed.occurring.tolist() == [1, 2, 3, *range(5, 42)]
    assert listed.weights.tolist() == counts.sum(axis=1).tolist()
    np.testing.assert_allclose(listed.means, counts @ np.arange(12) / counts.sum(axis=1))
    initial = rng.permutation(np.arange(40) % 7).astype(np.int64)
    labels = initial.copy()
    for turn in range(rounds + 1):
        sums = np.array([counts[labels == k].sum(axis=0) for k in range(labels.max() + 1)])
        with np.errstate(divide="ignore"):
            costs = np.minimum(-np.log2(sums / sums.sum(axis=1, keepdims=True)), 14.0).T
        total = counts @ costs
        if turn < rounds:
            labels = np.unique(total.argmin(axis=1), return_inverse=True)[1]
    found, bits, used = listed.improve(initial, rounds, 14.0)
    assert found.tolist() == labels.tolist()
    assert bits == pytest.approx(total.min(axis=1).sum())
    assert used == np.count_nonzero(sums)


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
