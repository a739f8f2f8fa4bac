"""Twice as many tensors are twice the work, however alike they are."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from tests.store.test_snapshot import Store, model, normal
from tests.support import Repo
from theta import parallel
from theta.git.repository import Repository
from theta.store.odb.objects import Objects


def calls(path: Path, count: int, size: int) -> list[int]:
    """The calls that two versions of ``count`` tensors of one shape take, all values of the second new."""
    store, found = Store(Objects(Repository.discover(Repo.create(path).path))), []
    for version in range(2):
        values = normal(count, size, seed=version)
        found.append(_counted(store, model({f"{n:05d}": values[n] for n in range(count)})))
    return found


def _counted(store: Store, data: bytes) -> int:
    """The calls of Python functions on all threads while a version is stored."""
    seen = [0]

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        seen[0] += event == "call"

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        store.put(data)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen[0]


@pytest.mark.parametrize("size", [1, 100])
def test_many_small_tensors_take_work_by_their_number(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "workers", lambda: 1)
    calls(tmp_path / "first", 5, size)
    few, many = calls(tmp_path / "few", 200, size), calls(tmp_path / "many", 400, size)
    assert many[0] < 2.1 * few[0]
    assert many[1] < 2.1 * few[1]
