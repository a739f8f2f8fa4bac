"""Lightning with ``theta.lightning.CheckpointIO``: no file is written, and a killed run goes on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import theta
from tests.support import Repo, frameworks
from theta.errors import NotFoundError, RefusedError

pytestmark = pytest.mark.frameworks

PROGRAM = "lightning_program.py"


@pytest.fixture(scope="module", autouse=True)
def lightning() -> None:
    frameworks.need("lightning", "torch")


def names(repo: Repo) -> list[str]:
    with theta.open(repo.path) as opened:
        return sorted(item.subject for item in theta.Run(opened, "r1").steps())


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight, killed = Repo.create(tmp_path / "straight"), Repo.create(tmp_path / "killed")
    done = frameworks.start(PROGRAM, straight.path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    kept, digest = done.stdout.splitlines()[-2:]
    assert (
        frameworks.start(PROGRAM, killed.path, tmp_path / "o1", "--killed", 14).returncode == -signal.SIGKILL
    )
    assert "last.ckpt" in names(killed)
    assert frameworks.printed(PROGRAM, killed.path, tmp_path / "o2") == digest
    assert names(straight) == [*kept.split()[1:], "last.ckpt"]
    assert not any((tmp_path / folder).exists() for folder in ("out", "o1", "o2"))


def test_two_ranks_save_one_commit_a_checkpoint_and_go_on_once_they_are_killed(tmp_path: Path) -> None:
    """DDP: the first rank alone saves and prunes, and both begin with what it saved."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    straight, killed = Repo.create(tmp_path / "straight"), Repo.create(tmp_path / "killed")

    def trained(repo: Repo, *args: object) -> tuple[list[str], str]:
        """Return the names that Lightning keeps, and the digest of the weights: the same on each rank."""
        done = frameworks.start(PROGRAM, repo.path, tmp_path / "out", "--ranks", 2, *args, launcher=launcher)
        ranks = {tuple(part.splitlines()[1:3]) for part in done.stdout.split("rank ")[1:]}
        assert len(ranks) == 1, done.stdout + done.stderr
        kept, digest = ranks.pop()
        return kept.split()[1:], digest

    kept, digest = trained(straight)
    assert names(straight) == [*kept, "last.ckpt"]
    args = (killed.path, tmp_path / "out", "--killed", 7, "--ranks", 2)
    assert "Signal 9" in frameworks.start(PROGRAM, *args, launcher=launcher).stderr
    assert "last.ckpt" in names(killed)
    again, same = trained(killed)
    assert same == digest
    assert names(killed) == [*again, "last.ckpt"]


@pytest.fixture
def opened(repo: Repo) -> Iterator[theta.Repository]:
    with theta.open(repo.path) as found:
        yield found


class Code:
    """An object that runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_names_stand_for_files(opened: theta.Repository, tmp_path: Path) -> None:
    import torch

    import theta.lightning

    run = theta.Run(opened, "r1")
    io = theta.lightning.CheckpointIO(run)
    assert io.last is None
    for step in range(1, 5):
        io.save_checkpoint({"w": torch.full((3,), step), "global_step": step}, tmp_path / f"{step % 3}.ckpt")
    io.remove_checkpoint(tmp_path / "elsewhere" / "1.ckpt")
    io.remove_checkpoint(tmp_path / "2.ckpt")
    io.save_checkpoint({"w": torch.zeros(3), "global_step": 5}, tmp_path / "5.ckpt")
    assert [(item.subject, item.step) for item in run.steps()] == [
        ("0.ckpt", 3),
        ("1.ckpt", 4),
        ("5.ckpt", 5),
    ]
    assert io.load_checkpoint("1.ckpt")["w"].tolist() == [4, 4, 4]
    with pytest.raises(NotFoundError, match=r"has no checkpoint 2\.ckpt"):
        io.load_checkpoint(tmp_path / "2.ckpt")
    torch.save({"w": 7}, tmp_path / "1.ckpt")
    assert io.load_checkpoint(tmp_path / "1.ckpt") == {"w": 7}


def subjects(run: theta.Run) -> list[tuple[str, int | None]]:
    return [(item.subject, item.step) for item in run.steps()]


@pytest.mark.parametrize("folders", [("out", "out"), ("a", "b")])
@pytest.mark.parametrize("whole", [True, False])
def test_what_one_callback_removes_stays_for_the_other(
    opened: theta.Repository, folders: tuple[str, str], whole: bool
) -> None:
    """Two ModelCheckpoints save one name, in one folder or two; each has another best one."""
    import theta.lightning

    run = theta.Run(opened, "r1")
    io, best = theta.lightning.CheckpointIO(run), dict.fromkeys("xy", "")

    def save(step: int, callback: str, *, removes: str = "") -> None:
        best[callback] = f"{folders['xy'.index(callback)]}/{step}.ckpt"
        states = {one: {"monitor": one, "best_k_models": {path: 1.0}} for one, path in best.items()}
        io.save_checkpoint({"global_step": step, **({"callbacks": states} if whole else {})}, best[callback])
        if removes:
            io.remove_checkpoint(removes)

    save(1, "x")
    save(1, "y")
    save(2, "x", removes=f"{folders[0]}/1.ckpt")
    io.teardown()
    assert subjects(run) == [("1.ckpt", 1), ("2.ckpt", 2)]
    assert io.load_checkpoint(best["y"])["global_step"] == 1
    save(3, "y", removes=f"{folders[1]}/1.ckpt")
    io.teardown()
    assert subjects(run) == [("2.ckpt", 2), ("3.ckpt", 3)]


def test_what_another_callback_has_stays_after_a_resume(opened: theta.Repository) -> None:
    import theta.lightning

    run = theta.Run(opened, "r1")
    states = {one: {"best_k_models": {"out/1.ckpt": 1.0}} for one in "xy"}
    theta.lightning.CheckpointIO(run).save_checkpoint({"global_step": 1, "callbacks": states}, "out/1.ckpt")
    run = theta.Run(opened, "r1")
    io = theta.lightning.CheckpointIO(run)
    assert io.last is not None
    io.load_checkpoint(io.last)
    states["x"] = {"best_k_models": {"out/2.ckpt": 0.5}}
    io.save_checkpoint({"global_step": 2, "callbacks": states}, "out/2.ckpt")
    io.remove_checkpoint("out/1.ckpt")
    io.teardown()
    assert subjects(run) == [("1.ckpt", 1), ("2.ckpt", 2)]


def test_one_name_in_two_folders_is_two_checkpoints(opened: theta.Repository) -> None:
    """Each of two callbacks saves its ``best.ckpt``, at another step."""
    import theta.lightning

    run = theta.Run(opened, "r1")
    io = theta.lightning.CheckpointIO(run)
    for step, path in enumerate(("a/best.ckpt", "b/best.ckpt", "b/best.ckpt", "c.ckpt")):
        io.save_checkpoint({"global_step": step}, path)
    assert subjects(run) == [("best.ckpt", 0), ("best.ckpt", 2), ("c.ckpt", 3)]
    assert io.load_checkpoint("a/best.ckpt")["global_step"] == 0
    assert io.load_checkpoint("best.ckpt")["global_step"] == 2


def test_the_newest_step_is_no_file_that_lies_about(
    opened: theta.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    import theta.lightning

    io = theta.lightning.CheckpointIO(theta.Run(opened, "r1"))
    io.save_checkpoint({"global_step": 8}, tmp_path / "out" / "last.ckpt")
    assert io.last == "theta:r1@8"
    monkeypatch.chdir(tmp_path)
    for name in ("last.ckpt", io.last):
        torch.save({"global_step": 1}, name)
    assert io.load_checkpoint(io.last)["global_step"] == 8
    with pytest.raises(NotFoundError, match="has no checkpoint theta:r1@9"):
        io.load_checkpoint("theta:r1@9")


def test_objects_that_run_code_are_not_loaded(
    opened: theta.Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    import theta.lightning

    io = theta.lightning.CheckpointIO(theta.Run(opened, "r1"))
    io.save_checkpoint({"it": Code(), "global_step": 1}, "a.ckpt")
    with pytest.raises(RefusedError, match="would run code"):
        io.load_checkpoint("a.ckpt")
    assert "ran" not in capfd.readouterr().out
    io.load_checkpoint("a.ckpt", weights_only=False)
    assert "ran" in capfd.readouterr().out


def test_a_run_with_a_policy_of_its_own_keeps_what_that_says(opened: theta.Repository) -> None:
    import torch

    import theta.lightning

    run = theta.Run(opened, "r1", keep=theta.last(2))
    io = theta.lightning.CheckpointIO(run)
    for step in range(3):
        io.save_checkpoint({"w": torch.zeros(2), "global_step": step}, f"{step}.ckpt")
        io.remove_checkpoint(f"{step}.ckpt")
    io.teardown()
    assert [item.step for item in run.steps()] == [1, 2]
