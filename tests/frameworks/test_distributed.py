"""torch.distributed.checkpoint with ``theta.torch``: sharded models on several ranks, killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import theta
from tests.compat.agreement import assert_commit
from tests.support import Repo, frameworks
from theta.errors import ChangedWhileReadError, FormatError, NotFoundError, RefusedError, UsageError

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),  # it is, on purpose
]

PROGRAM = "dcp_program.py"
RUN = "refs/theta/runs/r1"


def made(place: Path) -> Repo:
    """A repository whose attributes name the files of the ranks."""
    repo = Repo.create(place)
    repo.theta("track", "*.safetensors")
    return repo


def on(ranks: int) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone")


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    frameworks.need("torch")
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, str]:
    """A run on two ranks that nothing stopped: its repository, and the digest of its weights."""
    repo = made(tmp_path_factory.mktemp("straight") / "repo")
    return repo, frameworks.printed(PROGRAM, repo.path, launcher=on(2))


def test_two_ranks_that_are_killed_and_resumed_end_with_the_same_weights(
    straight: tuple[Repo, str], tmp_path: Path
) -> None:
    repo = made(tmp_path / "repo")
    done = frameworks.start(PROGRAM, repo.path, "--killed", 8, launcher=on(2))
    assert "Signal 9" in done.stderr, done.stdout + done.stderr
    with theta.open(repo.path) as opened:
        assert [item.step for item in theta.Run(opened, "r1").steps()] == [3, 6]
    assert frameworks.printed(PROGRAM, repo.path, launcher=on(2)) == straight[1]
    assert_commit(repo, RUN)


def test_each_rank_stores_its_part_and_the_first_one_commits(straight: tuple[Repo, str]) -> None:
    repo, _ = straight
    names = repo.git("ls-tree", "-r", "--name-only", RUN, "state").splitlines()
    assert names == ["state/index.json", "state/rank_00000.safetensors", "state/rank_00001.safetensors"]
    assert repo.git("rev-list", "--count", RUN) == "2"
    assert_commit(repo, RUN)
    with theta.open(repo.path) as opened:
        resumed = theta.Run(opened, "r1").resume()
        assert resumed is not None
        assert (resumed.step, resumed.metrics) == (9, {"loss": 1 / 9})
        rows = [
            resumed[name]["model.0.weight" + part].shape
            for name, part in zip(names[1:], ("[0:19, 0:16]", "[19:37, 0:16]"), strict=True)
        ]
    assert rows == [(19, 16), (18, 16)]


def test_another_number_of_ranks_goes_on_with_the_same_values(
    straight: tuple[Repo, str], tmp_path: Path
) -> None:
    """A step of two ranks is loaded by one and by three: each reads the parts that it needs."""
    digests = set()
    for ranks in (1, 2, 3):
        place = tmp_path / f"on{ranks}"
        straight[0].git("clone", "-q", "--mirror", str(straight[0].path), str(place))
        digests.add(frameworks.printed(PROGRAM, place, "--steps", 9, launcher=on(ranks)))
    assert len(digests) == 1


class Code:
    """An object that runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


@pytest.fixture
def run(opened: theta.Repository) -> theta.Run:
    return theta.Run(opened, "r1")


@pytest.fixture
def opened(repo: Repo) -> Any:
    with theta.open(repo.path) as found:
        yield found


def test_objects_that_run_code_are_not_loaded(
    run: theta.Run, torch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from torch.distributed import checkpoint as dcp

    writer, state = theta.torch.StorageWriter(run), {"w": torch.arange(3), "it": Code()}
    dcp.save(state, checkpoint_id=1, storage_writer=writer, no_dist=True)
    loaded = {"w": torch.zeros(3, dtype=torch.int64), "it": None}
    with pytest.raises(BaseException, match="would run code") as caught:
        dcp.load(loaded, storage_reader=theta.torch.StorageReader(run), no_dist=True)
    assert [type(error) for error in failures(caught.value)] == [RefusedError]
    assert "ran" not in capfd.readouterr().out
    dcp.load(loaded, storage_reader=theta.torch.StorageReader(run, trusted=True), no_dist=True)
    assert "ran" in capfd.readouterr().out
    assert loaded["w"].tolist() == [0, 1, 2]


def test_a_step_has_other_files_beside_the_state(run: theta.Run, torch: Any) -> None:
    from torch.distributed import checkpoint as dcp

    files = {"config.json": "{}", "extra.safetensors": {"v": torch.arange(5)}}
    writer = theta.torch.StorageWriter(run, files=files)
    dcp.save({"w": torch.arange(3)}, checkpoint_id=1, storage_writer=writer, no_dist=True)
    resumed = run.resume()
    assert resumed is not None
    assert resumed.read("config.json") == b"{}"
    assert resumed.load("extra.safetensors")["v"].tolist() == [0, 1, 2, 3, 4]
    loaded = {"w": torch.zeros(3, dtype=torch.int64)}
    dcp.load(loaded, storage_reader=theta.torch.StorageReader(run), no_dist=True)
    assert loaded["w"].tolist() == [0, 1, 2]
    writer.files = {"state/index.json": "{}"}
    with pytest.raises(BaseException, match="a file of the state"):
        dcp.save({"w": torch.arange(3)}, checkpoint_id=2, storage_writer=writer, no_dist=True)
    assert [item.step for item in run.steps()] == [1]


def failures(error: Any) -> list[BaseException]:
    """The errors of the ranks in what DCP raises."""
    return [failure[0] for failure in getattr(error, "failures", {}).values()]


def test_all_dtypes_and_shapes_come_back(run: theta.Run, torch: Any) -> None:
    from torch.distributed import checkpoint as dcp

    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.float8_e4m3fn)
    state = {str(dtype): torch.arange(12).reshape(3, 4).to(dtype) for dtype in dtypes}
    state |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "turned": torch.rand(3, 5).T}
    dcp.save(state, checkpoint_id="7", storage_writer=theta.torch.StorageWriter(run), no_dist=True)
    loaded = {name: torch.zeros_like(value) for name, value in state.items()}
    reader = theta.torch.StorageReader(run)
    dcp.load(loaded, storage_reader=reader, no_dist=True)
    assert reader.step == 7
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(*(one.contiguous().view(-1).view(torch.uint8) for one in (loaded[name], value)))


def test_ranks_that_find_different_steps_load_nothing(run: theta.Run, torch: Any) -> None:
    """A step that lands between the looks of two ranks: half of each would be no step at all."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.planner import LoadPlan

    plans, readers = [], [theta.torch.StorageReader(run) for _ in range(3)]
    for step, reader in enumerate(readers[:2]):
        writer = theta.torch.StorageWriter(run)
        dcp.save({"w": torch.full((2,), step)}, checkpoint_id=step, storage_writer=writer, no_dist=True)
        plans.append(reader.prepare_local_plan(LoadPlan([])))
    plans.append(readers[2].prepare_local_plan(LoadPlan([])))
    with pytest.raises(ChangedWhileReadError, match="run r1 changed while its ranks looked"):
        readers[0].prepare_global_plan(plans)
    assert readers[0].prepare_global_plan(plans[1:]) == plans[1:]


def test_what_is_no_step_is_refused(run: theta.Run, torch: Any) -> None:
    from torch.distributed import checkpoint as dcp

    state = {"w": torch.zeros(2)}
    with pytest.raises(NotFoundError, match="has no step yet"):
        theta.torch.StorageReader(run).read_metadata()
    with pytest.raises(UsageError, match="is not the number of a step"):
        dcp.save(state, checkpoint_id="out/7", storage_writer=theta.torch.StorageWriter(run), no_dist=True)
    run.save(1, {"state/index.json": b'{"version": 1, "tensors": {"w": {"dtype": "nn"}}}'}).result()
    with pytest.raises(FormatError, match="is not the index of a distributed checkpoint"):
        theta.torch.StorageReader(run).read_metadata()
