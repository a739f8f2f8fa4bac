"""Values as tokens and raw bits, against a twin."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.native import stepwise
from theta_native import tokens
from theta_native.contexts import ContextKeys

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
    clusters = np.array([1, 0, 1], np.uint8)
    twins = [twin_token(v, *rule) for v in values.tolist()]
    wide = tokens.alphabet(8 * width, *rule)
    assert max(token for token, _ in twins) < wide
    widths = tokens.raw_widths(8 * width, *rule)
    assert [widths[token] for token, _ in twins] == [bits for _, bits in twins]
    counts = tokens.counts(values, *rule, contexts, 3)
    named = np.array([token for token, _ in twins])
    for k in range(3):
        assert counts[k].tolist() == np.bincount(named[k::3], minlength=wide).tolist()
    keys = ContextKeys.of(contexts, 3)
    placed = tokens.places(values, keys, rule, clusters)
    assert keys.seen(placed.seen).tolist() == [0, 1, 2]
    assert placed.places.tolist() == (clusters[contexts].astype(int) * wide + named).tolist()
    raw = placed.raw_bits(sum(bits for _, bits in twins))
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
        found = stepwise.read_raw(named.astype(np.uint16), *rule, given, values.dtype)
        assert found is not None
        np.testing.assert_array_equal(found[0], values)
        assert found[1] == raw.size
    assert raw.size == 0 or stepwise.read_raw(named.astype(np.uint16), *rule, raw[:-1], values.dtype) is None


def test_few_raw_bits_are_read_as_many_are() -> None:
    values = np.arange(9000, dtype=np.uint16) % np.uint16(16)
    values[::500] = 60000
    keys = ContextKeys.of(np.zeros(9000, np.uint16), 1)
    placed = tokens.places(values, keys, (4, 1), np.zeros(1, np.uint8))
    raw = placed.raw_bits(18 * (60000).bit_length() - 18 * 2)
    assert 0 < 4 * 8 * raw.size < values.size
    found = stepwise.read_raw(placed.places, 4, 1, raw, values.dtype)
    assert found is not None
    np.testing.assert_array_equal(found[0], values)
    assert stepwise.read_raw(placed.places, 4, 1, raw[:-1], values.dtype) is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_coarser_rule_has_names_for_the_tokens_of_a_finer_one(width: int, rule: tuple[int, int]) -> None:
    twins = [twin_token(v, 8, 2)[0] for v in values_of(width, 700).tolist()]
    coarse = [twin_token(v, *rule)[0] for v in values_of(width, 700).tolist()]
    assert tokens.coarser(8 * width, (8, 2), rule)[twins].tolist() == coarse
