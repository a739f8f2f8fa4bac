"""The entropy coder: streams against their inverse and their entropy."""

import numpy as np
import pytest

from tests.native import stepwise
from theta_native import rans
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
