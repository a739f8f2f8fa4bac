"""Tallies of a difference, piece by piece, beside numpy over the whole; places on the map; JSON's numbers."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta.porcelain.studies.map_places import MapPlace, place_of
from theta.porcelain.studies.tallies import Tally
from theta.units import finite


def _tallied(gap: np.ndarray[Any, Any], cuts: list[int]) -> Tally:
    tally = Tally(gap.shape)
    for piece in np.split(gap.ravel(), sorted(cuts)):
        if piece.size:
            tally.add(piece)
    return tally


@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(0, 81), max_size=5), st.integers(0, 2**32))
def test_pieces_cut_anywhere_give_the_tallies_of_the_whole(
    rows: int, columns: int, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gap = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.7)
    found = _tallied(gap, cuts).details()
    sizes = np.abs(gap[gap != 0])
    assert found.zeros == gap.size - sizes.size
    assert sum(found.counts) == sizes.size
    for k, count in enumerate(found.counts):
        low = 2.0 ** (found.lowest + k)
        assert count == np.count_nonzero((sizes >= low) & (sizes < 2 * low))
    norms = np.linalg.norm(gap, axis=1)
    assert [norm for _, norm in found.rows] == pytest.approx(sorted(norms[norms > 0], reverse=True)[:5])
    assert all(norms[row] == pytest.approx(norm) for row, norm in found.rows)
    values = np.linalg.svd(gap, compute_uv=False)
    if sizes.size:
        assert found.singular == pytest.approx(values, abs=1e-7 * values[0])


def test_the_effective_rank_is_that_of_roy_and_vetterli() -> None:
    assert _tallied(np.diag([3.0, 3.0, 3.0, 3.0]), []).details().effective_rank == pytest.approx(4)
    outer = np.outer(np.arange(1.0, 5), np.ones(6))
    assert _tallied(outer, [7]).details().effective_rank == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(1)
    two = rng.normal(size=(512, 2)) @ rng.normal(size=(2, 300))
    found = _tallied(two.astype(np.float32).astype(np.float64), []).details()
    assert found.singular[2] < 1e-6 * found.singular[0]
    assert found.effective_rank == pytest.approx(2, abs=0.01)


def test_numbers_that_are_none_are_counted_and_spoil_nothing() -> None:
    found = _tallied(np.array([[np.nan, 1.0], [np.inf, -np.inf], [1e-300, 1e300]]), [3]).details()
    assert (found.infinite, found.nans, found.zeros, sum(found.counts)) == (2, 1, 0, 3)
    assert all(math.isfinite(norm) or norm == math.inf for _, norm in found.rows)


def test_vectors_have_no_rows_and_no_spectrum() -> None:
    found = _tallied(np.arange(5.0), [2]).details()
    assert (found.rows, found.singular, found.effective_rank) == ((), (), 0.0)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.up_proj.weight", MapPlace(3, "model.layers.mlp.up_proj.weight")),
        ("model.layers.3.mlp.experts.7.w1.weight", MapPlace(3, "model.layers.mlp.experts.*.w1.weight")),
        ("h.11.attn.c_attn.weight", MapPlace(11, "h.attn.c_attn.weight")),
        ("wte.weight", MapPlace(None, "wte.weight")),
        ("conv1.weight", MapPlace(None, "conv1.weight")),
        ("layers/0", MapPlace(0, "layers")),
        ("0", MapPlace(0, "0")),
    ],
)
def test_a_name_has_a_layer_and_a_kind(name: str, place: MapPlace) -> None:
    assert place_of(name) == place


def test_json_gets_null_for_what_it_has_no_word_for() -> None:
    data = {"a": [math.inf, -math.inf, math.nan, 1.5], "b": {"c": (2, "x", None, True)}}
    assert (
        json.dumps(finite(data), allow_nan=False)
        == '{"a": [null, null, null, 1.5], "b": {"c": [2, "x", null, true]}}'
    )
