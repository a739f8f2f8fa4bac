"""The three-way table of one tensor, exhaustively, and its use on whole manifests."""

from __future__ import annotations

import itertools

import pytest

from theta.merging.states import Conflict, ConflictKind, Settled, decide, three_way
from theta.store.format.manifest import Line, Manifest

ABSENT, BASE, A, B = None, "o", "a", "b"
SIDES = (ABSENT, BASE, A, B)


def line(
    value: str | None, *, tree: str = "1", dtype: str = "f32", shape: tuple[int, ...] = (2,)
) -> Line | None:
    return None if value is None else Line("t", dtype, shape, value * 64, tree * 40)


# (base, ours, theirs) -> what git does with a file in these states.  "a" and "b" are other values than "o".
TABLE: dict[tuple[str | None, str | None, str | None], str | ConflictKind | None] = {
    (ABSENT, ABSENT, ABSENT): ABSENT,
    (ABSENT, A, ABSENT): A,
    (ABSENT, ABSENT, A): A,
    (ABSENT, A, A): A,
    (ABSENT, A, B): ConflictKind.BOTH_ADDED,
    (BASE, BASE, BASE): BASE,
    (BASE, A, BASE): A,
    (BASE, BASE, A): A,
    (BASE, A, A): A,
    (BASE, A, B): ConflictKind.BOTH_MODIFIED,
    (BASE, ABSENT, ABSENT): ABSENT,
    (BASE, ABSENT, BASE): ABSENT,
    (BASE, BASE, ABSENT): ABSENT,
    (BASE, ABSENT, A): ConflictKind.DELETED_BY_US,
    (BASE, A, ABSENT): ConflictKind.DELETED_BY_THEM,
}


def renamed(state: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The state with its values renamed to the letters of the table: only equality matters."""
    base, ours, theirs = state
    letters: dict[str, str] = {} if base is None else {base: BASE}
    for value in (ours, theirs):
        if value is not None and value not in letters:
            letters[value] = A if A not in letters.values() else B
    return tuple(None if value is None else letters[value] for value in state)


@pytest.mark.parametrize("state", list(itertools.product(SIDES, repeat=3)), ids=str)
def test_every_state(state: tuple[str | None, str | None, str | None]) -> None:
    key = renamed(state)
    assert len(key) == 3
    expected = TABLE[key]
    found = decide("t", *map(line, state))
    if isinstance(expected, ConflictKind):
        assert isinstance(found, Conflict)
        assert found.kind is expected
        assert (found.base, found.ours, found.theirs) == tuple(map(line, state))
    else:
        value = dict(zip(key, state, strict=True))[expected] if expected else None
        assert found == Settled("t", line(value))


def test_the_table_is_complete() -> None:
    assert {renamed(state) for state in itertools.product(SIDES, repeat=3)} == set(TABLE)


@pytest.mark.parametrize("state", [(A, A, A), (BASE, A, A), (None, A, A), (A, A, B), (A, B, A)], ids=str)
def test_the_encoding_of_a_value_does_not_matter(state: tuple[str | None, ...]) -> None:
    trees = [line(value, tree=str(number)) for number, value in enumerate(state)]
    found = decide("t", *trees)
    assert isinstance(found, Settled)
    assert found.line in trees


@pytest.mark.parametrize("other", [line(B, dtype="bf16", shape=(4,)), line(B, shape=(1, 2))])
@pytest.mark.parametrize("base", [None, line(BASE)])
def test_another_geometry_is_a_conflict_of_its_own(base: Line | None, other: Line) -> None:
    found = decide("t", base, line(A), other)
    assert isinstance(found, Conflict)
    assert found.kind is ConflictKind.RESHAPED
    assert not found.same_geometry


def test_names_come_in_order_and_each_once() -> None:
    def manifest(values: dict[str, str]) -> Manifest:
        lines = tuple(Line(name, "f32", (2,), value * 64, "1" * 40) for name, value in values.items())
        return Manifest("safetensors", "m", "0" * 40, lines)

    base = manifest({"z": BASE, "both": BASE, "ours": BASE, "gone": BASE})
    ours = manifest({"both": A, "ours": A, "z": BASE, "new": A})
    theirs = manifest({"ours": BASE, "z": BASE, "both": B, "gone": BASE, "added": B})
    found = list(three_way(base, ours, theirs))
    assert [state.name for state in found] == ["added", "both", "gone", "new", "ours", "z"]
    values = {s.name: s.line.digest[0] if s.line else None for s in found if isinstance(s, Settled)}
    assert values == {"added": B, "gone": None, "new": A, "ours": A, "z": BASE}
    assert [state.name for state in found if isinstance(state, Conflict)] == ["both"]


def test_without_a_base_equal_tensors_agree() -> None:
    lines = (Line("t", "f32", (2,), "a" * 64, "1" * 40),)
    sides = [Manifest("safetensors", store, "0" * 40, lines) for store in ("x", "y")]
    assert list(three_way(None, *sides)) == [Settled("t", lines[0])]
