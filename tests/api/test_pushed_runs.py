"""Runs that are pushed: from several machines, over a remote that is away, and never over others' steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.support import Repo
from theta.errors import RefusedError, UsageError
from theta.git.run import GitFailedError
from theta.porcelain.replicas.pushed_runs import PushedRun
from theta.porcelain.workspace.session import Session

RUN = "refs/theta/runs/r1"


def state(step: int) -> dict[str, Any]:
    return {"m.safetensors": {"w": np.full((8, 4), step, np.float32)}}


def saved(run: theta.Run, *steps: int) -> None:
    """Save steps, and wait until they are stored and pushed, or were not."""
    for step in steps:
        run.save(step, state(step)).result()
    if run._pushes is not None:
        run._pushes.wait()


class Machines:
    """A remote, and clones of it on several machines."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.remote = place / "remote"
        Repo.create(place / "maker").git("init", "--quiet", "--bare", str(self.remote))

    def clone(self, name: str) -> Path:
        Repo(self._place / "maker").git("clone", "--quiet", str(self.remote), str(self._place / name))
        return self._place / name

    def there(self) -> list[int | None]:
        with theta.open(self.remote) as repo:
            return [step.step for step in theta.Run(repo, "r1").steps()]

    def train(self, name: str, *steps: int, keep: Any = None, resumes: bool = True) -> int | None:
        """Go on with the run; return the step that it went on from."""
        place = self._place / name
        with theta.open(place) as repo, theta.Run(repo, "r1", push="origin", keep=keep) as run:
            last = run.resume() if resumes else None
            saved(run, *steps)
        return last.step if last is not None else None


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


@pytest.mark.parametrize("keep", [None, theta.last(2)])
def test_a_new_clone_goes_on_with_the_steps_of_the_remote(machines: Machines, keep: Any) -> None:
    """Its run was empty, and the first push replaced the steps of the machine before."""
    kept = slice(-2 if keep else None, None)
    for name in "abc":
        machines.clone(name)
    assert machines.train("a", 1, 2, 3, keep=keep) is None
    assert machines.train("b", 4, 5, keep=keep) == 3
    assert machines.there() == [1, 2, 3, 4, 5][kept]
    assert machines.train("a", 6, keep=keep) == 5
    assert machines.train("c", 7, 8, keep=keep) == 6
    assert machines.train("b", 9, keep=keep) == 8
    assert machines.there() == [*range(1, 10)][kept]


def test_steps_that_are_not_here_are_not_replaced(machines: Machines) -> None:
    for name in "ab":
        machines.clone(name)
    machines.train("a", 1, 2)
    machines.train("b", 3, 4)
    with pytest.raises(RefusedError, match="origin has steps of run r1 that are not here") as caught:
        machines.train("a", 30, resumes=False)
    assert "fetch origin +refs/theta/runs/r1:refs/theta/runs/r1" in str(caught.value.hint)
    assert machines.there() == [1, 2, 3, 4]
    for _ in range(2):  # what was fetched to compare them does not count as steps that are here
        with pytest.raises(RefusedError, match="that are not here"):
            machines.train("a", 31)
    assert machines.there() == [1, 2, 3, 4]


def test_a_push_is_refused_when_the_remote_changed_meanwhile(machines: Machines) -> None:
    for name in "ab":
        machines.clone(name)
    machines.train("a", 1)
    with theta.open(machines.clone("c")) as repo:
        run = theta.Run(repo, "r1", push="origin")
        assert run.resume() is not None
        machines.train("b", 2)
        with pytest.raises(RefusedError, match="that are not here"):
            saved(run, 20)
    assert machines.there() == [1, 2]


def test_a_run_that_nobody_resumes_does_not_replace_another(machines: Machines) -> None:
    machines.clone("a")
    machines.train("a", 1, 2)
    machines.clone("b")
    with pytest.raises(RefusedError):
        machines.train("b", 1, resumes=False)
    assert machines.there() == [1, 2]


@pytest.mark.parametrize("keep", [None, theta.last(2)])
def test_a_remote_that_is_away_does_not_end_the_training(machines: Machines, keep: Any) -> None:
    away = machines.remote.with_name("away")
    place = machines.clone("a")
    machines.train("a", 1, keep=keep)
    machines.remote.rename(away)
    with theta.open(place) as repo:
        run = theta.Run(repo, "r1", push="origin", keep=keep)
        with pytest.warns(RuntimeWarning, match="goes on with the steps that are here"):
            assert run.resume() is not None
        with pytest.warns(RuntimeWarning, match="is stored, but was not pushed"):
            saved(run, 2, 3, 4)
        with pytest.raises(GitFailedError) as caught:
            run.close()
        assert "All steps of run r1 are stored here" in "".join(caught.value.__notes__)
    away.rename(machines.remote)
    assert machines.there() == [1]
    assert machines.train("a", 5, keep=keep) == 4
    assert machines.there() == ([4, 5] if keep else [1, 2, 3, 4, 5])


def test_the_end_of_the_run_pushes_what_was_not(machines: Machines) -> None:
    away = machines.remote.with_name("away")
    place = machines.clone("a")
    with theta.open(place) as repo, theta.Run(repo, "r1", push="origin") as run:
        machines.remote.rename(away)
        with pytest.warns(RuntimeWarning, match="was not pushed"):
            saved(run, 1)
        away.rename(machines.remote)
    assert machines.there() == [1]


def test_a_new_clone_does_not_begin_anew_because_the_remote_is_away(machines: Machines) -> None:
    place = machines.clone("a")
    machines.remote.rename(machines.remote.with_name("away"))
    with theta.open(place) as repo, pytest.raises(GitFailedError):
        theta.Run(repo, "r1", push="origin").resume()


def test_a_run_that_begins_anew_does_not_replace_the_one_before(machines: Machines) -> None:
    """The remote was known to have the steps of before, which counted as leave to replace them."""
    place = machines.clone("a")
    machines.train("a", 1, 2, 3)
    git = Repo(place).git
    git("update-ref", "-d", RUN)
    with pytest.raises(RefusedError):
        machines.train("a", 1, resumes=False)
    git("update-ref", "-d", RUN)
    assert machines.train("a", 4) == 3
    with theta.open(place) as repo:
        run = theta.Run(repo, "r1", push="origin")
        saved(run, 5)
        git("update-ref", "-d", RUN)
        with pytest.raises(RefusedError):
            saved(run, 6)
    assert machines.there() == [1, 2, 3, 4, 5]


def test_steps_here_stay_when_somebody_replaced_the_run_of_the_remote(machines: Machines) -> None:
    place = machines.clone("a")
    machines.train("a", 100, 200)
    with theta.open(machines.clone("b")) as repo:
        saved(theta.Run(repo, "r1"), 1)
    Repo(place.with_name("b")).git("push", "--quiet", "--force", "origin", f"{RUN}:{RUN}")
    with pytest.raises(RefusedError):
        machines.train("a", 300)
    with theta.open(place) as repo:
        assert [step.step for step in theta.Run(repo, "r1").steps()] == [100, 200]


def test_a_refspec_of_the_user_does_not_move_the_run(machines: Machines) -> None:
    """Git moved the run here as it fetched what was to be compared with it."""
    for name in "ab":
        machines.clone(name)
    machines.train("a", 1)
    machines.train("b", 2)
    place = machines.remote.with_name("a")
    Repo(place).git("config", "--add", "remote.origin.fetch", "+refs/theta/runs/*:refs/theta/runs/*")
    with theta.open(place) as repo:
        saved(theta.Run(repo, "r1"), 20, 30)
        with pytest.raises(RefusedError):
            theta.Run(repo, "r1", push="origin").resume()
        assert [step.step for step in theta.Run(repo, "r1").steps()] == [1, 20, 30]


def test_a_shallow_clone_of_a_run_goes_on(machines: Machines) -> None:
    machines.clone("a")
    machines.train("a", 1, 2, 3)
    place = machines.clone("b")
    Repo(place).git("fetch", "--quiet", "--depth=1", f"file://{machines.remote}", f"{RUN}:{RUN}")
    assert machines.train("b", 4) == 3
    with theta.open(place) as repo:
        assert [step.step for step in theta.Run(repo, "r1").steps()] == [3, 4]
    assert machines.there() == [1, 2, 3, 4]


def test_a_folder_is_a_remote_wherever_the_program_is(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machines.clone("a")
    monkeypatch.chdir(machines.remote.parent)
    with theta.open(place) as repo, theta.Run(repo, "r1", push="remote") as run:
        saved(run, 1)
    assert machines.there() == [1]


def test_a_step_is_stored_while_the_remote_is_slow(machines: Machines) -> None:
    """It waited for the push of the one before: a job that was killed lost all steps since then."""
    place, go = machines.clone("a"), machines.remote.with_name("go")
    program = machines.remote.with_name("receive")
    program.write_text(f'#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexec git-receive-pack "$@"\n')
    program.chmod(0o755)
    Repo(place).git("config", "remote.origin.receivepack", str(program))
    with theta.open(place) as repo, theta.Run(repo, "r1", push="origin") as run:
        for step in (1, 2, 3):
            run.save(step, state(step)).result()
        theta.Run(repo, "r2").save(1, state(1)).result()
        assert [step.step for step in run.steps()] == [1, 2, 3]
        assert machines.there() == []
        go.touch()
    assert machines.there() == [1, 2, 3]


def test_a_try_without_push_does_not_count_as_what_was_pushed(machines: Machines) -> None:
    """The run was removed and begun anew by a program without push=; the next one replaced all steps."""
    for name in "ab":
        machines.clone(name)
    machines.train("b", 1, 2, 3)
    machines.train("a")
    place = machines.remote.with_name("a")
    Repo(place).git("update-ref", "-d", RUN)
    with theta.open(place) as repo, theta.Run(repo, "r1") as run:
        saved(run, 1)
    for resumes in (False, True):
        with pytest.raises(RefusedError):
            machines.train("a", 20, resumes=resumes)
    assert machines.there() == [1, 2, 3]


def test_a_run_that_was_pruned_on_the_remote_goes_on(machines: Machines) -> None:
    """The remote had fewer steps, all of them known, which was taken for steps that are not here."""
    mate = machines.clone("mate")
    with theta.open(machines.clone("a")) as repo, theta.Run(repo, "r1", push="origin") as run:
        saved(run, 1, 2, 3)
        git = Repo(mate).git
        git("fetch", "--quiet", "origin", f"+{RUN}:{RUN}")
        with theta.open(mate) as there:
            theta.Run(there, "r1").prune(theta.last(1))
        git("push", "--quiet", "origin", f"+{RUN}:{RUN}")
        assert machines.there() == [3]
        saved(run, 4)
    assert machines.there()[-2:] == [3, 4]


def test_what_the_remote_said_is_told(machines: Machines) -> None:
    place = machines.clone("a")
    hook = machines.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'the quota is used up, ask admin' >&2\nexit 1\n")
    hook.chmod(0o755)
    with theta.open(place) as repo:
        run = theta.Run(repo, "r1", push="origin")
        with pytest.warns(RuntimeWarning, match="the quota is used up, ask admin"):
            saved(run, 1)
        with pytest.raises(GitFailedError) as caught:
            run.close()
    assert "the quota is used up" in "".join(caught.value.__notes__)


def test_a_job_with_nothing_left_to_do_pushes_what_the_one_before_could_not(machines: Machines) -> None:
    away = machines.remote.with_name("away")
    place = machines.clone("a")
    machines.remote.rename(away)
    with theta.open(place) as repo:
        run = theta.Run(repo, "r1", push="origin")
        with pytest.warns(RuntimeWarning, match="was not pushed"):
            saved(run, 1, 2)
        with pytest.raises(GitFailedError):
            run.close()
    away.rename(machines.remote)
    assert machines.train("a") == 2
    assert machines.there() == [1, 2]


@pytest.mark.parametrize("remote", ["orgin", "", "  ", True, 5, "-x"])
def test_what_can_be_no_remote_is_told_at_once(machines: Machines, remote: Any) -> None:
    with theta.open(machines.clone("a")) as repo, pytest.raises(UsageError) as caught:
        theta.Run(repo, "r1", push=remote)
    if remote == "orgin":
        assert caught.value.hint == "did you mean origin?"


def test_a_path_and_a_url_are_remotes(machines: Machines) -> None:
    with theta.open(machines.clone("a")) as repo:
        for remote in (str(machines.remote), f"file://{machines.remote}"):
            with theta.Run(repo, "r1", push=remote) as run:
                last = run.resume()
                saved(run, last.step + 1 if last is not None and last.step is not None else 1)
    assert machines.there() == [1, 2]


def test_a_process_that_pushes_late_does_not_go_back(machines: Machines) -> None:
    """Ranks have one repository: another one pushed the next step since this one looked."""
    place = machines.clone("a")
    machines.train("a", 1)
    with theta.open(place) as repo, theta.open(place) as other:
        late = PushedRun("r1", "origin")
        late.push(Session.here(place))
        newer = theta.Run(other, "r1", push="origin")
        saved(newer, 2, 3)
        late.push(Session.here(place))
        assert machines.there() == [1, 2, 3]
        theta.Run(repo, "r1", push="origin").close()
    assert machines.there() == [1, 2, 3]


def test_a_rank_that_saves_nothing_does_not_fail_with_the_remote(machines: Machines) -> None:
    place = machines.clone("a")
    machines.train("a", 1)
    with theta.open(place) as repo:
        rank = theta.Run(repo, "r1", push="origin")
        assert rank.resume() is not None
        saved(theta.Run(repo, "r1"), 2)
        machines.remote.rename(machines.remote.with_name("away"))
        with pytest.warns(RuntimeWarning, match="was not pushed"):
            rank.close()


def test_a_refused_push_is_told_though_the_run_is_not_closed(machines: Machines) -> None:
    """As the error of a save is: the program ended, and nobody knew."""
    for name in "ab":
        machines.clone(name)
    machines.train("b", 1)
    program = (
        "import sys, numpy as np, theta\n"
        "run = theta.Run(theta.open(sys.argv[1]), 'r1', push='origin')\n"
        "run.save(5, {'m.npz': {'w': np.zeros(3)}}).result()\n"
    )
    command = [sys.executable, "-c", program, str(machines.remote.with_name("a"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "origin has steps of run r1 that are not here" in done.stderr
    assert machines.there() == [1]
