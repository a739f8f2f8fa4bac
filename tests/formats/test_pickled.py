"""Arrays in pickles: numpy's own, made here, and joblib's (``data/make_joblib.py``)."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.formats.helpers import mutate, rebuild, scanned, survives
from theta.formats import scan_or_opaque
from theta.formats.layout import BytesSource, View
from theta.formats.pickle_files import pickled
from theta.formats.pickle_files.pickle_scan import scan_pickles

DATA = Path(__file__).parent / "data"


def load(seed: int) -> bytes:
    """A file that joblib wrote."""
    return (DATA / f"model.{seed}.joblib").read_bytes()


def test_the_arrays_of_a_joblib_file() -> None:
    data = load(1)
    layout = scanned(data, "pickle")
    assert {t.name: (t.dtype, t.shape) for t in layout.tensors} == {
        "model.classes_": ("i64", (2,)),
        "model.n_iter_": ("i32", (1,)),
        "model.coef_": ("f64", (1, 5)),
        "model.intercept_": ("f64", (1,)),
        "x": ("f64", (20, 5)),
        "fortran": ("f64", (5, 20)),
        "records": ("bytes", (3, 12)),
        "big": ("bytes", (20, 5, 4)),
        "empty": ("f64", (0, 3)),
    }
    assert layout.views == (View("fortran", "fortran", "f64", (20, 5), (1, 20)),)
    by_name = {t.name: data[t.offset : t.end] for t in layout.tensors}
    features = np.frombuffer(by_name["x"]).reshape(20, 5)
    assert np.array_equal(np.frombuffer(by_name["fortran"]).reshape(5, 20).T, features)
    assert np.array_equal(np.frombuffer(by_name["big"], ">f4").reshape(20, 5), features.astype("f4"))


def test_new_values_in_the_old_skeleton_are_the_new_file() -> None:
    first, second = load(1), load(2)
    values = {t.name: second[t.offset : t.end] for t in scanned(second, "pickle").tensors}
    assert first != second and rebuild(scanned(first, "pickle"), first, values) == second


def test_joblib_files_are_scanned_to_their_end() -> None:
    report = scan_pickles(BytesSource(load(1)))
    assert report.worst() == "unknown" and not report.broken
    assert {f.module for f in report.findings if f.verdict != "safe"} == {"sklearn.linear_model._logistic"}
    gadget = b"cos\nsystem\n(V1\ntR0"
    evil = load(1)[:-1] + gadget + b"."
    assert scan_pickles(BytesSource(evil)).worst() == "dangerous"


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_that_numpy_pickled(protocol: int) -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    value = {
        "a": array,
        "same": array,
        "list": [np.arange(3), (np.ones((2, 2), "<i2"),)],
        "fortran": np.asfortranarray(array),
        "objects": np.array([None]),
    }
    data = pickle.dumps(value, protocol)
    layout = scanned(data, "pickle")
    found = {t.name: (t.dtype, t.shape, data[t.offset : t.end]) for t in layout.tensors}
    assert found == {
        "a": ("f32", (2, 3), array.tobytes()),
        "list.0": ("i64", (3,), np.arange(3).tobytes()),
        "list.1.0": ("i16", (2, 2), np.ones((2, 2), "<i2").tobytes()),
        "fortran": ("f32", (3, 2), array.T.tobytes()),
    }
    changed = rebuild(layout, data, {"a": (array + 1).tobytes()})
    assert np.array_equal(pickle.loads(changed)["same"], array + 1)


def test_a_single_array_has_a_name() -> None:
    data = pickle.dumps(np.arange(3), 5)
    assert [t.name for t in scanned(data, "pickle").tensors] == ["array"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps({"a": 1, "b": "text" * 9}, 4), "pickle: no arrays that lie in one piece"),
        (pickle.dumps(np.arange(3), 4) + b"more", "pickle: bytes behind its end"),
        (pickle.dumps(np.arange(3), 4) * 2, "pickle: bytes behind its end"),
        (pickle.dumps(np.arange(3), 4)[:-1], "pickle: truncated"),
        (load(1)[:-1], "pickle: truncated"),
        (load(1)[:900], "pickle: truncated"),
        (pickle.dumps(np.arange(300), 2), ""),
        (b"\x80\x06" + bytes(99), ""),
    ],
)
def test_other_pickles_are_opaque(data: bytes, reason: str) -> None:
    layout, found = scan_or_opaque(BytesSource(data))
    assert (layout.format, found) == ("opaque", reason)


def test_arrays_of_objects_do_not_nest_without_end() -> None:
    """Each wrapper is followed by the next pickle, as joblib's arrays of objects are."""
    wrapper = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}\x8c\x05dtype"
    wrapper += b"cnumpy\ndtype\n\x8c\x02O8\x85Rsb"
    data = wrapper * 20_000 + b"."
    tracemalloc.start()
    try:
        layout, reason = scan_or_opaque(BytesSource(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (layout.format, reason) == ("opaque", "pickle: pickles nested too deeply")
    assert peak < len(data) + 64 * 2**20
    assert scan_pickles(BytesSource(data)).worst() != "dangerous"


def run_mutations(count: int, seed: int) -> int:
    """The number of mutated files still read as tensors; all others were refused in one line."""
    rng = random.Random(seed)
    seeds = [pickle.dumps({"a": np.arange(4), "b": [np.ones((2, 2))]}, number) for number in (3, 4, 5)]
    seeds.append(load(1))
    return sum(survives(mutate(rng.choice(seeds), rng), pickled.scan) is not None for _ in range(count))


def test_mutated_files_are_read_or_refused() -> None:
    assert run_mutations(2_000, seed=1) > 100


@pytest.mark.campaign
def test_mutated_files_at_length() -> None:
    assert run_mutations(100_000, seed=2) > 5_000
