"""Strategies of other packages: found by entry point, used like theta's own, harmless when broken."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.merging.in_memory import Geometry, merge_arrays
from tests.merging.stored import Store
from theta.errors import ThetaError, UsageError
from theta.merging.engine import MergeOptions
from theta.merging.recipes import Recipe
from theta.merging.shapes.by_token import TokenOrder
from theta.merging.strategies import Job, Method, broken_plugins, describe, names, parse, registry

NAME = "model.embed_tokens.weight"
EXAMPLE = Path(__file__).parents[1] / "plugins" / "strategy_example"


def install(site: Path, name: str, points: dict[str, str]) -> None:
    """Write what pip writes for a package that has entry points."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    rows = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[theta.strategies]\n{rows}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed packages with the example in it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(tmp_path, "theta_strategy_example", project["entry-points"]["theta.strategies"])
    shutil.copy(EXAMPLE / "strategy_example.py", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    forget()
    yield tmp_path
    forget()
    for module in set(sys.modules) - before:
        if module in ("strategy_example", "breaks"):
            del sys.modules[module]


def forget() -> None:
    registry.plugins.cache_clear()
    registry.method.cache_clear()


def test_the_example_is_found_without_being_loaded(site: Path) -> None:
    assert names()[-2:] == ("even_reach", "row_fisher")
    assert "strategy_example" not in sys.modules
    info = describe("even_reach")
    assert "strategy_example" in sys.modules
    assert [parameter.name for parameter in info.parameters] == ["reach"]
    assert info.needs_base


def test_the_example_merges(site: Path) -> None:
    base = np.zeros(4, "<f4")
    one, other = np.array([3, 4, 0, 0], "<f4"), np.array([0, 0, 0, 1], "<f4")
    strategy = parse("even_reach:reach=2.5")
    assert str(strategy) == "even_reach:reach=2.5"
    words, like = [values.view("<u4") for values in (one, other, base)], Geometry("f32", (4,))
    found = merge_arrays(strategy, words[:2], words[2], like).view("<f4")
    assert found.tolist() == [0.75, 1.0, 0.0, 0.5]
    assert np.array_equal(merge_arrays(strategy, [words[0]] * 2, words[2], like), words[0])


def test_a_plugin_sees_statistics_rows_and_dtypes(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that theirs grew, in another dtype: common rows by information, others as they are."""
    store = Store(tmp_path)
    base = np.zeros((3, 2), "<f4")
    ours, theirs = base + np.float32(1), np.full((4, 2), 3, "<f2")
    information = ([[1, 1]] * 3, [[9, 9], [3, 3], [0, 2], [5, 5]])
    options = MergeOptions(statistics=tuple(store.put({"w": np.array(rows, "<f4")}) for rows in information))
    sides = [store.put({"w": value}) for value in (base, ours, theirs)]
    wanted = {"row_fisher": [2.8, 2.5, 2.0, 3.0], "row_fisher:kept=1": [1.0, 2.5, 2.0, 3.0]}
    seen: list[Job] = []
    method = type(registry.method("row_fisher"))
    reduce = method.reduce

    def noting(self: Method, job: Job) -> Any:
        seen.append(job)
        return reduce(self, job)

    monkeypatch.setattr(method, "reduce", noting)
    for text, rows in wanted.items():
        done = store.merge(*sides, policy=Recipe(parse(text)).policy(), options=options)
        assert done.manifest is not None
        found = store.get(done.manifest)["w"]
        assert found.dtype == np.float32
        assert np.allclose(found, np.array(rows)[:, None] * np.ones(2), atol=1e-6)
    assert [(job.first_row, job.shape, job.dtype) for job in seen] == [(0, (3, 2), "f32")] * 2
    assert [(form.dtype, form.shape) for form in seen[0].forms] == [("f32", (3, 2)), ("f16", (4, 2))]
    with pytest.raises(UsageError, match="needs statistics"):
        store.merge(*sides, policy=Recipe(parse("row_fisher")).policy())


@pytest.mark.parametrize("text", ["even_reach:reach=2", "row_fisher"])
def test_a_plugin_sees_rows_of_one_token(site: Path, tmp_path: Path, text: str) -> None:
    """Theirs has its tokens in another order, and one more: values and statistics are matched before."""
    store, random = Store(tmp_path), np.random.default_rng(5)
    base, ours, theirs = (random.standard_normal((rows, 4)).astype("<f4") for rows in (3, 3, 4))
    information = [random.random((rows, 4)).astype("<f4") for rows in (3, 4)]
    moved = [2, 0, 3, 1]

    def result(order: list[int], tokens: TokenOrder | None) -> Any:
        sides = [store.put({NAME: one}) for one in (base, ours, theirs[order])]
        own = tuple(store.put({NAME: one}) for one in (information[0], information[1][order]))
        options = MergeOptions(statistics=own if text == "row_fisher" else (), tokens=tokens)
        done = store.merge(*sides, policy=Recipe(parse(text)).policy(), options=options)
        assert done.manifest is not None
        return store.get(done.manifest)[NAME]

    ids = {"a": 0, "b": 1, "c": 2, "new": 3}
    known = {token: number for token, number in ids.items() if token != "new"}
    theirs_ids = {token: moved.index(number) for token, number in ids.items()}
    by_token = result(moved, TokenOrder(ids, (known, known, theirs_ids)))
    assert np.array_equal(by_token, result([0, 1, 2, 3], None))


def test_the_parameters_of_a_plugin_are_checked(site: Path) -> None:
    with pytest.raises(UsageError, match="reach is a number of at least 1"):
        parse("even_reach:reach=0.5")


def test_a_broken_plugin_is_an_error_for_who_names_it_only(site: Path) -> None:
    (site / "breaks.py").write_text("raise RuntimeError('no such accelerator')\n")
    install(site, "breaks", {"gone": "breaks:Gone", "odd": "json:dumps", "none": "no_such_module:X"})
    forget()
    assert parse("even_reach").name == "even_reach"
    assert parse("ties:density=0.5").name == "ties"
    with pytest.raises(
        ThetaError, match=r"'gone' \(breaks:Gone\) cannot be loaded: RuntimeError: no such acc"
    ):
        parse("gone")
    broken = broken_plugins()
    assert sorted(broken) == ["gone", "none", "odd"]
    assert "cannot be loaded" in broken["odd"]


def test_a_plugin_cannot_take_the_name_of_a_strategy_of_theta(site: Path) -> None:
    install(site, "rude", {"ties": "strategy_example:EvenReach", "ours": "strategy_example:EvenReach"})
    forget()
    assert describe("ties").summary.startswith("trim")
    assert names().count("ours") == 1
