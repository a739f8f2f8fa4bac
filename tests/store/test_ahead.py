"""While a command starts, a thread finds the tensors of a file that did not change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import theta
from tests.store.test_snapshot import model, normal
from tests.support import Repo
from theta import _fs
from theta.errors import ChangedWhileReadError, ThetaError
from theta.formats.layout import Tensor
from theta.git.repository import Repository
from theta.porcelain.stage import adding
from theta.store.files import ahead as reading
from theta.store.files import file_scan
from theta.store.files.ahead import Ahead, Begun
from theta.store.files.file_source import FileSource
from theta.store.format.manifest import Manifest
from theta.store.format.tensor_tree import Chunk
from theta.store.odb.objects import Objects
from theta.store.read.reassembly import Restorer
from theta.store.write.snapshot import Snapshot, Stored

Arrays = dict[str, np.ndarray]

BASE = {f"w.{n}": normal(300, 40 + n, seed=n) for n in range(6)}


@pytest.fixture
def objects(repo: Repo) -> Objects:
    return Objects(Repository.discover(repo.path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def write(path: Path, arrays: Arrays) -> None:
    path.write_bytes(model(arrays))
    os.utime(path, (1_000_000_000, 1_000_000_000))


def store(objects: Objects, path: Path, base: Manifest | None, begun: Begun | None = None) -> Stored:
    with FileSource(path) as source, objects.writing() as pack:
        found = begun or file_scan.take_apart(source, None, None)
        return Snapshot(objects, pack, [base] if base else []).store(source, found, "m", base)


@pytest.fixture
def base(objects: Objects, path: Path) -> Manifest:
    write(path, BASE)
    return store(objects, path, None).manifest


def ahead(path: Path, manifest: Manifest) -> Ahead:
    source = FileSource(path)
    return Ahead(source, file_scan.take_apart(source, None, None), manifest, Chunk.of_each)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread is done before the command goes on."""
    aside = _fs.aside

    def waiting(work: Callable[[], None]) -> object:
        done = aside(work)
        done.result()
        return done

    monkeypatch.setattr(_fs, "aside", waiting)
    yield


@pytest.mark.usefixtures("at_once")
def test_unchanged_tensors_are_found_and_kept_and_the_others_are_stored(
    objects: Objects, base: Manifest, path: Path
) -> None:
    new = BASE | {"w.2": BASE["w.2"] + np.float32(1e-4), "w.4": normal(300, 44, seed=99)}
    write(path, new)
    with ahead(path, base) as begun:
        found = begun.end()
        assert sorted(found.known) == ["w.0", "w.1", "w.3", "w.5"]
        made = store(objects, path, base, found)
    assert made.new == ["w.2", "w.4"]
    assert made.manifest == store(objects, path, base).manifest, "the same as without a thread"
    assert bytes(Restorer(objects, made.manifest).data()) == path.read_bytes()


def test_what_the_thread_has_not_reached_is_read_by_others(
    objects: Objects, base: Manifest, path: Path
) -> None:
    write(path, BASE | {"w.2": BASE["w.2"] + np.float32(1e-4)})
    with ahead(path, base) as begun:
        assert store(objects, path, base, begun.end()).new == ["w.2"]


@pytest.mark.usefixtures("at_once")
def test_a_tensor_that_changes_after_the_thread_read_it_is_not_taken_for_unchanged(
    objects: Objects, base: Manifest, path: Path
) -> None:
    with ahead(path, base) as begun:
        found = begun.end()
        assert len(found.known) == len(BASE)
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\1\2\3\4")
        with pytest.raises(ChangedWhileReadError):
            store(objects, path, base, found)


@pytest.mark.usefixtures("at_once")
def test_it_is_given_up_where_most_is_new(
    base: Manifest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_HOPELESS", BASE["w.0"].nbytes)
    write(path, {name: BASE[name] + np.float32(name < "w.4") for name in BASE})
    with ahead(path, base) as begun:
        assert not begun.end().known


@pytest.mark.usefixtures("at_once")
def test_add_and_commit_read_ahead_and_store_the_same(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "_WORTH", 1)
    ended: list[int] = []
    end = Ahead.end

    def noted(begun: Ahead) -> Begun:
        ended.append(1)
        return end(begun)

    monkeypatch.setattr(Ahead, "end", noted)
    repo.theta("track", "*.safetensors")
    place = repo.path / "m.safetensors"
    for number, words in enumerate((["add", "m.safetensors"], ["commit", "-a", "-m", "two"], ["add", "."])):
        place.write_bytes(model(BASE | {"w.1": BASE["w.1"] + np.float32(number)}))
        theta(repo, *words)
        if words[0] == "add":
            theta(repo, "commit", "-m", "one")
        assert len(ended) == number, "a new file has no tensors that may be unchanged"
    repo.theta("fsck", "--read-data")
    data = place.read_bytes()
    place.unlink()
    repo.theta("restore", "m.safetensors")
    assert place.read_bytes() == data


def test_threads_change_often_only_while_it_runs(
    base: Manifest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, during = sys.getswitchinterval(), []
    end = threading.Event()

    def waiting(begun: Ahead, tensor: Tensor) -> None:
        during.append(sys.getswitchinterval())
        end.wait(10)
        raise MemoryError

    monkeypatch.setattr(Ahead, "_chunks", waiting)
    one, other = ahead(path, base), ahead(path, base)
    while len(during) < 2:
        time.sleep(0.01)
    assert during == pytest.approx([0.0005, 0.0005])
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    end.set()
    for begun in (one, other):
        with pytest.raises(MemoryError), begun:
            begun.end()
        with pytest.raises(ThetaError):
            begun.source.read(0, 1)
    assert sys.getswitchinterval() == pytest.approx(before)


@pytest.mark.usefixtures("at_once")
def test_it_waits_for_no_kernel_while_a_command_starts(
    base: Manifest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> tuple[Chunk, ...]:
        raise AssertionError

    monkeypatch.setattr(reading, "imported", lambda _: None)
    with FileSource(path) as source:
        parts = file_scan.take_apart(source, None, None)
        with Ahead(FileSource(path), parts, base, never) as begun:
            assert len(begun.end().known) == len(BASE)


def test_all_others_load_the_kernel_that_takes_two_chunks_at_once() -> None:
    """A new model was hashed without it: nobody had imported it."""
    program = (
        "import sys\n"
        "from theta.store.format.tensor_tree import Chunk\n"
        "Chunk.of_each([b'a', b'b'])\n"
        "print('theta_native.digests.sha256' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
