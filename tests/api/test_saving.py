"""``repo.save``: commits of arrays in memory, made behind the program."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import theta
from tests.compat.agreement import assert_commit
from tests.compat.inprocess import copied
from tests.compat.story import MODEL
from tests.support import Repo, frameworks
from theta import _numpy
from theta.api import background, host_copies, host_memory
from theta.errors import FormatError, NotFoundError, RefusedError, ThetaError, UsageError
from theta.formats import writers
from theta.formats.layout import TensorSpec
from theta.formats.plan import PlannedFile
from theta.formats.safetensors import read_metadata
from theta.git.run import Git
from theta.porcelain.stage import saved_tree, saving
from theta.store.write import snapshot


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy of ``template`` that the test may change."""
    return copied(template, tmp_path / "repo")


def arrays(seed: int = 0, *, moved: float = 0.0) -> dict[str, Any]:
    """Three arrays of different dtypes; ``moved`` shifts one of them."""
    random = np.random.default_rng(seed)
    return {
        "a.weight": random.standard_normal((64, 32)).astype(np.float32) + np.float32(moved),
        "b.weight": random.standard_normal((32, 8)).astype(ml_dtypes.bfloat16),
        "steps": np.array(7, np.int64),
    }


def same(found: Any, wanted: dict[str, Any]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].numpy().tobytes() == array.tobytes()


def test_a_state_is_a_commit_that_git_and_theta_read(repo: Repo, opened: theta.Repository) -> None:
    wanted = arrays()
    before = repo.git("status", "--porcelain", "--branch")
    saved = opened.save(
        {"new.safetensors": wanted, "notes/run.txt": "lr 3e-5\n"},
        ref="runs/r1",
        step=500,
        metrics={"eval_loss": 1.83},
    ).result()
    assert saved.ref == "refs/heads/runs/r1"
    assert repo.git("rev-parse", "runs/r1") == saved.commit
    assert (
        repo.git("log", "-1", "--format=%s|%(trailers:key=Theta-Step,valueonly,separator=%x2C)", "runs/r1")
        == "step 500|500"
    )
    assert "Theta-Metric: eval_loss=1.83" in repo.git("log", "-1", "--format=%b", "runs/r1")
    same(opened["runs/r1:new.safetensors"], wanted)
    assert repo.git("show", "runs/r1:notes/run.txt") == "lr 3e-5"
    assert repo.git("status", "--porcelain", "--branch") == before
    assert_commit(repo, "runs/r1")
    repo.fsck()
    assert repo.theta("fsck", "--read-data").returncode == 0


def test_a_checkout_gives_the_file_that_the_official_writer_makes(
    repo: Repo, opened: theta.Repository
) -> None:
    wanted = {name: array for name, array in arrays().items() if array.dtype != ml_dtypes.bfloat16}
    opened.save({"new.safetensors": wanted}, ref="saved", wait=True)
    repo.theta("switch", "-q", "saved")
    written = (repo.path / "new.safetensors").read_bytes()
    assert written == safetensors.numpy.save(wanted, {"format": "np"})
    header = written[: 8 + int.from_bytes(written[:8], "little")]
    assert read_metadata(header) == {"format": "np"}
    assert repo.git("status", "--porcelain") == ""


def test_the_next_step_is_on_top_and_shares_what_did_not_change(opened: theta.Repository, repo: Repo) -> None:
    first = opened.save({"m.safetensors": arrays()}, ref="run").result()
    second = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run").result()
    assert second.parent == first.commit
    assert dict(second.new) == {"m.safetensors": ("a.weight",)}
    same(opened["run:m.safetensors"], arrays(moved=1.0))
    same(opened["run~1:m.safetensors"], arrays())
    assert repo.git("rev-list", "--count", "run") == "2"
    again = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", message="same").result()
    assert dict(again.new) == {"m.safetensors": ()}
    assert repo.git("rev-parse", "run^{tree}") == repo.git("rev-parse", "run~1^{tree}")


def test_other_files_of_the_commit_stay(opened: theta.Repository, repo: Repo) -> None:
    repo.git("branch", "side")
    opened.save({"sub/other.safetensors": arrays()}, ref="side", wait=True)
    assert opened.checkpoints("side") == [MODEL, "sub/other.safetensors"]
    assert (
        repo.git("diff", "--name-only", "main", "side", "--", ".", ":(exclude).theta")
        == "sub/other.safetensors"
    )
    assert_commit(repo, "side")


@pytest.mark.parametrize("path", ["m.npz", "m.pt", "m.gguf", "deep/er/m.safetensors"])
def test_every_format_that_theta_writes(opened: theta.Repository, repo: Repo, path: str) -> None:
    wanted = {"w": np.arange(24, dtype=np.float32).reshape(4, 6)}
    opened.save({path: wanted}, ref="saved", wait=True)
    same(opened[f"saved:{path}"], wanted)
    repo.theta("switch", "-q", "saved")
    same(opened[path], wanted)


def test_nested_mappings_are_joined_by_dots(opened: theta.Repository) -> None:
    state = {"state": {0: {"exp_avg": np.ones(3, np.float32)}}, "step": np.array(1)}
    opened.save({"optimizer.safetensors": state}, ref="saved", wait=True)
    assert sorted(opened["saved:optimizer.safetensors"]) == ["state.0.exp_avg", "step"]


def test_arrays_may_change_once_it_returned(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Event()
    real = saving.save
    monkeypatch.setattr(saving, "save", lambda *args: (begin.wait(), real(*args))[1])
    state = arrays()
    transposed = np.arange(12, dtype=np.float32).reshape(3, 4).T
    future = opened.save({"m.safetensors": {**state, "t": transposed}}, ref="run")
    wanted = {**arrays(), "t": transposed.copy()}
    state["a.weight"][:] = 0
    transposed[:] = 0
    begin.set()
    future.result()
    same(opened["run:m.safetensors"], wanted)


def halting(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let each save tell that it begun, and wait until it may go on."""
    begun, go = threading.Event(), threading.Event()
    real = saving.save

    def slow(*args: Any) -> saving.SaveResult:
        begun.set()
        go.wait()
        return real(*args)

    monkeypatch.setattr(saving, "save", slow)
    return begun, go


def test_the_newest_of_those_that_wait_is_stored(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = halting(monkeypatch)
    futures = [opened.save({"m.safetensors": arrays(moved=0.0)}, ref="run", step=0)]
    begun.wait()
    futures += [opened.save({"m.safetensors": arrays(moved=float(n))}, ref="run", step=n) for n in (1, 2, 3)]
    other = opened.save({"m.safetensors": arrays()}, ref="another", step=1)
    go.set()
    opened.close()
    assert [future.cancelled() for future in futures] == [False, True, True, False]
    assert repo.git("log", "--format=%s", "run").splitlines() == ["step 3", "step 0"]
    assert other.result().ref == "refs/heads/another"


def test_an_error_behind_the_program_is_raised_by_the_next_call_and_once(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> saving.SaveResult:
        raise RefusedError("no")

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save", broken)
        future = opened.save({"m.safetensors": arrays()}, ref="run")
        while not future.done():
            pass
    with pytest.raises(RefusedError):
        opened.save({"m.safetensors": arrays()}, ref="run", message="stored nevertheless")
    opened.wait()
    assert repo.git("log", "--format=%s", "run") == "stored nevertheless"
    with monkeypatch.context() as patched:
        patched.setattr(saving, "save", broken)
        seen = opened.save({"m.safetensors": arrays()}, ref="run")
        with pytest.raises(RefusedError):
            seen.result()
        with pytest.raises(RefusedError):
            opened.save({"m.safetensors": arrays()}, ref="run", wait=True)
    opened.save({"m.safetensors": arrays()}, ref="run", wait=True)


def test_a_save_that_failed_is_raised_at_the_end(repo: Repo) -> None:
    opened = theta.open(repo.path)
    opened.save({"m.safetensors": arrays()}, ref="run", wait=True)
    repo.git("checkout", "--quiet", "run")
    opened.save({"m.safetensors": arrays()}, ref="run")
    with pytest.raises(RefusedError, match="checked out"):
        opened.close()
    opened.close()


@pytest.mark.parametrize(
    ("ref", "error", "said"),
    [
        ("a..b", UsageError, "a branch cannot be named 'a..b'"),
        ("refs/a b", UsageError, "a ref cannot be named 'refs/a b'"),
        ("HEAD", UsageError, "a branch cannot be named 'HEAD'"),
        ("refs/heads/HEAD", UsageError, "a ref cannot be named 'refs/heads/HEAD'"),
        ("@", UsageError, "a branch cannot be named '@'"),
        ("-d", UsageError, "a branch cannot be named '-d'"),
        (None, UsageError, "a ref is named by text, not by None"),
        ("main", RefusedError, "main is checked out"),
    ],
)
def test_a_ref_that_cannot_be_moved_is_refused_at_the_first_save(
    opened: theta.Repository, ref: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        opened.save({"m.safetensors": arrays()}, ref=ref)
    opened.wait()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (np.ones(3), "is of type numpy.ndarray and dtype float64, not files by their paths"),
        ([("m.safetensors", {})], "is of type builtins.list, not files"),
        ({3: b"x"}, "a file is named by text, not by 3"),
        ({Path("m.safetensors"): {"w": np.ones(3)}}, "a file is named by text, not by PosixPath"),
        ({"m.safetensors": {"w": np.array(["a"])}}, "'w' is of type numpy.ndarray and dtype <U1, not an"),
        ({"m.npz": {"w": np.array([None])}}, "'w' is of type numpy.ndarray and dtype object, not an"),
    ],
)
def test_what_is_no_file_is_refused_by_its_kind(opened: theta.Repository, files: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        opened.save(files, ref="run")
    opened.wait()


@pytest.mark.parametrize("out", [[np.ones(3)], np.ones(3), object()])
def test_arrays_to_fill_are_known_by_name(opened: theta.Repository, out: Any) -> None:
    opened.save({"m.npz": {"w": np.ones(3)}}, ref="run", wait=True)
    with pytest.raises(UsageError, match=r"out is of type .*, not arrays by their names"):
        opened.load("run", "m.npz", out=out)


AT_EXIT = """
import sys, numpy, theta
repo = theta.open(sys.argv[1])
repo.save({"m.safetensors": {"w": numpy.ones(1 << 21, "f4"), "v": numpy.ones(9)}}, ref=sys.argv[2])
"""


@pytest.mark.parametrize("ending", ["", "raise ValueError"])
def test_a_save_in_the_last_line_of_a_program_is_stored(repo: Repo, ending: str) -> None:
    done = by_python(repo, AT_EXIT + ending, "run")
    assert done.returncode == bool(ending)
    assert "shutdown" not in done.stderr
    assert repo.git("log", "--format=%s", "run") == "save"


def test_a_save_that_fails_as_the_program_ends_is_told(repo: Repo) -> None:
    begin = f"""
import subprocess
{AT_EXIT}
repo.wait()
subprocess.run(["git", "-C", sys.argv[1], "checkout", "--quiet", "run"], check=True)
"""
    assert "run is checked out" in by_python(repo, begin + AT_EXIT, "run").stderr


def by_python(repo: Repo, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", program, str(repo.path), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_save_that_cannot_be_made_leaves_the_one_that_waits(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, go = halting(monkeypatch)
    opened.save({"m.safetensors": arrays()}, ref="run", step=0)
    begun.wait()
    waits = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", step=1)
    with pytest.raises(NotFoundError):
        opened.save({"config.json": tmp_path / "nosuch.json"}, ref="run", step=2)
    go.set()
    assert repo.git("log", "-1", "--format=%s", waits.result().commit) == "step 1"


class OnADevice:
    """An array of a library whose device failed."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("device-side assert triggered")


class Failing(np.ndarray[Any, Any]):
    """An array whose device fails when it is copied."""

    def __array_function__(self, *_: Any) -> Any:
        raise RuntimeError("device-side assert triggered")


@pytest.mark.parametrize("there", [OnADevice(), arrays()["b.weight"].view(Failing)], ids=["before", "then"])
def test_a_device_that_fails_while_its_arrays_are_copied(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch, there: Any
) -> None:
    """The save fails at once, nothing of it is stored, and the ones before and after it are."""
    begun, go = halting(monkeypatch)
    run = theta.Run(opened, "r1")
    run.save(0, {"m.safetensors": arrays()})
    begun.wait()
    state = arrays(moved=1.0) | {"b.weight": there}
    try:
        with pytest.raises(
            ThetaError, match=r"m\.safetensors: 'b\.weight' could not be read: RuntimeError: de"
        ):
            run.save(1, {"m.safetensors": state})
        run.save(2, {"m.safetensors": arrays(moved=2.0)})
    finally:
        go.set()
    opened.wait()
    assert [step.step for step in run.steps()] == [0, 2]
    same(opened["refs/theta/runs/r1:m.safetensors"], arrays(moved=2.0))
    assert repo.git("for-each-ref", "--format=%(refname)", "refs/theta").splitlines() == [run.ref]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_would_end_the_program_while_it_copies_loses_no_save(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """Ctrl-C, or a signal of a cluster: the save that waited went already, so this one is completed."""
    begun, go = halting(monkeypatch)
    opened.save({"m.safetensors": arrays()}, ref="run", step=0)
    begun.wait()
    opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", step=1)
    real, calls = host_copies.PlannedCopy.filled, [0]

    def interrupted(*args: Any) -> Any:
        calls[0] += 1
        made = real(*args)
        if calls[0] == 1:
            raise stop
        return made

    try:
        with monkeypatch.context() as patch, pytest.raises(stop):
            patch.setattr(host_copies.PlannedCopy, "filled", interrupted)
            opened.save({"m.safetensors": arrays(moved=2.0)}, ref="run", step=2)
    finally:
        go.set()
    opened.wait()
    assert repo.git("log", "--format=%s", "run").splitlines() == ["step 2", "step 0"]
    same(opened["run:m.safetensors"], arrays(moved=2.0))


def test_without_memory_for_three_copies_the_save_that_waits_gives_way(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = halting(monkeypatch)
    opened.save({"m.safetensors": arrays()}, ref="run", step=0)
    begun.wait()
    waits = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", step=1)
    real = host_memory.rooms

    def scarce(sizes: Any) -> Any:
        if not waits.cancelled():
            raise MemoryError
        return real(sizes)

    monkeypatch.setattr(host_memory, "rooms", scarce)
    opened.save({"m.safetensors": arrays(moved=2.0)}, ref="run", step=2)
    go.set()
    opened.wait()
    assert repo.git("log", "--format=%s", "run").splitlines() == ["step 2", "step 0"]


def test_the_end_of_a_copy_waits_for_memory_of_the_save_that_is_stored(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies, and what storing takes, are no more than two: the first has shrunk by then."""
    monkeypatch.setattr(host_copies, "_WORTH_A_PAUSE", 0)
    monkeypatch.setattr(background, "_LONGEST_PAUSE", 60.0)
    begun, go = halting(monkeypatch)
    state = {f"w{n}": np.full((64, 64), n, np.float32) for n in range(16)}
    copied: list[int] = []
    real_copy = np.copyto

    def copy(*args: Any) -> None:
        copied.append(1)
        real_copy(*args)

    monkeypatch.setattr(_numpy.np, "copyto", copy)
    opened.save({"m.safetensors": state}, ref="run", step=0)
    begun.wait()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(opened.save, {"m.safetensors": state}, ref="run", step=1)
        time.sleep(0.5)
        assert len(copied) <= 16 + 14
        assert not other.done()
        go.set()
        other.result()
    assert len(copied) == 32
    opened.wait()
    assert repo.git("log", "--format=%s", "run").splitlines() == ["step 1", "step 0"]


@pytest.mark.parametrize("nbytes", [8, host_copies._WORTH_A_PAUSE])
def test_a_save_waits_for_memory_only_for_a_moment(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch, nbytes: int
) -> None:
    """And not at all for that of a small one."""
    looks: list[float] = []
    real = time.sleep

    def look(seconds: float) -> None:
        looks.append(seconds)
        real(seconds)

    monkeypatch.setattr(background, "_LONGEST_PAUSE", 0.05)
    begun, go = halting(monkeypatch)
    opened.save({"m.npz": {f"w{n}": np.zeros(nbytes // 8, np.uint8) for n in range(8)}}, ref="run")
    begun.wait()
    monkeypatch.setattr(time, "sleep", look)
    opened.save({"m.npz": {f"w{n}": np.zeros(nbytes // 8, np.uint8) for n in range(8)}}, ref="run")
    assert bool(looks) == (nbytes > 8)
    assert len(looks) < 50
    go.set()
    opened.wait()


def test_memory_of_a_tensor_goes_as_soon_as_it_is_stored(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that is stored shrinks, so one that waits beside it makes less than two."""
    left: list[int] = []
    pieces: list[weakref.ref[Any]] = []
    real_piece, real_end = host_memory._piece, snapshot.Snapshot.conclude

    def piece(size: int) -> Any:
        pieces.append(weakref.ref(found := real_piece(size)))
        return found

    def conclude(*args: Any) -> Any:
        left.append(sum(ref() is not None for ref in pieces))
        return real_end(*args)

    monkeypatch.setattr(host_memory, "_piece", piece)
    monkeypatch.setattr(host_memory, "_PIECE", 3 << 20)
    monkeypatch.setattr(snapshot.Snapshot, "conclude", conclude)
    dice = np.random.default_rng(0)
    state: dict[str, Any] = {f"w{n}": dice.standard_normal((512, 1024), np.float32) for n in range(4)}
    state |= {"large": dice.standard_normal((7000, 1000), np.float32), "none": np.empty((0, 3))}
    for step in range(2):
        opened.save({"m.safetensors": state}, ref="run", step=step, wait=True)
        same(opened["run:m.safetensors"], state)
        state = {name: array + np.float32(1e-3) for name, array in state.items()}
    assert len(pieces) > 8
    assert left == [0, 0]


def test_a_value_that_was_let_go_of_is_not_read_again() -> None:
    plan = writers.plan("safetensors", [TensorSpec("a", "u8", (5,)), TensorSpec("none", "u8", (0,))], None)
    file = PlannedFile(plan, {"a": memoryview(b"12345"), "none": memoryview(b"")})
    at = {tensor.name: tensor for tensor in plan.layout.tensors}
    assert bytes(file.view(at["a"].offset + 1, 3)) == b"234"
    file.forget(at["none"].offset, 0)
    assert file.view(at["a"].offset, 5).obj == b"12345"
    file.forget(at["a"].offset, 5)
    with pytest.raises(FormatError, match="not in memory"):
        file.read(at["a"].offset, 5)


def test_of_threads_that_save_to_one_ref_each_future_ends(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    real = background.Background.drop

    def together(saves: background.Background, ref: str) -> None:
        real(saves, ref)
        both.wait()

    begun, go = halting(monkeypatch)
    opened.save({"m": b"0"}, ref="run")
    begun.wait()
    monkeypatch.setattr(background.Background, "drop", together)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda text: opened.save({"m": text}, ref="run"), (b"1", b"2")))
    go.set()
    opened.wait()
    assert all(future.done() for future in made)
    assert sorted(future.cancelled() for future in made) == [False, True]


def test_a_process_forked_during_a_save_saves_too(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        begun, go = halting(patched)
        opened.save({"m": b"parent"}, ref="parent")
        begun.wait()
        opened.save({"m": b"waits"}, ref="waits")
    child = os.fork()
    if not child:
        signal.alarm(20)
        with contextlib.suppress(BaseException):
            opened.save({"m": b"child"}, ref="child").result()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    go.set()
    opened.wait()
    for ref in ("parent", "waits", "child"):
        assert repo.git("rev-list", "--count", ref) == "1"


@pytest.mark.parametrize(
    ("files", "options", "error"),
    [
        ({}, {}, UsageError),
        ({"m.safetensors": {"w": object()}}, {}, UsageError),
        ({"m.safetensors": {"w": np.array(["text"])}}, {}, UsageError),
        ({"m.safetensors": 3}, {}, UsageError),
        ({"m.unknown": {"w": np.ones(2)}}, {}, UsageError),
        ({"m.gguf": {"w": np.ones(2, np.complex64)}}, {}, FormatError),
        ({"../m.safetensors": {"w": np.ones(2)}}, {}, UsageError),
        ({".git/m.safetensors": {"w": np.ones(2)}}, {}, UsageError),
        ({".theta/x": b"x"}, {}, UsageError),
        ({"a": b"x", "a/b": b"y"}, {}, UsageError),
        ({MODEL + "/b": b"y"}, {"ref": "old"}, UsageError),
        ({MODEL + "/m.safetensors": {"w": np.ones(2)}}, {"ref": "old"}, UsageError),
        ({"folder": b"y"}, {"ref": "old"}, UsageError),
        ({"folder/deep": b"y"}, {"ref": "old"}, UsageError),
        ({"note.txt": "\ud800"}, {}, UsageError),
        ({"note.txt": "x"}, {"message": "\udcff"}, UsageError),
        ({"note.txt": "x"}, {"message": "\0"}, UsageError),
        ({"note.txt": "x"}, {"metrics": {"\ud800": 1.0}}, UsageError),
        ({"m.safetensors": {"w": np.ma.masked_array([1.0, 2.0], [False, True])}}, {}, UsageError),
        ({"m.pt": {"w": np.ma.masked_array([1.0, 2.0], [False, True])}}, {}, UsageError),
        ({"m.pt": {"w": np.datetime64("2020-01-01T00:00:00", "ns")}}, {}, UsageError),
        ({"m.pt": {"w": np.timedelta64(1, "ns")}}, {}, UsageError),
        ({"m.safetensors": {"w": np.ones(2)}}, {"metrics": {"a=b": 1.0}}, UsageError),
        ({"m.safetensors": {"w": np.ones(2)}}, {"ref": "a..b"}, UsageError),
        ({"m.safetensors": {"w": np.ones(2)}}, {"ref": "main"}, RefusedError),
        ({"m.safetensors": b"no checkpoint"}, {"ref": "main"}, RefusedError),
    ],
)
def test_what_cannot_be_saved_is_refused(
    opened: theta.Repository,
    repo: Repo,
    files: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    opened.save({MODEL: arrays(), "folder/deep/m.safetensors": arrays()}, ref="old", wait=True)
    before = repo.git("for-each-ref")
    with pytest.raises(error):
        opened.save(files, **{"ref": "saved", **options}, wait=True)
    assert repo.git("for-each-ref") == before


def test_a_ref_that_moved_meanwhile_is_not_overwritten(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.save({"m.safetensors": arrays()}, ref="run", wait=True)
    real = saved_tree.write

    def meanwhile(*args: Any, **options: Any) -> Any:
        repo.git("branch", "-f", "run", "main")
        return real(*args, **options)

    monkeypatch.setattr(saved_tree, "write", meanwhile)
    with pytest.raises(theta.ThetaError):
        opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", wait=True)
    assert repo.git("rev-parse", "run") == repo.git("rev-parse", "main")


def test_a_save_starts_no_process_once_it_knows_who_commits(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_DATE", raising=False)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada <of> Łódź")
    first = opened.save({"m.safetensors": arrays()}, ref="run", step=1).result()
    monkeypatch.setattr(Git, "_start", None)
    began = int(time.time())
    run = theta.Run(opened, "r1", keep=theta.last(1))
    for step in (1, 2):
        run.save(step, {"m.safetensors": arrays(moved=step)}, {"loss": 1.0}).result()
    second = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", step=2).result()
    monkeypatch.undo()
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada <of> Łódź")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_DATE", raising=False)
    words = ("commit-tree", f"{second.commit}^{{tree}}", "-p", first.commit, "-F", "-")
    message = repo.git("log", "-1", "--format=%B", second.commit) + "\n"
    by_git = repo.git(*words, stdin=message)
    ours, gits = (repo.git("cat-file", "commit", oid).splitlines() for oid in (second.commit, by_git))
    dates = [int(line.rsplit(" ", 2)[1]) for line in ours[2:4]]
    assert all(began <= date <= time.time() for date in dates)
    assert [line.rsplit(" ", 2)[::2] for line in ours[2:4]] == [
        line.rsplit(" ", 2)[::2] for line in gits[2:4]
    ]
    assert ours[:2] + ours[4:] == gits[:2] + gits[4:]
    repo.fsck()


def test_a_bare_repository_takes_saves(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    with theta.open(tmp_path / "bare.git") as bare:
        bare.save({"m.safetensors": arrays()}, ref="run", wait=True)
        bare.save({"m.safetensors": arrays()}, ref="main", wait=True)
        same(bare["run:m.safetensors"], arrays())
        same(bare["main:m.safetensors"], arrays())


@pytest.mark.frameworks
def test_torch_tensors(opened: theta.Repository) -> None:
    frameworks.need("torch")
    torch = importlib.import_module("torch")
    state = {
        "w": torch.ones(3, 4, dtype=torch.bfloat16).t(),
        "n": torch.tensor(5),
        "f": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    opened.save({"m.safetensors": state}, ref="run", wait=True)
    found = opened["run:m.safetensors"]
    assert found["w"].dtype == ml_dtypes.bfloat16
    assert found["w"].shape == (4, 3)
    assert found["n"].numpy() == 5


@pytest.mark.frameworks
def test_a_tensor_whose_device_gives_nothing_leaves_the_save_that_waits(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does after an error: each use of it fails."""
    frameworks.need("torch")
    torch = importlib.import_module("torch")
    begun, go = halting(monkeypatch)
    opened.save({"m.safetensors": arrays()}, ref="run", step=0)
    begun.wait()
    waits = opened.save({"m.safetensors": arrays(moved=1.0)}, ref="run", step=1)
    try:
        with pytest.raises(ThetaError, match=r"m\.safetensors: 'w' could not be read: NotImplementedError"):
            opened.save({"m.safetensors": {"w": torch.ones(2, 3, device="meta")}}, ref="run", step=2)
    finally:
        go.set()
    assert repo.git("log", "-1", "--format=%s", waits.result().commit) == "step 1"


@pytest.mark.frameworks
def test_tensors_of_torch_that_are_conjugated_as_they_are_read(
    opened: theta.Repository, tmp_path: Path
) -> None:
    frameworks.need("torch")
    torch = importlib.import_module("torch")
    there = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    metrics = {"loss": torch.tensor(0.5)}
    opened.save({"m.pt": {"a": there, "b": there.conj()}}, ref="run", metrics=metrics, wait=True)
    found = opened.load("run", "m.pt")
    assert found["a"].tolist() == [1 + 2j, 3 - 4j]
    assert found["b"].tolist() == [1 - 2j, 3 + 4j]
    torch.save({"b": there.conj()}, tmp_path / "lazy.pt")
    opened.save({"m.pt": tmp_path / "lazy.pt"}, ref="run", wait=True)
    with pytest.raises(FormatError, match="conjugated"):
        opened.load("run", "m.pt")
    with pytest.raises(FormatError, match="conjugated"):
        opened.load("run", "m.pt", names="b")


@pytest.mark.parametrize("path", ["m.safetensors", "m.npz", "m.gguf"])
def test_two_arrays_of_one_joined_name_are_told(opened: theta.Repository, path: str) -> None:
    one, two = np.zeros(3, np.float32), np.ones(3, np.float32)
    with pytest.raises(UsageError, match=rf"{path}: two arrays are named 'l\.w'") as caught:
        opened.save({path: {"l": {"w": one}, "l.w": two}}, ref="saved")
    assert "are joined by dots" in caught.value.hint
