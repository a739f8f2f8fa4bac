"""The choice of tokens, contexts and tables, against a twin that tries all groups one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theta_native import tokens
from theta_native.coded import choices, writing

Array = np.ndarray[Any, Any]
RULES = (4, 1), (8, 2)


def costs_of(levels: float = 0.0, negligible: float = 0.0) -> choices.Estimate:
    return choices.Estimate(10.0, 1.0, 16.0, 0.004, levels, negligible, 14.0)


def bits_of(counts: Array, groups: list[list[int]], costs: choices.Estimate) -> float:
    """Add up what tokens, tables and the map take."""
    total = 0.0
    for group in groups:
        sums = counts[group].sum(axis=0).astype(float)
        sums = sums[sums > 0]
        total -= float((sums * np.log2(sums / sums.sum())).sum()) - costs.frequency * sums.size
        total -= costs.member * len(group) * float(np.log2(len(group) / len(counts)))
    return total + costs.cluster * len(groups)


def joined(counts: Array, costs: choices.Estimate, most: int) -> tuple[list[list[int]], float]:
    """The best groups of neighbours by their mean token, joined one pair after the other, and their bits."""
    weights = counts.sum(axis=1)
    order = np.argsort(counts @ np.arange(counts.shape[1]) / weights, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    places = before * most // (weights.sum() + 1)
    groups = [order[places == place].tolist() for place in np.unique(places)]
    best, least = groups, float("inf")
    while True:
        bits = bits_of(counts, groups, costs)
        if bits * (1 + costs.twice * np.log2(len(groups))) <= least:
            best, least = groups, bits * (1 + costs.twice * np.log2(len(groups)))
        if len(groups) == 1:
            return best, bits_of(counts, best, costs)
        ways = [[*groups[:k], groups[k] + groups[k + 1], *groups[k + 2 :]] for k in range(len(groups) - 1)]
        groups = min(ways, key=lambda way: bits_of(counts, way, costs))


def improved(counts: Array, groups: list[list[int]], costs: choices.Estimate) -> tuple[Array, float, int]:
    """The group of each context whose table codes it best, the bits of tokens, and frequencies of tables."""
    sums = np.array([counts[group].sum(axis=0) for group in groups])
    with np.errstate(divide="ignore"):
        prices = np.minimum(-np.log2(sums / sums.sum(axis=1, keepdims=True)), costs.unseen).T
    total = counts @ prices
    labels = np.unique(total.argmin(axis=1), return_inverse=True)[1]
    return labels, float(total.min(axis=1).sum()), int(np.count_nonzero(sums))


def regrouped(counts: Array, shape: tuple[int, int, int], parts: tuple[bool, bool], rule: int) -> Array:
    """The counts without some parts of contexts, by the tokens of a rule."""
    axes = tuple(axis for axis, used in ((1, parts[0]), (2, parts[1])) if not used)
    wide = counts.reshape(*shape, -1).sum(axis=axes, keepdims=True)
    found = np.zeros((wide[..., 0].size, counts.shape[1]), np.int64)
    names = tokens.coarser(8, RULES[-1], RULES[rule])
    np.add.at(found.T, names, wide.reshape(found.shape).T)
    return found


def raw_of(counts: Array, rule: int) -> int:
    widths = tokens.raw_widths(8, *RULES[rule])
    return int(counts.sum(axis=0)[: widths.size] @ widths)


def some_values(seed: int, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Values whose lengths follow some of the parts of their contexts, some of which do not occur."""
    rng = np.random.default_rng(seed)
    contexts = rng.integers(0, np.prod(shape), 6000)
    contexts = contexts[rng.random(int(np.prod(shape)))[contexts] < 0.8]
    kinds, rest = np.divmod(contexts, shape[1] * shape[2])
    levels, fine = np.divmod(rest, shape[2])
    scales = [kinds, kinds + 3 * levels, kinds + fine, kinds + 2 * levels + fine][seed % 4]
    values = np.minimum(rng.exponential(1.0 + scales), 255).astype(np.uint8)
    return values, contexts.astype(np.uint16)


@pytest.mark.parametrize("most", [1, 5, 64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (24, 1, 1), (6, 4, 1), (6, 1, 8), (5, 3, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_a_twin(seed: int, shape: tuple[int, int, int], most: int) -> None:
    values, contexts = some_values(seed, shape)
    costs = costs_of(levels=200.0)
    found = choices.choose(values, contexts, shape, RULES, costs, most)
    counts = np.zeros((int(np.prod(shape)), tokens.alphabet(8, *RULES[-1])), np.int64)
    np.add.at(counts, (contexts, tokens._small(8, *RULES[-1])[values]), 1)

    def bits(rule: int, parts: tuple[bool, bool]) -> float:
        some = regrouped(counts, shape, parts, rule)
        some = some[some.sum(axis=1) > 0]
        return joined(some, costs, most)[1] + raw_of(some, rule) + costs.levels * parts[0]

    everything = shape[1] > 1, shape[2] > 1
    rule = min(range(2), key=lambda one: bits(one, everything))
    ways = [everything, (everything[0], False), (False, everything[1]), (False, False)]
    parts = found.use_levels, found.use_fine
    assert found.rule == RULES[rule]
    assert bits(rule, parts) <= min(bits(rule, way) for way in ways) + 1e-6
    some = regrouped(counts, shape, parts, rule)
    occurring = np.flatnonzero(some.sum(axis=1))
    assert found.occurring.tolist() == occurring.tolist()
    labels, size, used = improved(some[occurring], joined(some[occurring], costs, most)[0], costs)
    assert found.labels.tolist() == labels.tolist()
    assert found.tokens == pytest.approx(size)
    assert found.raw_bits == raw_of(some, rule)
    shares = np.bincount(labels) / labels.size
    map_bits = -labels.size * float((shares * np.log2(shares)).sum())
    assert found.stored == pytest.approx(used * 10.0 + 16.0 * shares.size + map_bits)


CHOSEN = """
import sys
import theta_native
from tests.native.test_choices import RULES, choices, costs_of, some_values
if sys.argv[1] == "kernel":
    theta_native._Course._unlinked = theta_native._Kernel._unlinked
shape = (6, 3, 4)
for seed in range(6):
    found = choices.choose(*some_values(seed, shape), shape, RULES, costs_of(200.0), 16)
    print([part.tolist() if hasattr(part, "tolist") else part for part in found])
print(choices._choose._compiled is not None)
"""


def test_python_chooses_the_same_while_the_kernel_is_not_compiled(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "THETA_KERNEL_WORKERS": "0"}
    env["PYTHONPATH"] = os.pathsep.join(["", *sys.path])
    told = [
        subprocess.run(
            [sys.executable, "-c", CHOSEN, way], env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for way in ("python", "kernel")
    ]
    assert told[0][:-1] == told[1][:-1]
    assert (told[0][-1], told[1][-1]) == ("False", "True")


def test_nothing_else_is_tried_where_tables_take_next_to_nothing() -> None:
    shape = 6, 4, 1
    values, contexts = some_values(0, shape)
    assert not choices.choose(values, contexts, shape, RULES, costs_of(200.0), 64).use_levels
    assert choices.choose(values, contexts, shape, RULES, costs_of(200.0, negligible=1.0), 64).use_levels


def test_contexts_are_ordered_as_a_stable_sort_does() -> None:
    from theta_native import clusters

    rng = np.random.default_rng(3)
    for size in (1, 2, 3, 31, 32, 33, 1000):
        means = rng.integers(0, max(size // 3, 1), size).astype(float)
        order, room = np.empty((2, size), np.int64)
        clusters._sort(means, size, order, room)
        assert order.tolist() == np.argsort(means, kind="stable").tolist()


def test_frequencies_add_up_and_leave_out_no_token() -> None:
    rng = np.random.default_rng(5)
    for width in (1, 2, 12, 288, 4096):
        sums = rng.integers(0, 9, (20, width)) * rng.integers(0, 10**6, (20, 1)) + (
            rng.random((20, width)) < 0.5
        )
        sums[:, 0] += 1
        table = writing.scaled(sums)
        assert (table.sum(axis=1) == 4096).all()
        assert ((table > 0) == (sums > 0)).all()
        exact = sums * (4096 / sums.sum(axis=1, keepdims=True))
        sure = (sums > 0).sum(axis=1) < 100  # no token takes from others to have its one
        largest = exact.argmax(axis=1)
        near = np.abs(table - exact)
        near[np.arange(20), largest] = 0
        assert (near[sure] <= 1).all()


def test_a_section_has_the_parts_that_a_decoder_needs() -> None:
    values, contexts = some_values(1, (6, 1, 1))
    values[::7] = 255
    clusters = np.array([0, 1, 1, 0, 2, 2], np.uint8)
    from theta_native.contexts import ContextKeys

    written = writing.write(values, ContextKeys.of(contexts, 6), (4, 1), clusters)
    assert written.occurring.tolist() == np.unique(contexts).tolist()
    ends = np.cumsum([0, *written.used.tolist()])
    rows = written.low.astype(int) + 256 * written.high.astype(int)
    named = tokens._small(8, 4, 1)[values]
    for k, (start, end) in enumerate(pairwise(ends.tolist())):
        counts = np.bincount(named[clusters[contexts] == k])
        assert end - start == counts.size
        assert rows[start:end].sum() == 4096
        assert ((rows[start:end] > 0) == (counts > 0)).all()
    widths = tokens.raw_widths(8, 4, 1)
    assert written.raw_bits.size == -(-int(widths[named].sum()) // 8)
