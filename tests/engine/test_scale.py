"""The simulation of ``bench/scale.py``: its arithmetic in cases that are known, and its picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import scale
from bench.scale import MODELS, OPERATIONS, SAMPLES, SITES, WORKERS, Rate, Rates, Site

FOUND = Rates({name: Rate(1.0, 5.0, 0.001) for name in OPERATIONS}, 0.67, 0.1)
ENDLESS = Site("endless", 1e18, 1e18, 0, 0)


@pytest.mark.parametrize(
    ("workers", "seconds"), [(1, 12.0), (2, 7.0), (3, 5.0), (4, 5.0)], ids=lambda value: str(value)
)
def test_parts_are_dealt_longest_first(workers: int, seconds: float) -> None:
    assert scale.spread([5, 3, 2, 2], workers, 1) == seconds


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_one_worker_takes_what_was_measured_and_more_take_less(model: scale.ModelSize) -> None:
    rate = FOUND.rates["add"]
    found = [scale.simulated("add", model, ENDLESS, count, FOUND) for count in WORKERS]
    assert found[0] == pytest.approx(rate.seconds(model.nbytes, model.tensors))
    assert found == sorted(found, reverse=True)
    serial = 1.0 + 0.001 * model.tensors
    assert found[-1] - serial >= (found[0] - serial) / 64


def test_a_host_with_a_limit_takes_several_pushes() -> None:
    model = MODELS[0]
    free, limited = (scale.simulated("push", model, Site("", 1e18, 1e8, most), 1, FOUND) for most in (0, 1e9))
    stored = 0.67 * model.nbytes
    assert free == pytest.approx(
        2 + max(stored / 1e8, FOUND.rates["push"].seconds(model.nbytes, model.tensors))
    )
    assert limited - free == pytest.approx(2 * (stored // 1e9))


def test_rates_go_through_the_runs_that_they_are_made_of() -> None:
    rate = Rate(0.3, 4.0, 0.002)
    runs = [(sample, rate.seconds(sample.nbytes, sample.tensors)) for sample in SAMPLES]
    found = scale.fitted(runs)
    assert (found.fixed, found.gigabyte, found.tensor) == pytest.approx((0.3, 4.0, 0.002))


def test_the_picture_has_a_curve_for_each_model_and_panel() -> None:
    root = ElementTree.fromstring(scale.draw(FOUND))
    curves = [one for one in root.iter() if one.tag.endswith("polyline") and one.get("stroke-width") == "2"]
    assert len(curves) == len(MODELS) * len(SITES) * 3
    assert all(len(str(one.get("points")).split()) == len(WORKERS) for one in curves)
