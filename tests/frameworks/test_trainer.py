"""transformers' Trainer with ``theta.hf.Callback``, killed and resumed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import theta
from tests.support import Repo, frameworks
from tests.support.models import sha256

pytestmark = pytest.mark.frameworks

PROGRAM = "trainer_program.py"
RUN = "refs/theta/runs/r1"
TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


@pytest.fixture(scope="module", autouse=True)
def trainer() -> None:
    frameworks.need("transformers", "accelerate", "torch")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, Path, str]:
    """A run that nothing stopped: its repository, the Trainer's folder, the digest of its weights."""
    place = tmp_path_factory.mktemp("straight")
    repo = Repo.create(place / "repo")
    return repo, place / "out", frameworks.printed(PROGRAM, repo.path, place / "out")


def steps(repo: Repo) -> list[int | None]:
    with theta.open(repo.path) as opened:
        return [item.step for item in theta.Run(opened, "r1").steps()]


def folders(out: Path) -> list[int]:
    return sorted(int(folder.name.rpartition("-")[2]) for folder in out.iterdir())


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_weights(
    straight: tuple[Repo, Path, str], tmp_path: Path
) -> None:
    """Each time on a new machine: of the Trainer's own folders nothing is left."""
    repo = Repo.create(tmp_path / "repo")
    for number, at in enumerate((7, 18)):  # whose checkpoints are those of the steps 4 and 16
        done = frameworks.start(
            PROGRAM, repo.path, tmp_path / f"out{number}", "--signal", "SIGKILL", "--at", at
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert steps(repo)[-1] == 16
    assert frameworks.printed(PROGRAM, repo.path, tmp_path / "out2") == straight[2]
    assert steps(repo) == steps(straight[0])


def test_the_run_keeps_the_steps_whose_folders_the_trainer_keeps(straight: tuple[Repo, Path, str]) -> None:
    repo, out, _ = straight
    assert steps(repo) == folders(out)
    assert len(folders(out)) == 2


def test_a_folder_that_comes_back_is_the_one_that_the_trainer_wrote(
    straight: tuple[Repo, Path, str], tmp_path: Path
) -> None:
    repo, out, _ = straight
    with theta.open(repo.path) as opened:
        resumed = theta.Run(opened, "r1").resume()
        assert resumed is not None
        place = resumed.write(tmp_path / "again")
        assert "eval_loss" in resumed.metrics
    written = {path.name: sha256(path) for path in (out / "checkpoint-24").iterdir()}
    assert {path.name: sha256(path) for path in place.iterdir()} == written
    assert {
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    } <= set(written)


def test_a_run_that_is_preempted_saves_its_last_step_and_goes_on(
    straight: tuple[Repo, Path, str], tmp_path: Path
) -> None:
    repo = Repo.create(tmp_path / "repo")
    frameworks.printed(PROGRAM, repo.path, tmp_path / "out", "--signal", "SIGTERM", "--at", 10)
    assert steps(repo)[-1] == 10
    assert frameworks.printed(PROGRAM, repo.path, tmp_path / "out") == straight[2]


def test_two_processes_save_one_run_which_is_pushed(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo")
    repo.git("init", "-q", "--bare", str(tmp_path / "far.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "far.git"))
    frameworks.printed(PROGRAM, repo.path, tmp_path / "out", "--push", "origin", launcher=TWO)
    names = repo.git("ls-tree", "--name-only", RUN).splitlines()
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= set(names)
    assert repo.git("ls-remote", "origin", RUN).split()[0] == repo.git("rev-parse", RUN)
