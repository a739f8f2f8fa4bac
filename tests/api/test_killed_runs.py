"""A run that is killed at any moment: each finished step is there and whole, and nothing else stays.

Figures of a campaign of 100 kills: see the end of ``bench/NOTES.md``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import theta
from tests.compat.inprocess import copied
from tests.support import Repo

RUN = "refs/theta/runs/r1"
_LOOP = """
import sys
import numpy as np
import theta

def state(step):
    random = np.random.default_rng(step)
    return {"m.safetensors": {"w": random.standard_normal((96, 64), np.float32), "n": np.array(step)},
            "optimizer.pt": {"state": {0: {"exp_avg": np.full((64, 64), step, np.float32)}}, "step": step}}

keep = theta.last(3) | theta.best("loss", 2)
with theta.open(sys.argv[1]) as repo, theta.Run(repo, "r1", keep=keep) as run:
    resumed = run.resume()
    first = 0 if resumed is None else resumed.step + 1
    print("begin", flush=True)
    for step in range(first, first + 1000):
        run.save(step, state(step), {"loss": 1 / (1 + step % 7)}).result()
        print(step, flush=True)
"""


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy of ``template`` that the test may change."""
    return copied(template, tmp_path / "repo")


def killed(repo: Repo, seconds: float) -> int | None:
    """Let the loop run for a while, and kill it; return the last step that it finished."""
    command = [sys.executable, "-c", textwrap.dedent(_LOOP), str(repo.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begin\n"
        time.sleep(seconds)
        child.kill()
        told = child.stdout.read().split("\n")[:-1]
    return int(told[-1]) if told else None


def check(repo: Repo, finished: int) -> int:
    """Check that the run is whole, and reaches ``finished`` at least; return its newest step."""
    with theta.open(repo.path) as opened:
        run = theta.Run(opened, "r1")
        steps = run.steps()
        newest = steps[-1].step
        assert newest is not None
        assert newest >= finished
        resumed = run.resume()
        assert resumed is not None
        assert resumed.step == newest
        for item in steps:
            step = item.step or 0
            found = opened.load(item.commit, "m.safetensors")
            wanted = np.random.default_rng(step).standard_normal((96, 64), np.float32)
            assert found["n"] == step
            assert (found["w"] == wanted).all()
            kept = opened.load(item.commit, "optimizer.pt")
            assert (kept["step"], (kept["state"][0]["exp_avg"] == step).all()) == (step, True)
    return newest


def check_clean(repo: Repo) -> None:
    """Check that gc leaves nothing but what refs reach."""
    repo.theta("gc", "-q", "--prune=now")
    repo.fsck()
    objects = repo.path / ".git" / "objects"
    assert list(objects.rglob("tmp_*")) == []
    assert list((repo.path / ".git" / "theta").rglob("tmp*/*")) == []
    told = dict(line.split(": ") for line in repo.git("count-objects", "-v").splitlines())
    assert (told["garbage"], told["prune-packable"], told["count"]) == ("0", "0", "0")
    reached = repo.git("rev-list", "--objects", "--all", "--reflog", "--indexed-objects", "--no-object-names")
    assert int(told["in-pack"]) == len(set(reached.split()))


def test_a_run_that_is_killed_goes_on_from_its_last_step(repo: Repo) -> None:
    finished = max(step for _ in range(2) if (step := killed(repo, 0.6)) is not None)
    assert check(repo, finished) >= finished
    check_clean(repo)


@pytest.mark.campaign
def test_a_hundred_kills(repo: Repo) -> None:
    """Each goes on where the one before it was killed."""
    chance, finished = random.Random(0), -1
    for kill in range(100):
        told = killed(repo, chance.uniform(0.0, 1.0))
        finished = finished if told is None else told
        if finished >= 0:
            finished = check(repo, finished)
        if kill % 10 == 9:
            check_clean(repo)


@pytest.mark.campaign
def test_a_thousand_steps_leave_the_bytes_of_those_that_stay_and_take_the_same_time(repo: Repo) -> None:
    """A thousand steps of a small model, ``keep=last(3) | best(2)``, no gc on the way.

    Two busy cores: 52 ms of the processor a step at first and 44 at last, 7 packs at the end;
    17.5 MB before gc and 175 kB after, .996 of a mirror of the steps that stay (178 s).
    """
    repo.git("config", "gc.auto", "0")
    times: list[float] = []
    with theta.open(repo.path) as opened:
        run = theta.Run(opened, "r1", keep=theta.last(3) | theta.best("loss", 2))
        weights = np.random.default_rng(0).standard_normal((96, 64), np.float32)
        for step in range(1000):
            noise = np.random.default_rng(step)
            weights += noise.standard_normal(weights.shape, np.float32) * np.float32(1e-3)
            began = time.process_time()
            run.save(step, {"m.safetensors": {"w": weights}}, {"loss": float(noise.random())}).result()
            times.append(time.process_time() - began)
        kept = run.steps()
        assert 3 <= len(kept) <= 5
        assert (opened.load(kept[-1].commit, "m.safetensors")["w"] == weights).all()
    first, last = np.array(times[50:250]), np.array(times[-200:])
    packs = len(list((repo.path / ".git/objects/pack").glob("*.pack")))
    before = repo.stored_bytes()
    check_clean(repo)
    clone = Repo(repo.path.parent / "clone")
    repo.git("clone", "-q", "--mirror", repo.path.as_uri(), str(clone.path))
    clone.git("gc", "-q", "--prune=now")
    figures = (np.median(first), np.median(last), first.mean(), last.mean(), packs)
    print("s a step (medians, means), packs:", *figures)
    print("bytes:", before, repo.stored_bytes(), clone.stored_bytes())
    assert repo.stored_bytes() <= 1.2 * clone.stored_bytes()
    assert np.median(last) <= 1.15 * np.median(first)
    assert last.mean() <= 1.15 * first.mean()
    assert packs <= 40
