"""Rules of a run: two processes at once, signals, policies, names and numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.compat.inprocess import copied
from tests.support import Repo
from theta.errors import IdentityError, RefusedError, UsageError
from theta.porcelain.workspace.session import Session

RUN = "refs/theta/runs/r1"


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy of ``template`` that the test may change."""
    return copied(template, tmp_path / "repo")


@pytest.fixture
def on_term() -> Iterator[list[int]]:
    """The program's own handler of SIGTERM, and how often it was called."""
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, before)


def state(step: int) -> dict[str, Any]:
    return {"m.safetensors": {"w": np.full((8, 4), step, np.float32)}}


def saved(run: theta.Run, *steps: int, **metrics: float) -> None:
    for step in steps:
        run.save(step, state(step), metrics).result()


def numbers(run: theta.Run) -> list[int | None]:
    return [item.step for item in run.steps()]


# -- two at once ------------------------------------------------------------------------------


def test_the_older_of_two_processes_saves_no_more(repo: Repo, opened: theta.Repository) -> None:
    """A job that was started anew while the one before still ran: their steps were mixed."""
    older = theta.Run(opened, "r1")
    saved(older, 1, 2)
    with theta.open(repo.path) as other:
        newer = theta.Run(other, "r1")
        saved(newer, 3)
        with pytest.raises(RefusedError, match="another process saves steps of run r1"):
            saved(older, 3)
        saved(newer, 4)
    assert numbers(older) == [1, 2, 3, 4]


def test_the_older_one_is_told_though_it_waited(repo: Repo, opened: theta.Repository) -> None:
    """It looked before it had the lock, and then saved on top of the newer one, which was refused."""
    older = theta.Run(opened, "r1")
    saved(older, 1)
    with theta.open(repo.path) as other:
        newer = theta.Run(other, "r1")
        with Session.here(repo.path).change():
            late = older.save(2, state(2))
            time.sleep(0.3)
            assert not late.done()
            said = "step 9\n\nTheta-Step: 9"
            commit = repo.git("commit-tree", f"{RUN}^{{tree}}", "-p", RUN, "-m", said)
            repo.git("update-ref", RUN, commit)
        with pytest.raises(RefusedError, match="another process saves steps"):
            late.result()
        saved(newer, 10)
    assert numbers(older) == [1, 9, 10]


def test_an_error_behind_the_commit_does_not_end_the_run(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def kept(self, found: Any) -> set[str]:
            if len(found) == 2:
                raise OSError("for a moment")
            return {item.commit for item in found}

    run = theta.Run(opened, "r1", keep=Failing())
    saved(run, 1)
    with pytest.raises(OSError, match="for a moment"):
        saved(run, 2)
    saved(run, 3)
    assert numbers(run) == [1, 2, 3]


def test_a_run_may_end_behind_its_repository(repo: Repo) -> None:
    opened = theta.open(repo.path)
    run = theta.Run(opened, "r1", keep=theta.last(1))
    saved(run, 1, 2)
    opened.close()
    run.close()


def test_pruning_beside_a_run_is_no_other_process(repo: Repo, opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1", keep=theta.last(3))
    saved(run, 1, 2, 3)
    repo.theta("runs", "prune", "r1", "--last", "1")
    saved(run, 4)
    with theta.open(repo.path) as other:
        theta.Run(other, "r1").prune(theta.last(1))
    saved(run, 5)
    repo.git("update-ref", "-d", RUN)
    saved(run, 6)
    assert numbers(run) == [6]


# -- signals ----------------------------------------------------------------------------------


def test_the_loop_goes_on_until_a_step_is_saved(opened: theta.Repository, on_term: list[int]) -> None:
    """The signal comes behind a step, as the loop tests the model: it ended, and the step was lost."""
    with theta.Run(opened, "r1", every=theta.steps(100) | theta.preempted()) as run:
        for step in range(1, 10):
            run.step(step, state(step))
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            if run.preempted:
                break
    assert step == 6
    assert numbers(run) == [6]
    assert on_term == [signal.SIGTERM]


def test_a_step_that_is_saved_by_name_ends_the_loop_too(opened: theta.Repository, on_term: list[int]) -> None:
    with theta.Run(opened, "r1", every=theta.preempted()) as run:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not run.preempted
        saved(run, 1)
        assert run.preempted
        assert run.step(2, state(2)) is None
    assert len(on_term) == 1


def test_the_signal_is_the_programs_again_behind_the_run(
    opened: theta.Repository, on_term: list[int]
) -> None:
    with theta.Run(opened, "r1", every=theta.preempted()):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert len(on_term) == 1
    with theta.Run(opened, "r1", every=theta.preempted()):
        mine = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # who took it since keeps it
    signal.signal(signal.SIGTERM, mine)


def test_the_signal_of_the_keyboard_is_held_too(opened: theta.Repository) -> None:
    with theta.Run(opened, "r1", every=theta.preempted(signal.SIGINT)) as run:
        os.kill(os.getpid(), signal.SIGINT)
        run.step(1, state(1))
        assert run.preempted
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_between_two_looks_is_not_lost(opened: theta.Repository, on_term: list[int]) -> None:
    """It was taken for served, so that the loop ended without the step."""

    class Late:
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 1

    policy = theta.preempted()
    with theta.Run(opened, "r1", every=policy) as run:
        policy._came = Late()  # type: ignore[assignment]
        assert run.step(1, state(1)) is None
        assert not run.preempted
        saving = run.step(2, state(2))
        assert saving is not None
        assert run.preempted
    assert numbers(run) == [2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_policies_give_the_signal_back_in_any_order(on_term: list[int], order: tuple[int, int]) -> None:
    policies = [theta.preempted(), theta.preempted()]
    for number in order:
        policies[number].release()
    signal.raise_signal(signal.SIGTERM)
    assert on_term == [signal.SIGTERM]


def test_a_process_that_theta_no_longer_holds_ends_by_the_signal(tmp_path: Path) -> None:
    program = (
        "import signal, theta\n"
        "one, two = theta.preempted(), theta.preempted()\n"
        "one.release(); two.release()\n"
        "signal.raise_signal(signal.SIGTERM); print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


# -- policies ---------------------------------------------------------------------------------


def test_a_metric_that_is_spelled_otherwise_is_told_once(opened: theta.Repository) -> None:
    """All steps stayed, without a word."""
    run = theta.Run(opened, "r1", keep=theta.last(1) | theta.best("eval-loss"))
    with pytest.warns(UserWarning, match="none tells that; did you mean eval_loss") as told:
        saved(run, 1, 2, eval_loss=1.0)
    assert len(told) == 1
    assert numbers(run) == [1, 2]


@pytest.mark.parametrize("first", [{}, {"lr": 0.1}])
def test_a_metric_that_comes_later_is_no_mistake(opened: theta.Repository, first: dict[str, float]) -> None:
    run = theta.Run(opened, "r1", keep=theta.best("eval_loss"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(run, 1, **first)
        saved(run, 2, eval_loss=1.0)
        saved(run, 3, eval_los=1.0)


def test_many_kept_steps_are_not_made_anew_each_time(repo: Repo, opened: theta.Repository) -> None:
    """Each step wrote a commit for each that is kept: 40,000 files for 400 steps."""
    before = int(repo.git("count-objects").split()[0])
    with theta.Run(opened, "r1", keep=theta.last(16)) as run:
        saved(run, *range(1, 41))
        assert 16 <= len(numbers(run)) <= 18
        assert numbers(run)[-16:] == [*range(25, 41)]
    assert numbers(run) == [*range(25, 41)]
    made = int(repo.git("count-objects").split()[0]) - before
    assert made <= 24 * 16 / 2


@pytest.mark.parametrize("keep", [3, "last", theta.steps])
def test_prune_takes_policies(opened: theta.Repository, keep: Any) -> None:
    run = theta.Run(opened, "r1")
    saved(run, 1)
    with pytest.raises(UsageError, match="keep cannot be"):
        run.prune(keep)


# -- names, numbers, people -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r1/lr", "r1/lr/2"])
def test_a_run_below_another_is_refused_before_anything_is_copied(
    opened: theta.Repository, name: str
) -> None:
    with theta.Run(opened, "r1") as run:
        saved(run, 1)
    other = theta.Run(opened, name, every=theta.steps(1000))
    with pytest.raises(UsageError, match=f"refs/theta/runs/{name} cannot be beside {RUN}"):
        other.step(1, state(1))
    with theta.Run(opened, "a/b") as run:
        saved(run, 1)
    with pytest.raises(UsageError, match="cannot be beside refs/theta/runs/a/b"):
        theta.Run(opened, "a").save(1, state(1))


def test_a_name_is_one_of_a_file(opened: theta.Repository, repo: Repo) -> None:
    with pytest.raises(UsageError, match="a part of the name of a ref may have 200 bytes"):
        theta.Run(opened, "\u00e9" * 101, every=theta.steps(500)).step(1, state(1))
    saved(theta.Run(opened, "\u00e9" * 100), 1)
    repo.git("update-ref", f"refs/theta/runs/{'l' * 240}", "refs/theta/runs/" + "\u00e9" * 100)
    long = theta.Run(opened, "l" * 240)  # an older theta, or git, made it
    saved(long, 2)
    assert numbers(long) == [1, 2]


@pytest.mark.parametrize("name", ["\ud800", "a\ud800b"])
def test_a_name_that_is_no_text_is_refused(opened: theta.Repository, name: str) -> None:
    with pytest.raises(UsageError):
        theta.Run(opened, name)
    with pytest.raises(UsageError):
        theta.Run(opened, "r1", push=name)


def test_metrics_are_checked_before_they_are_compared(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1", keep=theta.best("loss"))
    with pytest.raises(UsageError, match="a metric is named by text, not by 5"):
        run.save(1, state(1), {5: 1.0})  # type: ignore[dict-item]


@pytest.mark.parametrize("number", [10**18, -(10**18), 10**4000])
def test_a_number_that_would_not_be_read_back_is_refused(opened: theta.Repository, number: int) -> None:
    run = theta.Run(opened, "r1")
    with pytest.raises(UsageError, match="18 digits"):
        run.save(number, state(1))
    saved(run, 10**18 - 1)
    found = run.resume(10**18 - 1)
    assert found is not None
    assert found.step == 10**18 - 1
    with pytest.raises(UsageError, match="a whole one, not '10'"):
        run.resume("10")  # type: ignore[arg-type]


def test_who_commits_is_asked_at_the_first_step(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told at the second step that was saved: after as many hours, with nothing stored."""
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{who}_{what}", raising=False)
    repo.git("config", "user.useConfigOnly", "true")
    for key in ("user.name", "user.email"):
        repo.git("config", key, "")
    with theta.open(repo.path) as anew, pytest.raises(IdentityError):
        theta.Run(anew, "r1", every=theta.steps(500)).step(1, state(1))


def test_the_error_of_the_loop_is_the_one_that_is_raised(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1")

    def fail(*_: Any) -> None:
        raise UsageError("no more")

    run._stored = fail  # type: ignore[assignment]
    with pytest.raises(ValueError, match="in the loop") as caught, run:
        run.save(1, state(1))
        raise ValueError("in the loop")
    assert caught.value.__notes__ == ["At the end of the block, too: no more"]
