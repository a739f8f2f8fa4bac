"""The workers of an engine merge as threads do: what they read, what they write, and one that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.compat.inprocess import theta
from tests.engine import factories
from tests.engine.small_parts import spread
from tests.engine.test_engines import HERE, MODEL, Arrays, near, normal
from tests.support import Repo
from theta import _memory
from theta.engine import merge_parts, restore_parts, workplace
from theta.engine.held_places import HeldFiles, HeldPlace
from theta.engine.workplace import Workplace
from theta.git import processes
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Line
from theta.store.read.coming_file import Place
from theta.store.read.stored_tensor import StoredTensor

LINE = Line("w", "bf16", (2,), "0" * 64, "0" * 40)


@pytest.fixture(autouse=True)
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread files of any size, in many parts."""
    spread(monkeypatch, 100_000)
    monkeypatch.setattr(factories, "_made", 0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two branches that changed every tensor; two are tied, and one has several chunks."""
    repo = Repo.create(tmp_path_factory.mktemp("stored") / "r")
    theta(repo, "track", "*.safetensors")
    base: Arrays = {f"layers.{k}.q": normal(k, 96, 160) for k in range(8)} | {"embed": normal(20, 1100, 2000)}
    base["tied"] = base["layers.0.q"]
    _commit(repo, base, "base")
    for branch, seed in (("one", 30), ("two", 40)):
        repo.git("checkout", "-q", "-b", branch, "main")
        found = {name: near(old, seed + k) for k, (name, old) in enumerate(base.items())}
        _commit(repo, {**found, "tied": found["layers.0.q"]}, branch)
    return repo


def _commit(repo: Repo, arrays: Arrays, message: str) -> None:
    save_file(arrays, repo.path / MODEL)
    theta(repo, "add", MODEL)
    theta(repo, "commit", "-qm", message)


def _merged(repo: Repo, place: Path, engine: str, *options: str) -> tuple[str, bytes]:
    """Merge in a copy; return the tree and the file."""
    twin = repo.copy(place)
    theta(twin, "status")  # the copy of the file is found to be the one that is staged
    theta(twin, "--engine", engine, "merge", "-q", *options, "one")
    assert twin.git("status", "--porcelain") == ""
    assert not list((twin.path / ".git/objects/pack").glob("*.keep"))
    assert not list((twin.path / ".git/theta").glob("tmp/*"))
    return twin.git("rev-parse", "HEAD^{tree}"), (twin.path / MODEL).read_bytes()


@contextmanager
def _reads_of_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the names of tensors whose chunks are decoded in the block, one for each chunk."""
    seen: list[str] = []
    decoded = StoredTensor._from_layers

    def noted(self: StoredTensor, number: int) -> memoryview:
        seen.append(self.line.digest)
        return decoded(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(StoredTensor, "_from_layers", noted)
        yield seen


@pytest.mark.parametrize(
    "options",
    [
        ("-X", "linear:weight=0.5"),
        ("-X", "slerp:t=0.3"),
        ("-X", "slerp:t=0"),  # which picks ours
        ("-X", "ties:density=0.5"),
        ("-X", "linear:weight=0.5", "--no-ff", "--no-log"),  # by git, which replaces the old file first
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_workers_read_old_files_and_write_the_coming_one(
    stored: Repo, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _reads_of_layers(monkeypatch) as by_threads:
        wanted = _merged(stored, tmp_path / "threads", "threads", *options)
    with _reads_of_layers(monkeypatch) as by_workers:
        assert _merged(stored, tmp_path / "workers", f"{HERE}asked", *options) == wanted
    assert by_threads or "slerp:t=0" in options
    # Nothing is decoded that threads do not decode: neither what an old file has, nor the result again.
    assert sorted(by_workers) == sorted(by_threads)
    # What is sent is pickled, and has no bytes of tensors.
    assert merge_parts.compute in factories.last.asked
    assert factories.last.passed < 6_000 * len(factories.last.asked)


def test_a_file_that_no_room_was_found_for_is_decoded_by_workers(
    stored: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _merged(stored, tmp_path / "threads", "threads", "-X", "linear:weight=0.5")
    monkeypatch.setattr("theta.porcelain.workspace.exchange.Exchange.begin", lambda *_: None)
    assert _merged(stored, tmp_path / "workers", f"{HERE}asked", "-X", "linear:weight=0.5") == wanted
    assert {merge_parts.compute, restore_parts.restore} == {*factories.last.asked}


@pytest.mark.parametrize("engine", ["processes:2", f"{HERE}dying_once"])
def test_processes_merge_the_same_though_one_is_killed(stored: Repo, tmp_path: Path, engine: str) -> None:
    options = ("-X", "linear:weight=0.5")
    wanted = _merged(stored, tmp_path / "threads", "threads", *options)
    assert _merged(stored, tmp_path / "workers", engine, *options) == wanted


def test_a_part_that_is_computed_twice_does_no_harm(
    stored: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was thought to be lost writes the same bytes once more."""
    wanted = _merged(stored, tmp_path / "threads", "threads", "-X", "ties:density=0.5")
    once = merge_parts.compute

    def twice(part: merge_parts.MergePart) -> merge_parts.MergedPart:
        early = once(part)
        late = once(part)
        assert (late.lines, late.put) == (early.lines, early.put)
        return replace(late, packs=tuple(dict.fromkeys((*early.packs, *late.packs))))

    monkeypatch.setattr(merge_parts, "compute", twice)
    assert _merged(stored, tmp_path / "workers", f"{HERE}threads", "-X", "ties:density=0.5") == wanted


def test_an_old_file_is_found_where_git_has_put_another_in_its_place(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"values")
    with FileSource(old) as source:
        held = HeldPlace.of(Place(source, 2, LINE))
        assert held is not None and held.path == str(old)
        (tmp_path / "new").write_bytes(b"another")
        os.replace(tmp_path / "new", old)
        replaced = HeldPlace.of(Place(source, 2, LINE))
        assert replaced is not None and replaced.path == f"/proc/{os.getpid()}/fd/{source._fd}"
        with HeldFiles() as files:
            assert files.place(held, LINE) is None
            found = files.place(replaced, LINE)
            assert found is not None and found.source.read(found.offset, 4) == b"lues"


@pytest.mark.parametrize("harm", [os.unlink, lambda path: path.write_bytes(b"longer than before"), os.utime])
def test_an_old_file_that_is_gone_or_another_is_decoded(tmp_path: Path, harm: object) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"values")
    with FileSource(old) as source:
        held = HeldPlace.of(Place(source, 0, LINE))
    os.utime(old, ns=(1, 1))
    assert callable(harm)
    harm(old)
    with HeldFiles() as files:
        assert files.place(held, LINE) is None
        assert files.place(None, LINE) is None


KEPT = """
import os, sys
from theta import _memory
from theta.engine.workplace import Workplace
asked = []
_memory.one_heap = lambda: asked.append(True)
for owner in sys.argv[2:]:
    Workplace(sys.argv[1], owner).opened()
    Workplace(sys.argv[1], owner).opened()
print(len(asked))
"""


def test_a_worker_keeps_freed_memory_and_the_process_that_asked_is_left_alone(
    stored: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KEPT, str(stored.path), processes.this()]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"1\n"
    workplace._keep_memory.cache_clear()
    monkeypatch.setattr(_memory, "one_heap", lambda: pytest.fail("it has this program's other work too"))
    Workplace(str(stored.path), processes.this()).opened()
