"""Tensors go into a pack on all cores; nothing of what is stored shows how many there were."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.store.test_snapshot import model, normal
from tests.support import Repo
from theta import parallel
from theta.codecs.base import TensorWords
from theta.codecs.factoring import projections, spectrum
from theta.codecs.factoring.spectrum import Spectrum
from theta.errors import CorruptError
from theta.formats.layout import BytesSource
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.files.one_reading import Reading
from theta.store.format import skeleton
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects
from theta.store.read.reassembly import Restorer
from theta.store.read.tensor_records import has_structure, read_record
from theta.store.write import scouts, tensor_stream
from theta.store.write.bases import Nearby
from theta.store.write.layer_plan import Changed, Planned
from theta.store.write.snapshot import Snapshot

Arrays = dict[str, np.ndarray]


def versions() -> list[Arrays]:
    """Large and small tensors; of the second version some are new, some near, some the same."""
    first = {f"norm.{n:02d}": normal(40, seed=n) for n in range(30)}
    first |= {"big": normal(600, 500, seed=90), "embed": normal(900, 500, seed=91), "same": normal(300, 300)}
    first["twin"] = first["same"]
    second = dict(first)
    second |= {name: first[name] + np.float32(1e-4) for name in ("norm.03", "big", "embed", "twin")}
    second["other"] = normal(700, 500, seed=92)
    second["grown"] = np.concatenate([second.pop("same"), normal(5, 300)])
    return [first, second]


def stored(path: Path, *, hashed: bool) -> tuple[list[Manifest], list[str]]:
    """The manifests of both versions, and the names of the packs, which are digests of them."""
    objects = Objects(Repository.discover(Repo.create(path).path))
    manifests: list[Manifest] = []
    packs = []
    for arrays in versions():
        data = model(arrays)
        source, last = BytesSource(data), manifests[-1] if manifests else None
        kept = skeleton.read(objects, last.skeleton) if last else None
        found = (file_scan.scan if hashed else file_scan.take_apart)(source, last, kept)
        with objects.writing() as pack:
            made = Snapshot(objects, pack, manifests[-1:]).store(source, found, "m", last)
        assert pack.path is not None
        assert bytes(Restorer(objects, made.manifest).data()) == data
        manifests.append(made.manifest)
        packs.append(pack.path.name)
    return manifests, packs


def put(objects: Objects, arrays: Arrays, *bases: Manifest) -> Manifest:
    """The manifest of these arrays, stored on the bases."""
    source = BytesSource(model(arrays))
    with objects.writing() as pack:
        found = file_scan.take_apart(source, None, None)
        return Snapshot(objects, pack, bases).store(source, found, "m", None).manifest


@pytest.mark.parametrize("twins", [False, True])
def test_the_pack_of_a_new_file_is_hashed_while_it_is_written(
    repo: Repo, twins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the objects of the tensors alone, unless two are the same; each version is whole."""
    monkeypatch.setattr(tensor_stream, "_WORTH_EXPECTING", 1)
    monkeypatch.setattr(tensor_stream, "_WHOLE", 1 << 20)
    objects, bases = Objects(Repository.discover(repo.path)), list[Manifest]()
    for number in range(3):
        arrays = {f"w.{n}": normal(300, 40 + n, seed=number * 10 + n) for n in range(5)}
        arrays |= {"embed": normal(900, 500, seed=5), "twin": arrays["w.0"] if twins else normal(8, 8)}
        before, data = set(objects.directory.glob("*.pack")), model(arrays)
        with objects.writer(in_parts=True) as pack:
            found = file_scan.take_apart(BytesSource(data), None, None)
            made = Snapshot(objects, pack, bases).store(BytesSource(data), found, "m", None)
        objects.refresh()
        new = set(objects.directory.glob("*.pack")) - before
        assert len(new) == (1 if twins or number else 2)
        for path in new:
            repo.git("verify-pack", str(path))
        assert bytes(Restorer(objects, made.manifest).data()) == data
        bases = [made.manifest]


def test_the_same_packs_for_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_stream, "_WHOLE", 1 << 20)
    monkeypatch.setattr(tensor_stream, "_BATCH_COUNT", 4)
    found = []
    for count in (1, 2, 5):
        monkeypatch.setattr(parallel, "workers", lambda count=count: count)
        found += [stored(tmp_path / f"{count}{hashed}", hashed=hashed) for hashed in (False, True)]
    assert all(one == found[0] for one in found)
    # Where tensors are cut for threads does not show either.
    monkeypatch.undo()
    assert stored(tmp_path / "whole", hashed=False)[0] == found[0][0]


def fine_tune(merged: set[int]) -> list[Arrays]:
    """Two versions of 18 matrices: the second has noise added, or thin factors' product in ``merged``."""
    first = {f"w.{n:02d}": normal(128, 128, seed=n) for n in range(18)}
    second = {}
    for n, (name, old) in enumerate(first.items()):
        step = (
            normal(128, 3, seed=n) @ normal(3, 128, seed=n + 50) if n in merged else normal(128, 128, seed=99)
        )
        second[name] = (old + 0.01 * step).astype(np.float32)
    return [first, second]


@pytest.mark.parametrize(
    ("merged", "looked_at"), [(set(), scouts.COUNT), ({15}, scouts.COUNT + 1), ({1, 15}, 18)]
)
def test_a_checkpoint_is_searched_as_its_first_tensors_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: set[int], looked_at: int
) -> None:
    """Only what shows at a glance is searched if they have no factors; threads do not matter."""
    looks: list[TensorWords] = []
    really = spectrum.look

    def noted(new: TensorWords, base: TensorWords) -> Spectrum | None:
        looks.append(new)
        return really(new, base)

    monkeypatch.setattr(projections, "look", noted)
    found = []
    for count in (1, 3):
        looks.clear()
        monkeypatch.setattr(parallel, "workers", lambda count=count: count)
        objects = Objects(Repository.discover(Repo.create(tmp_path / str(count)).path))
        old, new = fine_tune(merged)
        second = put(objects, new, first := put(objects, old))
        assert len(looks) == looked_at
        records = [read_record(objects, line.tree) for line in second.lines]
        assert {n for n, record in enumerate(records) if has_structure(record)} == merged
        found.append((first, second))
    assert found[0] == found[1]


def test_an_error_in_a_first_tensor_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for it go on."""
    monkeypatch.setattr(parallel, "workers", lambda: 3)
    objects = Objects(Repository.discover(Repo.create(tmp_path / "repo").path))
    really = Nearby.plan

    def failing(self: Nearby, changed: Changed, *args: object) -> Planned | None:
        if changed.name == "w.03":
            raise CorruptError("w.03 is damaged")
        return really(self, changed, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Nearby, "plan", failing)
    first, second = fine_tune(set())
    with pytest.raises(CorruptError, match="is damaged"):
        put(objects, second, put(objects, first))


def test_every_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_stream, "_WHOLE", 1 << 20)
    objects = Objects(Repository.discover(Repo.create(tmp_path / "repo").path))
    read: list[tuple[int, int]] = []
    before = Reading._bytes

    def noted(self: Reading, offset: int, length: int, room: memoryview | None) -> bytes | memoryview:
        read.append((offset, offset + length))
        return before(self, offset, length, room)

    monkeypatch.setattr(Reading, "_bytes", noted)
    source = BytesSource(model(versions()[0]))
    found = file_scan.take_apart(source, None, None)
    with objects.writing() as pack:
        Snapshot(objects, pack, []).store(source, found, "m", None)
    spans = sorted(read)
    assert spans[0][0] == found.layout.tensors[0].offset
    assert spans[-1][1] == source.size
    assert all(left[1] == right[0] for left, right in pairwise(spans))
