"""The order of the tensors in a difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from theta.store import changes
from theta.units import as_counted


def test_layers_stand_in_their_order() -> None:
    names = [f"layers.{layer}.{name}" for layer in (10, 2, 1, 11) for name in ("v", "q")]
    version = changes.Version(
        "safetensors", "", {name: changes.ValueDigest("F32", (1,), name) for name in names}
    )
    told = [change.name for change in changes.compare(None, version).tensors]
    assert told == [f"layers.{layer}.{name}" for layer in (1, 2, 10, 11) for name in ("q", "v")]


@given(st.lists(st.text("a.01_٣é", max_size=8), unique=True))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=as_counted) == sorted({*names}, key=as_counted)


def test_numbers_are_compared_however_long_they_are() -> None:
    names = ["a" + "9" * 5000, "a1" + "0" * 5000, "a007", "a7", "a8"]
    assert sorted(names, key=as_counted) == ["a007", "a7", "a8", names[0], names[1]]
