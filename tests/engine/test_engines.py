"""The workers of an engine store the trees that threads store, whatever happens to a worker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import theta as api
from tests.compat.inprocess import theta
from tests.engine import factories
from tests.engine.small_parts import spread
from tests.support import Repo, sha256
from theta.engine import executors, file_parts, merge_parts
from theta.engine.file_parts import CommonPart, FilePart
from theta.engine.workplace import Workplace
from theta.errors import UsageError
from theta.store.write.guidance import Guidance

MODEL = "m.safetensors"
HERE = f"{factories.__name__}:"
Arrays = dict[str, np.ndarray]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * 0.02, ml_dtypes.bfloat16)


def near(old: np.ndarray, seed: int, by: float = 0.02) -> np.ndarray:
    step = by * normal(seed, *old.shape).astype(np.float32)
    found: np.ndarray = np.asarray(old.astype(np.float32) + step, ml_dtypes.bfloat16)
    return found


def low_rank(old: np.ndarray, seed: int) -> np.ndarray:
    factors = normal(seed, old.shape[0], 4).astype(np.float32) @ normal(seed + 1, 4, old.shape[1])
    found: np.ndarray = (old.astype(np.float32) + factors).astype(ml_dtypes.bfloat16)
    return found


def first() -> Arrays:
    """Sixteen matrices, norms that are small, a large embedding, and a twin."""
    found = {f"layers.{k:02d}.q": normal(k, 96, 128) for k in range(16)}
    found |= {f"layers.{k:02d}.norm": normal(100 + k, 128) for k in range(16)}
    found |= {"embed": normal(200, 2100, 6000), "twin": found["layers.00.q"], "scalar": normal(1)}
    return found


def changes(before: Arrays) -> Iterator[Arrays]:
    """Versions of a model, of all kinds of changes."""
    yield {name: near(old, k) if old.ndim == 2 else old for k, (name, old) in enumerate(before.items())}
    yield {name: low_rank(old, 7) if name.endswith(".q") else old for name, old in before.items()}
    yield {name: near(old, k) for k, (name, old) in enumerate(before.items())}
    yield before | {f"layers.{k:02d}.norm": near(before[f"layers.{k:02d}.norm"], k) for k in range(3)}
    yield before | {"layers.03.q": near(before["layers.03.q"], 5), "other": normal(300, 64, 64)}


@pytest.fixture(scope="module")
def versions() -> list[Arrays]:
    before = first()
    return [before, *changes(before)]


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread files of any size, in many parts."""
    spread(monkeypatch, 40_000)


def history(place: Path, versions: list[Arrays], engine: str, env: dict[str, str] | None = None) -> list[str]:
    """Commit the versions; return the trees."""
    repo = Repo.create(place)
    theta(repo, "track", "*.safetensors")
    repo.git("config", "theta.engine", engine)
    for arrays in versions:
        save_file(arrays, repo.path / MODEL)
        theta(repo, "add", MODEL, env=env)
        repo.git("commit", "-q", "--no-verify", "-m", "version")
    assert not list((repo.path / ".git/objects/pack").glob("*.keep"))
    repo.git("fsck", "--strict")
    return [line.split()[1] for line in repo.git("log", "--format=%h %T").splitlines()]


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory: pytest.TempPathFactory, versions: list[Arrays]) -> list[str]:
    return history(tmp_path_factory.mktemp("threads") / "r", versions, "threads")


@pytest.mark.usefixtures("cut_small")
def test_all_kinds_of_changes_are_stored_as_by_threads(
    tmp_path: Path, versions: list[Arrays], by_threads: list[str]
) -> None:
    assert history(tmp_path / "r", versions, f"{HERE}threads") == by_threads


@pytest.mark.usefixtures("cut_small")
@pytest.mark.parametrize("engine", ["processes:2", f"{HERE}dying_once"])
def test_processes_store_the_same_though_one_is_killed(
    tmp_path: Path,
    versions: list[Arrays],
    by_threads: list[str],
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factories, "_made", 0)
    assert history(tmp_path / "r", versions[:2], engine)[:2] == by_threads[-3:-1]


@pytest.mark.usefixtures("cut_small")
def test_workers_that_are_always_lost_are_an_error_and_nothing_is_staged(
    tmp_path: Path, versions: list[Arrays]
) -> None:
    repo = Repo.create(tmp_path / "r")
    theta(repo, "track", "*.safetensors")
    save_file(versions[0], repo.path / MODEL)
    told = theta(repo, "--engine", f"{HERE}dying_always", "add", MODEL, code=3).err
    assert "were begun 3 times, and their workers were lost" in told
    assert MODEL not in repo.git("ls-files")
    theta(repo, "add", MODEL)
    assert MODEL in repo.git("ls-files")


@pytest.mark.usefixtures("cut_small")
def test_a_merge_by_workers_is_the_merge_by_threads(tmp_path: Path, versions: list[Arrays]) -> None:
    """All that passes to workers is pickled."""
    found = []
    for number, engine in enumerate(["threads", f"{HERE}asked"]):
        repo = Repo.create(tmp_path / str(number))
        theta(repo, "track", "*.safetensors")
        repo.git("config", "theta.engine", engine)
        save_file(versions[0], repo.path / MODEL)
        theta(repo, "add", MODEL)
        theta(repo, "commit", "-qm", "base")
        for branch, version in (("one", versions[1]), ("two", versions[2])):
            theta(repo, "switch", "-q", "-c", branch, "main")
            save_file(version, repo.path / MODEL)
            theta(repo, "commit", "-qam", branch)
        theta(repo, "merge", "-q", "-X", "ties:density=0.5", "one")
        found.append((repo.git("rev-parse", "HEAD^{tree}"), (repo.path / MODEL).read_bytes()))
        repo.git("fsck", "--strict")
    assert found[0] == found[1]
    assert merge_parts.compute in factories.last.asked


@pytest.mark.usefixtures("cut_small")
def test_a_program_brings_its_executor(tmp_path: Path, versions: list[Arrays], by_threads: list[str]) -> None:
    repo = Repo.create(tmp_path / "r")
    theta(repo, "track", "*.safetensors")
    save_file(versions[0], repo.path / MODEL)
    with factories.Asked(2) as pool, api.open(repo.path) as opened:
        opened.add(MODEL, executor=pool)
        assert set(pool.asked) == {file_parts.store}
        # Of 4,000 tensors less than a megabyte is sent: what is said of a part, and some numbers a tensor.
        assert pool.passed < 1_000 * len(pool.asked) + 250 * len(versions[0])
    repo.git("commit", "-q", "--no-verify", "-m", "version")
    assert repo.git("rev-parse", "HEAD^{tree}") == by_threads[-2]


@pytest.mark.parametrize(
    ("engine", "code", "told"),
    [
        ("cluster", 2, "there is no engine 'cluster'"),
        ("processes:0", 2, "there is no engine"),
        (f"{HERE}nothing", 3, "made no concurrent.futures.Executor"),
        ("no_such_module:factory", 3, "the engine no_such_module:factory cannot be used"),
    ],
)
@pytest.mark.usefixtures("cut_small")
def test_an_engine_that_cannot_be_used_is_one_line(tmp_path: Path, engine: str, code: int, told: str) -> None:
    repo = Repo.create(tmp_path / "r")
    theta(repo, "track", "*.safetensors")
    save_file({"a": normal(1, 64, 64)}, repo.path / MODEL)
    assert told in theta(repo, "--engine", engine, "add", MODEL, code=code).err


def test_a_worker_of_another_version_refuses(tmp_path: Path) -> None:
    place = CommonPart(Workplace(str(tmp_path), "", "0.0.0"), str(tmp_path / MODEL), 0, 0, "m", "", ())
    with pytest.raises(UsageError, match=r"a worker runs theta .*, and theta 0\.0\.0 asked it"):
        file_parts.store(FilePart(place, (), Guidance()))


def test_threads_are_no_engine() -> None:
    assert executors.engine_of("") is None
    assert executors.engine_of("threads") is None


_CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Dask scheduler with two worker processes."""
    program = tmp_path / "cluster.py"
    program.write_text(_CLUSTER)
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running_one:
        assert running_one.stdout is not None
        yield running_one.stdout.readline().strip().removeprefix("tcp://")
        running_one.communicate("")


def _committed(place: Path, arrays: Arrays, *command: str) -> str:
    """Commit one version by a command of its own; return the tree."""
    repo = Repo.create(place)
    theta(repo, "track", "*.safetensors")
    save_file(arrays, repo.path / MODEL)
    subprocess.run([*command, "add", MODEL], cwd=repo.path, check=True, timeout=300)
    repo.git("commit", "-q", "--no-verify", "-m", "version")
    return repo.git("rev-parse", "HEAD^{tree}")


def _large(versions: list[Arrays]) -> Arrays:
    """A model that is worth spreading."""
    return versions[0] | {f"more.{k}": normal(400 + k, 1500, 3000) for k in range(5)}


def test_dask_workers_store_the_same(tmp_path: Path, versions: list[Arrays], cluster: str) -> None:
    command = [sys.executable, "-m", "theta"]
    arrays = _large(versions)
    by_dask = _committed(tmp_path / "dask", arrays, *command, "--engine", f"dask://{cluster}")
    assert by_dask == _committed(tmp_path / "threads", arrays, *command)


def _examined(place: Path, *command: str) -> tuple[str, str]:
    """Check a file by a command of its own, and average two commits; return findings and digest."""
    check = subprocess.run(
        [*command, "check", "--json"], cwd=place, capture_output=True, text=True, timeout=300
    )
    assert check.returncode == 1, check.stderr
    average = [*command, "average", "HEAD~", "HEAD", "-o", "mean.safetensors", "--force"]
    subprocess.run(average, cwd=place, check=True, timeout=300)
    return check.stdout, sha256(place / "mean.safetensors")


def test_processes_and_dask_workers_check_and_average_the_same(
    tmp_path: Path, versions: list[Arrays], cluster: str
) -> None:
    command, arrays = [sys.executable, "-m", "theta"], _large(versions)
    _committed(tmp_path / "r", arrays, *command)
    changed = {f"more.{k}": near(arrays[f"more.{k}"], k) for k in range(5)} | {
        "embed": near(arrays["embed"], 9)
    }
    changed["more.3"][5, 6] = np.nan
    repo = Repo(tmp_path / "r", 100)
    save_file(arrays | changed, repo.path / MODEL)
    theta(repo, "commit", "-qam", "changed")
    by_threads = _examined(repo.path, *command)
    assert '"nan"' in by_threads[0]
    for engine in ("processes:2", f"dask://{cluster}"):
        assert _examined(repo.path, *command, "--engine", engine) == by_threads


def test_mpi_workers_store_the_same(tmp_path: Path, versions: list[Arrays]) -> None:
    started = shutil.which("mpiexec", path=Path(sys.executable).parent)
    assert started is not None, "mpich of the test extra has it"
    command = [sys.executable, "-m", "theta"]
    mpi = [started, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", "theta", "--engine", "mpi"]
    arrays = _large(versions)
    assert _committed(tmp_path / "mpi", arrays, *mpi) == _committed(tmp_path / "threads", arrays, *command)
