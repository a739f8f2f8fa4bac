"""The merge engine: who is asked, what is read, what is written, for two sides and for more."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.stored import Store, npz
from theta.codecs import chooser
from theta.errors import ThetaError, UsageError
from theta.formats.layout import BytesSource
from theta.merging import computing, measures, reading, result_file, storing
from theta.merging.engine import MergeOptions, Sink
from theta.merging.recipes import Recipe, rule
from theta.merging.states import Conflict, ConflictKind
from theta.merging.strategies import Policy, Strategy, parse
from theta.merging.strategies.method import Block, Read
from theta.store.format.manifest import Line
from theta.store.format.skeleton import Skeleton
from theta.store.format.tensor_tree import Record
from theta.store.odb.objects import Objects
from theta.store.read import stored_tensor, tensor_records
from theta.store.read.stored_tensor import StoredTensor
from theta.store.read.tensor_records import read_record
from theta.store.write import layer_plan

Array = NDArray[Any]

LEAVE: Policy = lambda conflict: None  # noqa: E731


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("engine"))


def by(text: str, *asked: list[Conflict]) -> Policy:
    strategy = parse(text)

    def decide(conflict: Conflict) -> Strategy | None:
        for names in asked:
            names.append(conflict)
        return strategy if strategy.applies(conflict) else None

    return decide


def f32(*values: float) -> Array:
    return np.array(values, "<f4")


BASE = {"a": f32(1, 2, 3), "b": f32(4, 5), "c": f32(6), "n": np.array([1, 2], "<i8")}


def changed(**tensors: Array) -> dict[str, Array]:
    return BASE | tensors


# -- two sides --------------------------------------------------------------------------------


def test_only_conflicts_are_computed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that one side changed keeps its line; only conflicts are read."""
    base = store.put(BASE)
    ours = store.put(changed(a=f32(3, 2, 3), b=f32(0, 0)))
    theirs = store.put(changed(a=f32(1, 4, 3), c=f32(9)))
    read: list[str] = []
    record_of = tensor_records.record_of

    def noted(objects: Objects, line: Line) -> Record:
        read.append(line.name)
        return record_of(objects, line)

    monkeypatch.setattr(stored_tensor, "record_of", noted)
    found = store.merge(base, ours, theirs, policy=by("average"))
    assert set(read) == {"a"}
    assert found.manifest is not None
    assert found.decided == {"a": "average"}
    lines = found.manifest.by_name
    assert lines["b"] == ours.by_name["b"]
    assert lines["c"] == theirs.by_name["c"]
    merged = store.get(found.manifest)
    assert merged["a"].tolist() == [2, 3, 3]
    assert merged["b"].tolist() == [0, 0]


def test_a_decision_that_does_not_apply_leaves_the_conflict(store: Store) -> None:
    base = store.put(BASE)
    ours, theirs = (store.put(changed(n=np.array(n, "<i8"))) for n in ([5, 5], [6, 6]))
    found = store.merge(base, ours, theirs, policy=by("average"))
    assert found.manifest is None
    assert [conflict.name for conflict in found.conflicts] == ["n"]
    assert parse("average").why_not(found.conflicts[0]) == "i64 is never computed with"


def test_reasons_are_told(store: Store) -> None:
    base = store.put(BASE)
    ours = store.put(changed(a=f32(1, 1, 1), x=f32(1)))
    theirs = store.put(changed(a=f32(2, 2).reshape(1, 2), x=f32(2)))
    left = {c.name: c for c in store.merge(base, ours, theirs, policy=LEAVE).conflicts}
    assert parse("ties").why_not(left["a"]) == "shape or dtype differs: ours f32 [3], theirs f32 [1, 2]"
    assert parse("ties").why_not(left["x"]) == "ties needs a base, and there is none of this shape"
    assert parse("nuslerp:use_base=true").why_not(left["x"]) is not None
    assert parse("average").why_not(left["x"]) is None
    gone = Conflict("t", base.by_name["a"], None, ours.by_name["a"])
    assert parse("average").why_not(gone) == "a side deleted it"


def test_a_new_nan_names_the_tensor_and_nothing_is_merged(store: Store) -> None:
    base = store.put({"w": f32(0, 1)})
    ours, theirs = store.put({"w": f32(3e38, 1)}), store.put({"w": f32(2e38, 1)})
    with pytest.raises(ThetaError, match="w: task_arithmetic makes NaN or infinity"):
        store.merge(base, ours, theirs, policy=by("task_arithmetic"))
    options = MergeOptions(allow_nan=True)
    found = store.merge(base, ours, theirs, policy=by("task_arithmetic"), options=options)
    assert found.manifest is not None


def test_tied_tensors_are_merged_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values on all sides: the same tree, also by a method that draws."""
    sides = [{"embed": v, "head": v, "other": v + 1} for v in (f32(*range(40)) * k for k in (1, 2, 4))]
    base, ours, theirs = map(store.put, sides)
    computed: list[str] = []
    compute = computing.compute

    def noted(objects: Objects, item: computing.Task) -> computing.Computed:
        computed.append(item.conflict.name)
        return compute(objects, item)

    monkeypatch.setattr(computing, "compute", noted)
    found = store.merge(base, ours, theirs, policy=by("dare_linear:density=0.5"))
    assert sorted(computed) == ["embed", "other"]
    assert found.manifest is not None
    lines = found.manifest.by_name
    assert lines["embed"].tree == lines["head"].tree != lines["other"].tree


def test_picking_a_side_reads_nothing(store: Store) -> None:
    base, ours, theirs = (store.put({"w": f32(k)}) for k in (1, 2, 3))
    found = store.merge(base, ours, theirs, policy=by("ties:weight=[0,1]"))
    assert found.manifest is not None
    assert found.manifest.by_name["w"] == theirs.by_name["w"]


def test_the_seed_is_the_options(store: Store) -> None:
    base, ours, theirs = (store.put({"w": f32(*range(50)) * k}) for k in (1, 2, 3))

    def digest(seed: int) -> str:
        options = MergeOptions(seed=seed)
        found = store.merge(base, ours, theirs, policy=by("dare_ties:density=0.5"), options=options)
        assert found.manifest is not None
        return found.manifest.by_name["w"].digest

    assert digest(1) == digest(1) != digest(2)


# -- scope all ----------------------------------------------------------------------------------


def test_scope_all_computes_one_sided_changes_too(store: Store) -> None:
    base = store.put(BASE)
    ours, theirs = store.put(changed(a=f32(3, 2, 3))), store.put(changed(b=f32(0, 1)))
    asked: list[Conflict] = []
    found = store.merge(base, ours, theirs, policy=by("average", asked), options=MergeOptions(scope="all"))
    assert found.manifest is not None
    assert found.decided == {"a": "average", "b": "average"}
    assert {c.name: c.kind for c in asked} == {"a": ConflictKind.ONE_SIDED, "b": ConflictKind.ONE_SIDED}
    merged = store.get(found.manifest)
    assert merged["a"].tolist() == [2, 2, 3]
    assert merged["b"].tolist() == [2, 3]
    assert found.manifest.by_name["c"] == base.by_name["c"]


def test_scope_all_leaves_what_no_strategy_goes_for_to_git(store: Store) -> None:
    base = store.put(BASE)
    ours = store.put(changed(n=np.array([7, 7], "<i8")))
    theirs = store.put(changed(x=f32(1), a=f32(0, 0, 0)))
    recipe = Recipe(parse("average"), (rule("a=theirs"),), scope="all")
    found = store.merge(base, ours, theirs, policy=recipe.policy(), options=recipe.options())
    assert found.manifest is not None
    merged = store.get(found.manifest)
    assert merged["n"].tolist() == [7, 7]
    assert merged["x"].tolist() == [1]
    assert merged["a"].tolist() == [0, 0, 0]


def test_a_side_that_the_recipe_does_not_name_is_no_input(store: Store) -> None:
    base = store.put({"w": f32(0)})
    sides = base, store.put({"w": f32(2)}), store.put({"w": f32(4)})
    recipe = Recipe(parse("linear"), scope="all", without=(0,))
    found = store.merge(base, *sides, policy=recipe.policy(), options=recipe.options())
    assert found.manifest is not None
    assert store.get(found.manifest)["w"].tolist() == [3]


# -- many sides ---------------------------------------------------------------------------------


def test_an_octopus_averages_those_that_changed(store: Store) -> None:
    base = store.put({"w": f32(0, 0), "v": f32(1)})
    sides = [store.put({"w": f32(k, 0), "v": f32(1)}) for k in (1, 2, 6)] + [
        store.put({"w": f32(0, 0), "v": f32(5)})
    ]
    found = store.merge(base, *sides, policy=by("average"))
    assert found.manifest is not None
    merged = store.get(found.manifest)
    assert merged["w"].tolist() == [3, 0]
    assert merged["v"].tolist() == [5]
    assert store.merge(base, *sides[::-1], policy=by("average")).manifest == found.manifest


def test_weights_go_by_side_also_where_some_did_not_change(store: Store) -> None:
    base = store.put({"w": f32(0)})
    sides = [store.put({"w": f32(k)}) for k in (4, 0, 8)]
    found = store.merge(base, *sides, policy=by("linear:weight=[3,100,1]"))
    assert found.manifest is not None
    assert store.get(found.manifest)["w"].tolist() == [5]


def test_an_octopus_that_disagrees_is_a_conflict_and_shows_all_sides(store: Store) -> None:
    base = store.put(BASE)
    sides = [store.put(changed(a=f32(k, 0, 0))) for k in (1, 2, 2)]
    found = store.merge(base, *sides, policy=LEAVE)
    (left,) = found.conflicts
    assert [side.digest for side in left.sides if side] == [s.by_name["a"].digest for s in sides]
    assert left.kind is ConflictKind.BOTH_MODIFIED
    agreed = store.merge(base, sides[1], sides[2], base, policy=LEAVE)
    assert agreed.manifest is not None
    deleted = [store.put({k: v for k, v in BASE.items() if k != "a"}), *sides[:2]]
    assert store.merge(base, *deleted, policy=LEAVE).conflicts[0].kind is ConflictKind.DELETED_BY_US
    assert store.merge(base, *deleted[::-1], policy=LEAVE).conflicts[0].kind is ConflictKind.DELETED_BY_THEM


# -- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("kind", ["<f4", "<i8"])
def test_appended_rows_and_changed_values_are_joined(store: Store, swap: bool, kind: str) -> None:
    table = np.arange(12).reshape(4, 3).astype(kind)
    grown = np.concatenate([table, np.full((2, 3), 7, kind)])
    values = table * 2
    base, *sides = (store.put({"embed": t, "x": f32(1)}) for t in (table, grown, values))
    found = store.merge(base, *sides[:: -1 if swap else 1], policy=LEAVE)
    assert found.manifest is not None
    assert found.decided == {"embed": "rows"}
    assert np.array_equal(store.get(found.manifest)["embed"], np.concatenate([values, grown[4:]]))


def test_rows_that_are_not_purely_appended_stay_a_conflict(store: Store) -> None:
    table = np.arange(12, dtype="<f4").reshape(4, 3)
    grown = np.concatenate([table, np.ones((2, 3), "<f4")])
    touched = grown.copy()
    touched[0, 0] = 99
    base = store.put({"e": table})
    for one, other in (
        (touched, table * 2),
        (grown, np.concatenate([table, np.zeros((2, 3), "<f4")])),
        (grown, table[:3]),
        (np.ones((6, 2), "<f4"), table * 2),
    ):
        found = store.merge(base, store.put({"e": one}), store.put({"e": other}), policy=LEAVE)
        assert [conflict.name for conflict in found.conflicts] == ["e"]


def test_rows_of_several_chunks_are_compared_to_the_last(store: Store) -> None:
    """The common rows may end in the middle of a chunk of the longer side."""
    random = np.random.default_rng(0)
    table = random.normal(size=(1100, 1024)).astype("<f4")  # 4.4 MB: two chunks
    grown = np.concatenate([table, np.ones((3, 1024), "<f4")])
    values = table.copy()
    values[5] = 0
    base = store.put({"e": table})
    sides = store.put({"e": grown}, base), store.put({"e": values}, base)
    found = store.merge(base, *sides, policy=LEAVE)
    assert found.manifest is not None
    assert np.array_equal(store.get(found.manifest)["e"], np.concatenate([values, grown[1100:]]))
    grown[1099, 1023] += 1
    assert store.merge(base, store.put({"e": grown}, base), sides[1], policy=LEAVE).conflicts


def test_equal_values_of_other_sides_are_not_tied(store: Store) -> None:
    """Two tensors that get the same values from other branches differ for a method that names an input."""
    zero, one, two = f32(0, 0, 0, 0), f32(1, -2, 3, 0), f32(2, 2, -1, 4)
    base = store.put({"a": zero, "b": zero})
    models = ({"a": one, "b": zero}, {"a": two, "b": one}, {"a": zero, "b": two})
    sides = [store.put(model) for model in models]
    for how, other in (("emr:input=2", "average"), ("tall:input=2", "magmax")):
        both = store.merge(base, *sides, policy=by(how))
        alone = store.merge(base, *sides, policy=Recipe(parse(how), (rule(f"a={other}"),)).policy())
        assert both.manifest is not None
        assert alone.manifest is not None
        assert np.array_equal(store.get(both.manifest)["b"], store.get(alone.manifest)["b"])


# -- a dry run -----------------------------------------------------------------------------------


def test_threads_do_not_wait_for_each_others_blocks() -> None:
    """functools.cached_property has one lock for all objects before Python 3.12."""
    meeting = threading.Barrier(2, timeout=20)

    def read() -> Read:
        meeting.wait()
        return Read((f32(1),), None)

    blocks = [Block(0, 1, "f32", read) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert [found[0].tolist() for found in pool.map(lambda block: block.inputs, blocks)] == [[1], [1]]


def test_a_dry_run_tells_and_writes_nothing(store: Store) -> None:
    table = np.arange(12, dtype="<f4").reshape(4, 3)
    base = store.put(changed(e=table, gone=f32(1), both=f32(1)))
    ours = store.put(
        changed(a=f32(3, 2, 3), b=f32(0, 0), e=np.concatenate([table, table]), both=f32(2), n=BASE["n"] * 2)
    )
    theirs = store.put(changed(a=f32(1, 4, 3), c=f32(9), e=table * 2, both=f32(2), n=BASE["n"] * 3))
    pack = store.objects.writer()
    from theta.merging import engine

    found = engine.merge(store.objects, pack, base, [ours, theirs], by("average"), MergeOptions(dry_run=True))
    assert pack.size == 0
    assert found.manifest is None
    rows = {row.name: (row.state, row.strategy) for row in found.rows}
    assert rows == {
        "a": ("merged", "average"),
        "b": ("ours", ""),
        "both": ("agreed", ""),
        "c": ("theirs", ""),
        "e": ("rows", "rows"),
        "gone": ("deleted", ""),
        "n": ("conflict", ""),
    }
    stored = {row.name: row.stored for row in found.rows}
    assert 0 < stored["a"] <= 40
    assert stored["b"] == stored["c"] == 0


# -- storing ---------------------------------------------------------------------------------------


def test_a_merged_tensor_is_a_layer_on_its_nearest_version(store: Store) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(300, 200)).astype("<f4")
    step = random.normal(size=(2, 300, 200)).astype("<f4") * np.float32(1e-4)
    base = store.put({"w": table})
    ours, theirs = (store.put({"w": table + part}, base) for part in step)
    found = store.merge(base, ours, theirs, policy=by("average:alpha=0.9"))
    assert found.manifest is not None
    record = read_record(store.objects, found.manifest.by_name["w"].tree)
    assert [layer.codec for layer in record.layers] == ["dense/1", "delta/1", "delta/1"]
    even = store.merge(base, ours, theirs, policy=by("average")).manifest
    assert even is not None
    record = read_record(store.objects, even.by_name["w"].tree)
    assert [layer.codec for layer in record.layers] == ["dense/1", "delta/1"]


@pytest.mark.parametrize("strategy", ["average", "slerp:t=0.3", "ties:density=0.3", "dare_ties:density=0.4"])
def test_a_tensor_too_large_to_hold_is_streamed_to_the_same_value(
    store: Store, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Neither chunks kept, nor threads, nor the way it is stored show in the value."""
    random = np.random.default_rng(1)
    table = random.normal(size=(700, 1000)).astype("<f4")
    base, ours, theirs = (store.put({"w": table + k * table[::-1]}) for k in (0, 0.01, 0.02))
    held = store.merge(base, ours, theirs, policy=by(strategy)).manifest
    monkeypatch.setattr(layer_plan, "LARGEST", 1 << 20)
    monkeypatch.setattr(reading, "KEPT_WHOLE", 1 << 20)
    monkeypatch.setattr(reading, "SHARED", 1 << 20)
    monkeypatch.setattr(reading, "KEPT", 1 << 20)
    streamed = store.merge(base, ours, theirs, policy=by(strategy)).manifest
    assert held is not None
    assert streamed is not None
    assert held.by_name["w"].digest == streamed.by_name["w"].digest
    assert np.isfinite(store.get(streamed)["w"]).all()


def test_pieces_are_cut_into_chunks() -> None:
    pieces: Iterator[Array] = iter([np.arange(3, dtype="<u2"), np.arange(3, 10, dtype="<u2")])
    found = list(storing._recut(pieces, [8, 8, 4]))
    assert b"".join(found) == np.arange(10, dtype="<u2").tobytes()
    assert [len(part) for part in found] == [8, 8, 4]


@pytest.mark.parametrize("rank", [2, 0], ids=["adapters", "steps of training"])
def test_structure_is_searched_for_where_a_parent_has_some(
    store: Store, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Numbers that are computed one by one make none of their own."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.02, (384, 256)).astype(np.float32)

    def tuned() -> Array:
        noise = rng.normal(0, 1e-5, values.shape)
        update = rng.normal(0, 1, (384, rank)) @ rng.normal(0, 2e-3, (rank, 256)) if rank else noise
        return (values + update.astype(np.float32)).astype(np.float32)

    base = store.put({"w": values})
    ours, theirs = (store.put({"w": tuned()}, base) for _ in range(2))
    searches: list[object] = []
    search = chooser._structured

    def noted(*args: Any) -> Any:
        searches.append(args)
        return search(*args)

    monkeypatch.setattr(chooser, "_structured", noted)
    found = store.merge(base, ours, theirs, policy=by("average")).manifest
    assert found is not None
    wanted = "lowrank/1" if rank else "delta/1"
    for manifest in (ours, theirs, found):
        assert read_record(store.objects, manifest.lines[0].tree).layers[-1].codec == wanted
    assert bool(searches) == bool(rank)


class Leaving:
    """A file that the merge replaces."""

    def __init__(self, content: bytes) -> None:
        self.inner, self.size, self.dropped = BytesSource(content), len(content), 0

    def read(self, offset: int, length: int) -> bytes:
        return self.inner.read(offset, length)

    def drop(self, offset: int, length: int) -> None:
        assert 0 <= offset <= offset + length <= self.size
        self.dropped += length


def test_a_file_of_a_side_is_read_instead_of_decoding(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read if its bytes have the digest; otherwise the store is read."""
    base, ours, theirs = (store.put({"w": f32(k, 1), "v": f32(k)}) for k in (0, 1, 3))
    right = Leaving(store.file(ours))
    wrong = Leaving(store.file(ours)[:-1] + b"!")
    short = Leaving(b"")
    decoded: list[str] = []
    really = StoredTensor._decoded

    def noted(self: StoredTensor, number: int) -> memoryview:
        decoded.append(self.line.name)
        return really(self, number)

    monkeypatch.setattr(StoredTensor, "_decoded", noted)
    plain = store.merge(base, ours, theirs, policy=by("average"))
    everything = decoded.copy()
    for source, count in ((right, 2), (wrong, 1), (short, 0), (None, 0)):
        decoded.clear()
        found = store.merge(base, ours, theirs, policy=by("average"), options=MergeOptions(files=(source,)))
        assert found.manifest == plain.manifest
        assert len(decoded) == len(everything) - count
    assert [source.dropped for source in (right, short)] == [sum(line.nbytes for line in ours.lines), 0]


class Sheet:
    """A coming file in memory."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.names: dict[str, str] = {}
        self.skeleton = ""
        self.offsets: dict[str, int] = {}

    def begin(self, skeleton: str, plan: Skeleton) -> Sink:
        self.content = bytearray(b"?" * plan.size)
        self.skeleton = skeleton
        self.offsets = {name: offset for name, offset, _ in plan.extents()}
        return self

    def put(self, name: str, offset: int, data: bytes | memoryview) -> None:
        start = self.offsets[name] + offset
        self.content[start : start + len(data)] = data

    def done(self, name: str, digest: str) -> None:
        self.names[name] = digest


@pytest.mark.parametrize("largest", [layer_plan.LARGEST, 16])
def test_a_coming_file_is_given_what_is_computed(
    store: Store, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """Under each name of tied tensors, held or streamed; and nothing else."""
    monkeypatch.setattr(layer_plan, "LARGEST", largest)
    tied = [f32(*range(40)) * k for k in (1, 2, 4)]
    sides = [{"embed": v, "head": v, "same": f32(7), "theirs": f32(n == 2)} for n, v in enumerate(tied)]
    base, ours, theirs = map(store.put, sides)
    sheet = Sheet()
    found = store.merge(base, ours, theirs, policy=by("average"), options=MergeOptions(coming=sheet.begin))
    assert found.manifest is not None
    lines = found.manifest.by_name
    assert sheet.names == {name: lines[name].digest for name in ("embed", "head")}
    whole = store.file(found.manifest)
    mean = (tied[1] * np.float32(1.5)).tobytes()
    assert whole.count(mean) == sheet.content.count(mean) == 2
    assert sheet.skeleton == found.manifest.skeleton
    computed = sum(lines[name].nbytes for name in ("embed", "head"))
    assert sheet.content.count(b"?") == len(whole) - computed
    assert len(sheet.content) == len(whole)
    assert all(byte in (ord("?"), whole[at]) for at, byte in enumerate(sheet.content))


# -- statistics -------------------------------------------------------------------------------------


def test_fisher_reads_the_statistics_of_each_side(store: Store) -> None:
    base, ours, theirs = (store.put({"w": f32(k, k)}) for k in (0, 1, 3))
    known = store.put({"w": f32(1, 3)}), store.put({"w": f32(1, 1)})
    strategy = by("fisher:epsilon=0")
    found = store.merge(base, ours, theirs, policy=strategy, options=MergeOptions(statistics=known))
    assert found.manifest is not None
    assert store.get(found.manifest)["w"].tolist() == [2, 1.5]
    options = MergeOptions(statistics=(known[0], None))
    alone = store.merge(base, ours, theirs, policy=strategy, options=options)
    assert alone.manifest is not None
    assert store.get(alone.manifest)["w"].tolist() == [2, 2]
    with pytest.raises(UsageError, match="fisher needs statistics"):
        store.merge(base, ours, theirs, policy=strategy)


# -- containers --------------------------------------------------------------------------------------


def test_metadata_is_merged_by_key(store: Store) -> None:
    base = store.put(BASE, metadata={"format": "pt", "a": "1", "b": "1"})
    ours = store.put(changed(x=f32(1)), metadata={"format": "pt", "a": "2", "b": "1"})
    theirs = store.put(changed(y=f32(2)), metadata={"format": "pt", "a": "1", "c": "3"})
    found = store.merge(base, ours, theirs, policy=LEAVE)
    assert found.manifest is not None
    assert b'{"a":"2","c":"3","format":"pt"}' in store.file(found.manifest).replace(b", ", b",")
    other = store.put(changed(y=f32(2)), metadata={"format": "pt", "a": "5", "b": "1"})
    left = store.merge(base, ours, other, policy=LEAVE)
    assert [conflict.name for conflict in left.conflicts] == [result_file.CONTAINER]
    settled = store.merge(base, ours, other, policy=Recipe(rules=(rule("(container)=theirs"),)).policy())
    assert settled.manifest is not None
    assert b'"a":"5"' in store.file(settled.manifest)


def test_both_sides_may_add_arrays_to_an_npz(store: Store) -> None:
    base = store.put_file(npz(BASE))
    ours, theirs = store.put_file(npz(changed(x=f32(1)))), store.put_file(npz(changed(y=f32(2, 3))))
    assert base.format == "npz"
    found = store.merge(base, ours, theirs, policy=LEAVE)
    assert found.manifest is not None
    with np.load(io.BytesIO(store.file(found.manifest))) as loaded:
        assert sorted(loaded.files) == ["a", "b", "c", "n", "x", "y"]
        assert loaded["y"].tolist() == [2, 3]


def test_an_npz_that_says_more_than_its_arrays_is_not_rewritten(store: Store) -> None:
    turned = np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))
    base = store.put_file(npz({"a": turned}))
    sides = [store.put_file(npz({"a": turned, name: f32(1)})) for name in "xy"]
    left = store.merge(base, *sides, policy=LEAVE)
    assert [conflict.name for conflict in left.conflicts] == [result_file.CONTAINER]


def test_gguf_and_torch_are_rewritten_only_where_nothing_is_lost(store: Store) -> None:
    from theta.formats import TensorSpec, writers

    def file(kind: str, model: dict[str, Array], metadata: dict[str, str] | None = None) -> bytes:
        specs = [TensorSpec(name, "f32", values.shape) for name, values in model.items()]
        plan = writers.plan(kind, specs, metadata)
        out = bytearray(plan.layout.size)
        for start, data in plan.literals:
            out[start : start + len(data)] = data
        for tensor in plan.layout.tensors:
            out[tensor.offset : tensor.offset + tensor.length] = model[tensor.name].tobytes()
        from theta.formats.derived import arguments, derive
        from theta.formats.layout import BytesSource

        for field in plan.layout.derived:
            value = derive(field, arguments(field, BytesSource(bytes(out))))
            out[field.offset : field.offset + field.width] = value
        return bytes(out)

    for kind in ("gguf", "torch"):
        one = {"a": f32(1, 2), "b": f32(3)}
        models = [one, one | {"x": f32(5)}, one | {"y": f32(6)}]
        base, *sides = (store.put_file(file(kind, model)) for model in models)
        assert base.format == kind
        found = store.merge(base, *sides, policy=LEAVE)
        assert found.manifest is not None
        again = store.put_file(store.file(found.manifest))
        assert {line.name for line in again.lines} == {"a", "b", "x", "y"}
        assert again.by_name["x"].digest == sides[0].by_name["x"].digest
    named = [store.put_file(file("gguf", model, {"general.name": "m"})) for model in models]
    left = store.merge(named[0], *named[1:], policy=LEAVE)
    assert [conflict.name for conflict in left.conflicts] == [result_file.CONTAINER]
    with pytest.raises(UsageError, match="cannot get another dtype: this gguf file has more than tensors"):
        store.merge(named[0], *named[1:], policy=LEAVE, options=MergeOptions(dtype="bf16"))
    kept = store.merge(named[0], named[1], named[0], policy=LEAVE, options=MergeOptions(dtype="f32"))
    assert kept.manifest is not None, "it has that dtype"


# -- measures ----------------------------------------------------------------------------------------


def test_measures_of_a_conflict(store: Store) -> None:
    base = store.put({"w": f32(3, 4, 0, 0)})
    ours, theirs = store.put({"w": f32(4, 4, 1, 0)}), store.put({"w": f32(4, 5, -1, 0)})
    (left,) = store.merge(base, ours, theirs, policy=LEAVE).conflicts
    found = measures.compare(store.objects, left)
    assert found is not None
    assert found.base_norm == 5
    assert found.ours_norm == pytest.approx(2**0.5)
    assert found.theirs_norm == pytest.approx(3**0.5)
    assert found.cosine == pytest.approx(0.0)
    assert found.sign_agreement == 0.5
    assert found.overlap == pytest.approx(2 / 3)
    assert found.ours_relative == pytest.approx(2**0.5 / 5)
    added = measures.compare(store.objects, Conflict("w", None, left.ours, left.theirs))
    assert added is not None
    assert added.base_norm is None
    assert added.theirs_relative is None
    assert measures.compare(store.objects, Conflict("w", None, left.ours, None)) is None
    same = measures.compare(store.objects, Conflict("w", left.ours, left.ours, left.ours))
    assert same is not None
    assert (same.cosine, same.sign_agreement, same.overlap) == (None, None, None)
