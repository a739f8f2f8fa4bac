"""Training runs: a commit a step, of which some are kept."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import theta
from tests.compat.agreement import assert_commit
from tests.compat.inprocess import copied
from tests.compat.story import MODEL
from tests.support import Repo
from theta import _notes
from theta.api.policies import Either
from theta.errors import NotFoundError, UsageError
from theta.porcelain.workspace.journal import Journal

RUN = "refs/theta/runs/r1"


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    """A copy of ``template`` that the test may change."""
    return copied(template, tmp_path / "repo")


def state(step: int) -> dict[str, Any]:
    return {"m.safetensors": {"w": np.full((32, 16), step, np.float32), "fixed": np.arange(64)}}


def saved(run: theta.Run, step: int, **metrics: float) -> None:
    """Save a step and wait for it, so that none is skipped."""
    run.save(step, state(step), metrics).result()


def numbers(run: theta.Run) -> list[int | None]:
    return [item.step for item in run.steps()]


@pytest.mark.parametrize("number", [3.0, 2.5, "3", "a\nb", None, np.ones(2)])
def test_a_number_that_would_not_be_read_back_is_no_step(opened: theta.Repository, number: Any) -> None:
    with theta.Run(opened, "r1", every=theta.steps(1)) as run:
        for save in (run.step, run.save):
            with pytest.raises(UsageError, match="the number of a step is a whole one, not"):
                save(number, state(1))
    assert run.resume() is None
    if number is not None:
        with pytest.raises(UsageError, match="the number of a step"):
            opened.save(state(1), ref="steps", step=number)


@pytest.mark.parametrize("number", [3, np.int64(3), np.array(3), np.uint8(3)])
def test_a_number_of_any_whole_type_is_resumed(opened: theta.Repository, number: Any) -> None:
    with theta.Run(opened, "r1") as run:
        run.step(number, state(3))
    resumed = run.resume()
    assert resumed is not None
    assert resumed.step == 3


@pytest.mark.parametrize(
    "options",
    [
        {"every": 5},
        {"every": lambda step: True},
        {"every": theta.last(2)},
        {"every": theta.steps},
        {"every": theta.steps(2) | theta.last(2)},
        {"keep": 3},
        {"keep": theta.seconds(3)},
        {"keep": theta.last(2) | theta.best("loss") | 3},
    ],
)
def test_no_policy_is_refused_before_the_training_begins(
    opened: theta.Repository, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="cannot be") as caught:
        theta.Run(opened, "r1", **options)
    assert caught.value.hint.startswith(next(iter(options)))


def test_a_run_has_an_open_repository_and_a_name_of_text(opened: theta.Repository, repo: Repo) -> None:
    with pytest.raises(UsageError, match="a run cannot be in"):
        theta.Run(str(repo.path), "r1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a run cannot be named 3"):
        theta.Run(opened, 3)  # type: ignore[arg-type]
    assert repr(theta.Run(opened, "r1")) == f"Run({opened!r}, 'r1')"


@pytest.mark.parametrize(
    ("metrics", "said"), [(0.5, "numbers by their names, not 0.5"), ({1: 2}, "not by 1")]
)
def test_metrics_are_numbers_by_names_of_text(opened: theta.Repository, metrics: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        theta.Run(opened, "r1").step(1, state(1), metrics)
    with pytest.raises(UsageError, match=said):
        opened.save(state(1), ref="measured", metrics=metrics)


@pytest.mark.parametrize(
    ("policy", "given"),
    [
        (theta.steps, 1.5),
        (theta.steps, "2"),
        (theta.last, 2.0),
        (theta.last, None),
        (theta.seconds, "9"),
        (theta.best, ""),
        (theta.best, 3),
    ],
)
def test_a_policy_takes_numbers_and_names_alone(policy: Any, given: Any) -> None:
    with pytest.raises(UsageError, match=rf"theta\.{policy.__name__}\("):
        policy(given)


@pytest.mark.parametrize("framework", ["tf", "pt", None])
def test_no_arrays_are_loaded_of_an_unknown_framework(opened: theta.Repository, framework: Any) -> None:
    opened.save({"m.pt": {"w": np.ones(3)}, "m.npz": {"w": np.ones(3)}}, ref="made", wait=True)
    for path in ("m.pt", "m.npz"):
        with pytest.raises(UsageError, match="there are no arrays of"):
            opened.load("made", path, framework=framework)


def test_each_step_is_a_commit_with_its_metrics(opened: theta.Repository, repo: Repo) -> None:
    with theta.Run(opened, "r1") as run:
        saved(run, 1, eval_loss=2.5)
        saved(run, 2, eval_loss=1.25, accuracy=0.5)
    assert opened.runs() == ["r1"]
    first, second = run.steps()
    assert (first.step, second.step) == (1, 2)
    assert second.metrics == {"eval_loss": 1.25, "accuracy": 0.5}
    assert repo.git("rev-parse", RUN) == second.commit
    assert repo.git("branch", "--list", "--format=%(refname:short)") == "main"
    assert_commit(repo, RUN)


def test_a_run_goes_on_where_it_was(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1")
    assert run.resume() is None
    saved(run, 500, eval_loss=1.83)
    resumed = theta.Run(opened, "r1").resume()
    assert resumed is not None
    assert (resumed.step, resumed.metrics) == (500, {"eval_loss": 1.83})
    assert (resumed["m.safetensors"]["w"].numpy() == 500).all()


def test_a_step_is_a_mapping_of_checkpoints_which_are_opened_one_by_one(
    opened: theta.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = theta.Run(opened, "r1")
    files = {"b.safetensors": {"w": np.ones(3)}, "a/o.npz": {"x": np.zeros(2)}, "config.json": "{}"}
    run.save(1, files).result()
    run.save(2, {"config.json": "{}"}, whole=True).result()
    found = run.resume(1)
    assert found is not None
    with monkeypatch.context() as patch:
        patch.delattr(theta.Repository, "__getitem__")
        assert list(found) == ["a/o.npz", "b.safetensors"]
        assert ("a/o.npz" in found, "config.json" in found, len(found)) == (True, False, 2)
    assert {path: list(one) for path, one in found.items()} == {"a/o.npz": ["x"], "b.safetensors": ["w"]}
    assert found.get("none.npz") is None
    with pytest.raises(KeyError, match=r"no checkpoint none\.npz"):
        found["none.npz"]
    assert run.resume(2)  # it has a file, and no checkpoint
    assert found == run.resume(1)


def test_steps_that_are_not_kept_go_and_the_others_stay_as_they_were(
    opened: theta.Repository, repo: Repo
) -> None:
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0, 6: 6.0}
    with theta.Run(opened, "r1", keep=theta.last(2) | theta.best("loss")) as run:
        for step, loss in losses.items():
            saved(run, step, loss=loss)
            assert repo.git("rev-parse", RUN) == run.steps()[-1].commit
    assert numbers(run) == [2, 5, 6]
    for item in run.steps():
        assert item.metrics == {"loss": losses[item.step or 0]}
        assert (opened[f"{item.commit}:m.safetensors"]["w"].numpy() == item.step).all()
        assert_commit(repo, item.commit)
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--prune=now", "-q")
    repo.fsck()
    assert repo.theta("fsck", "--read-data").returncode == 0


def test_what_is_kept_holds_nothing_of_what_went(opened: theta.Repository, repo: Repo) -> None:
    """A later step is stored relative to the one before it, and does not need its commit."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((256, 256)).astype(np.float32)
    with theta.Run(opened, "r1", keep=theta.last(1)) as run:
        for step in range(4):
            weights[:4] += np.float32(0.01)
            run.save(step, {"m.safetensors": {"w": weights}}).result()
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--prune=now", "-q")
    assert repo.git("rev-list", "--count", RUN) == "1"
    assert (opened[f"{RUN}:m.safetensors"]["w"].numpy() == weights).all()


@pytest.mark.parametrize(
    ("policy", "due"),
    [
        (theta.steps(3), [3, 6]),
        (theta.steps(3) | theta.steps(4), [3, 4, 6]),
    ],
)
def test_steps_that_are_due(opened: theta.Repository, policy: Any, due: list[int]) -> None:
    with theta.Run(opened, "r1", every=policy) as run:
        for step in range(1, 8):
            future = run.step(step, state(step))
            assert (future is not None) == (step in due)
            if future is not None:
                future.result()
    assert numbers(run) == due


def test_time_that_passed_is_a_reason_to_save() -> None:
    now = [0.0]
    policy = theta.seconds(10, clock=lambda: now[0])
    asked = []
    for now[0] in (5.0, 10.0, 11.0, 19.9, 20.0):
        asked.append(policy.is_due(0))
    assert asked == [False, True, False, False, True]


def test_the_best_steps_are_compared_by_a_metric(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1")
    for step, accuracy in ((1, 0.5), (2, 0.75), (3, 0.75), (4, float("nan"))):
        saved(run, step, accuracy=accuracy)
    found = run.steps()
    assert theta.best("accuracy", highest=True).kept(found) == {found[1].commit}
    assert theta.best("accuracy", 9).kept(found) == {item.commit for item in found[:3]}
    assert theta.best("nothing").kept(found) == {item.commit for item in found}
    assert theta.steps(2).kept(found) == {found[1].commit, found[3].commit}
    assert Either((theta.last(1), theta.steps(3))).kept(found) == {found[2].commit, found[3].commit}


def test_a_metric_that_no_step_tells_lets_go_of_none(opened: theta.Repository) -> None:
    run = theta.Run(opened, "r1", keep=theta.best("acc"))
    for step in (1, 2):
        saved(run, step, loss=1.0)
    assert numbers(run) == [1, 2]


@pytest.mark.parametrize(
    "value", [np.float64(0.5), np.float32(0.5), np.array(0.5, ml_dtypes.bfloat16), np.True_, True, 1]
)
def test_scalars_are_metrics(opened: theta.Repository, repo: Repo, value: Any) -> None:
    run = theta.Run(opened, "r1", keep=theta.best("loss"))
    saved(run, 1, loss=value)
    saved(run, 2, loss=2.0)
    assert [step.metrics["loss"] for step in run.steps()] == [float(value), 2.0]
    assert float(repo.git("log", "-1", "--skip=1", "--format=%b", run.ref).rpartition("=")[2]) == float(value)


def test_metrics_of_numpy_that_were_stored_as_they_show_themselves_are_read(
    opened: theta.Repository, repo: Repo
) -> None:
    text = "step 1\n\nTheta-Step: 1\nTheta-Metric: loss=np.float64(0.25)\nTheta-Metric: acc=np.x(1)"
    repo.git("update-ref", "refs/theta/runs/r1", repo.git("commit-tree", "HEAD^{tree}", "-m", text))
    (step,) = theta.Run(opened, "r1").steps()
    assert step.metrics["loss"] == 0.25
    assert np.isnan(step.metrics["acc"])


@pytest.mark.parametrize("value", ["0.5", None, np.ones(1), np.ones(2), 1j])
def test_what_is_no_metric_is_refused_at_once(opened: theta.Repository, value: Any) -> None:
    with pytest.raises(UsageError, match="not a number"):
        theta.Run(opened, "r1").save(1, state(1), {"loss": value})


def test_a_save_waits_for_another_theta(
    opened: theta.Repository, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "patience", 0.0)
    lock = _notes.lock(repo.path / ".git" / "theta" / "lock")
    future = theta.Run(opened, "r1", keep=theta.last(1)).save(1, state(1))
    with pytest.raises(TimeoutError):
        future.result(timeout=0.3)
    lock.release()
    assert future.result().ref == "refs/theta/runs/r1"


def test_one_step_is_put_on_a_branch(opened: theta.Repository, repo: Repo) -> None:
    repo.git("branch", "published")
    run = theta.Run(opened, "r1")
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        saved(run, step, loss=loss)
    made = run.publish("published", best="loss")
    assert repo.git("rev-list", "--count", "main..published") == "1"
    assert repo.git("log", "-1", "--format=%s", "published") == "r1: step 2"
    assert opened.checkpoints("published") == ["m.safetensors", MODEL]
    assert (opened["published:m.safetensors"]["w"].numpy() == 2).all()
    assert repo.git("show", "published:code.py") == "print('hello')"
    assert_commit(repo, "published")
    assert run.publish("published", step=3).parent == made.commit
    with pytest.raises(NotFoundError):
        run.publish("published", step=7)
    with pytest.raises(NotFoundError):
        run.publish("published", best="nothing")
    repo.theta("switch", "-q", "published")
    assert (opened["m.safetensors"]["w"].numpy() == 3).all()


def test_a_checkpoint_of_the_same_store_gets_one_of_its_own(opened: theta.Repository, repo: Repo) -> None:
    opened.save({"a/b.safetensors": {"w": np.ones(4)}}, ref="branch", wait=True)
    store = opened.save({"a%2Fb.safetensors": {"w": np.zeros(4)}}, ref=RUN).result()
    assert store.ref == RUN
    theta.Run(opened, "r1").publish("branch")
    assert opened.checkpoints("branch") == ["a%2Fb.safetensors", "a/b.safetensors"]
    assert_commit(repo, "branch")
    assert (opened["branch:a/b.safetensors"]["w"].numpy() == 1).all()
    assert (opened["branch:a%2Fb.safetensors"]["w"].numpy() == 0).all()


def test_each_step_is_pushed(opened: theta.Repository, repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    with theta.Run(opened, "r1", keep=theta.last(1), push="origin") as run:
        saved(run, 1)
        saved(run, 2)
    assert repo.git("ls-remote", "origin", RUN).split() == [run.steps()[-1].commit, RUN]
    with theta.open(tmp_path / "remote.git") as remote:
        assert (remote[f"{RUN}:m.safetensors"]["w"].numpy() == 2).all()


def test_the_command_line_lists_runs_and_steps(opened: theta.Repository, repo: Repo) -> None:
    none = repo.theta("runs")
    assert none.stdout == ""
    assert "theta.Run(repo, " in none.stderr
    assert none.stderr.count("\n") == 1
    assert repo.theta("--quiet", "runs").stderr == repo.theta("runs", "--json").stderr == ""
    run = theta.Run(opened, "r1")
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        saved(run, step, loss=loss)
    assert repo.theta("runs").stdout.startswith("r1  3 steps, the last 3 of ")
    rows = repo.theta("runs", "r1").stdout.splitlines()
    assert rows[0].split() == ["step", "commit", "saved", "loss"]
    assert [(row.split()[0], row.split()[-1]) for row in rows[1:]] == [("1", "3"), ("2", "1"), ("3", "2")]
    ranked = repo.theta("runs", "r1", "--sort", "loss").stdout.splitlines()
    assert [row.split()[0] for row in ranked[1:]] == ["2", "3", "1"]
    told = json.loads(repo.theta("runs", "r1", "--best", "loss", "--highest", "--json").stdout)
    (best,) = told["theta.runs/v1"]["r1"]
    assert (best["step"], best["metrics"], best["commit"]) == (1, {"loss": 3.0}, run.steps()[0].commit)
    assert "there is no run r2" in repo.theta("runs", "r2", code=None).stderr
    assert "no step of the run tells acc" in repo.theta("runs", "r1", "--best", "acc", code=None).stderr
    assert "steps are those of one run" in repo.theta("runs", "--best", "loss", code=2).stderr


def test_a_branch_that_was_saved_as_a_run_is_named(opened: theta.Repository, repo: Repo) -> None:
    """``save(ref="runs/b")`` makes a branch: ``theta runs`` printed nothing, and told nothing of it."""
    opened.save({"m.safetensors": {"w": np.ones(4)}}, ref="runs/b", wait=True)
    hint = 'hint: runs/b is a branch; theta.Run(repo, "b") begins a run\n'
    assert repo.theta("runs").stderr == hint
    assert repo.theta("runs", "b", code=13).stderr == f"error: there is no run b\n{hint}"
    assert "begins a run" not in repo.theta("runs", "other", code=13).stderr.replace(hint, "")
    opened.save({"m.safetensors": {"w": np.ones(4)}}, ref=RUN, wait=True)
    assert repo.theta("runs").stdout.startswith("r1  1 step, the last of 2")
    assert "'theta runs' lists them" in repo.theta("runs", "other", code=13).stderr


@pytest.fixture
def four(opened: theta.Repository, repo: Repo) -> theta.Run:
    """A run of four steps with the losses 3, 1, 2, 1."""
    run = theta.Run(opened, "r1")
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.0)):
        saved(run, step, loss=loss)
    return run


def first_words(text: str) -> list[str]:
    return [row.split()[0] for row in text.splitlines()]


def test_the_command_line_finds_prunes_and_publishes_steps(four: theta.Run, repo: Repo) -> None:
    assert first_words(repo.theta("runs", "show", "r1").stdout) == ["step", "1", "2", "3", "4"]
    assert repo.theta("runs", "list").stdout == repo.theta("runs").stdout
    assert first_words(repo.theta("runs", "best", "r1", "loss").stdout) == ["step", "2"]
    assert first_words(repo.theta("runs", "best", "r1", "loss", "-n", "3").stdout) == ["step", "2", "4", "3"]
    told = json.loads(repo.theta("runs", "best", "--highest", "--json", "r1", "loss").stdout)
    assert [step["step"] for step in told["theta.runs/v1"]["r1"]] == [1]
    said = repo.theta("runs", "publish", "r1", "out", "--best", "loss", "--highest").stdout
    assert said.startswith("out: ")
    assert "r1: step 1" in said
    assert repo.git("log", "-1", "--format=%s", "out") == "r1: step 1"
    repo.theta("runs", "publish", "-q", "r1", "out", "--step", "3")
    assert repo.git("log", "-1", "--format=%s", "out") == "r1: step 3"
    dry = repo.theta("runs", "prune", "r1", "--last", "1", "--highest", "loss", "--dry-run").stdout
    assert first_words(dry) == ["step", "2", "3"]
    assert numbers(four) == [1, 2, 3, 4]
    said = repo.theta("runs", "prune", "r1", "--last", "1", "--best", "loss:1").stdout
    assert said == "r1: 2 steps went, 2 stay\n"
    assert numbers(four) == [2, 4]
    assert repo.theta("runs", "prune", "r1", "--every", "2").stdout == "r1: no steps went, 2 stay\n"
    assert repo.theta("runs", "prune", "r1", "--every", "5").stdout == "r1: 1 step went, 1 stay\n"
    repo.fsck()


_REFUSED: list[tuple[list[str], int | None, str]] = [
    (["prune", "r1"], 2, "say which steps stay"),
    (["prune", "r1", "--last", "-1"], 2, "Invalid value for '--last'"),
    (["prune", "r1", "--best", "acc"], None, "no step of the run tells acc"),
    (["prune", "r1", "--highest", "loss:0"], 2, "loss:0 keeps no step"),
    (["prune", "r2", "--last", "1"], None, "there is no run r2"),
    (["best", "r1"], 2, "Missing argument"),
    (["best", "r1", "acc"], None, "no step of the run tells acc"),
    (["best", "r1", "loss", "-n", "0"], 2, "Invalid value for '-n'"),
    (["publish", "r1", "main"], None, "checked out"),
    (["publish", "r1", "a..b"], 2, "a branch cannot be named"),
    (["publish", "r1", "out", "--step", "9"], None, "run r1 has no step 9"),
    (["publish", "r1", "out", "--step", "1", "--best", "loss"], 2, "do not go together"),
    (["publish", "r1", "out", "--highest"], 2, "name the metric"),
]


def test_what_runs_refuse_on_the_command_line(four: theta.Run, repo: Repo) -> None:
    before = repo.git("for-each-ref")
    for args, code, said in _REFUSED:
        assert said in repo.theta("runs", *args, code=code).stderr
    assert repo.git("for-each-ref") == before


def test_log_shows_the_steps_of_a_run(four: theta.Run, repo: Repo) -> None:
    assert repo.theta("log", "--run", "r1", "--format=%s").stdout.split("\n")[:2] == ["step 4", "step 3"]
    ranked = repo.theta("log", "--run", "r1", "--sort", "loss", "--format=%s", "-n", "3").stdout
    assert ranked.splitlines() == ["step 2", "step 4", "step 3"]
    told = json.loads(repo.theta("log", "--run", "r1", "--sort", "loss", "--json").stdout)
    assert [commit["subject"] for commit in told["theta.log/v1"]] == ["step 2", "step 4", "step 3", "step 1"]
    stat = repo.theta("log", "--run", "r1", "--stat", "--oneline", "-n1").stdout
    assert "m.safetensors | " in stat
    assert "there is no run r2" in repo.theta("log", "--run", "r2", code=None).stderr
    assert "orders the steps of a run" in repo.theta("log", "--sort", "loss", code=2).stderr
    assert "tells acc" in repo.theta("log", "--run", "r1", "--sort", "acc", code=None).stderr


def test_the_words_of_runs_explain_themselves(repo: Repo) -> None:
    for word in ("best", "prune", "publish"):
        for args in (("runs", word, "--help"), ("help", "runs", word)):
            assert repo.theta(*args).stdout.startswith(f"usage: theta runs {word} [OPTIONS] NAME")
    assert "theta runs prune" in repo.theta("runs", "--help").stdout


@pytest.mark.parametrize("name", ["", "/a", "-a", "a..b", "a/"])
def test_names_that_no_run_can_have(opened: theta.Repository, name: str) -> None:
    with pytest.raises(UsageError):
        theta.Run(opened, name).save(1, state(1)).result()


@pytest.mark.parametrize("policy", [theta.steps, theta.seconds, theta.last, lambda n: theta.best("x", n)])
def test_policies_of_nothing_are_refused(policy: Any) -> None:
    with pytest.raises(UsageError):
        policy(0)


_LOOP = """
import sys, time
import numpy as np
import theta

with theta.open(sys.argv[1]) as repo, theta.Run(repo, "r1", every=theta.preempted()) as run:
    for step in range(100_000):
        run.step(step, {"m.safetensors": {"w": np.full((64, 64), step, np.float32)}})
        if step == 0:
            print("begun", flush=True)
        if run.preempted:
            break
        time.sleep(0.001)
"""


def test_a_process_that_is_told_to_end_saves_its_step(repo: Repo, opened: theta.Repository) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_LOOP), str(repo.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    (step,) = theta.Run(opened, "r1").steps()
    assert (opened[f"{RUN}:m.safetensors"]["w"].numpy() == step.step).all()


def test_what_others_stored_is_committed_as_one_step(
    opened: theta.Repository, repo: Repo, tmp_path: Path
) -> None:
    """As ranks do it: each stores a file, from a process of its own, and one of them commits all."""
    run = theta.Run(opened, "r1")
    saved(run, 1)
    with theta.open(repo.path) as other:
        stored = theta.Run(other, "r1").store("m.safetensors", state(2)["m.safetensors"])
    own = run.store("part.safetensors", {"x": np.arange(5)})
    assert repo.git("rev-list", "--count", RUN) == "1"
    again = pickle.loads(pickle.dumps(stored))
    run.save(2, {"m.safetensors": again, "part.safetensors": own, "twin.safetensors": own}).result()
    found = run.resume()
    assert found is not None
    assert (found["m.safetensors"]["w"].numpy() == 2).all()
    assert found["twin.safetensors"]["x"].numpy().tolist() == [0, 1, 2, 3, 4]
    assert_commit(repo, RUN)
    with pytest.raises(UsageError, match="is no checkpoint to store by itself"):
        run.store("note.txt", "words")


def test_gc_at_once_waits_for_the_commit_of_what_was_stored(opened: theta.Repository, repo: Repo) -> None:
    """Nothing names what ranks store before one of them commits it: it went, and the step was lost."""
    run = theta.Run(opened, "r1")
    stored = run.store("w.safetensors", state(1)["m.safetensors"])
    refused = repo.theta("gc", "--prune=now", code=None)
    assert refused.returncode and "another theta is at work" in refused.stderr
    repo.git("config", "gc.pruneExpire", "now")
    assert repo.theta("gc", code=None).returncode
    assert repo.theta("gc", "--prune=2.weeks.ago").returncode == 0
    run.save(1, {"w.safetensors": stored}).result()
    assert repo.theta("gc").returncode == 0
    assert (opened[f"{RUN}:w.safetensors"]["w"].numpy() == 1).all()


def refs_of_stored(repo: Repo) -> list[str]:
    return repo.git("for-each-ref", "--format=%(refname)", "refs/theta/stored/").split()


def test_what_was_stored_outlives_gits_own_collection(opened: theta.Repository, repo: Repo) -> None:
    """A rank may have ended, on another machine, before another one commits."""
    run = theta.Run(opened, "r1")
    stored = run.store("w.safetensors", state(1)["m.safetensors"])
    repo.git("repack", "-adq")
    repo.git("gc", "-q", "--prune=now")
    assert not [*(repo.path / ".git/objects/pack").glob("*.keep")]
    old = repo.git("rev-parse", *refs_of_stored(repo))
    repo.git("update-ref", "refs/theta/stored/00-1", old)
    run.save(1, {"w.safetensors": stored}).result()
    assert refs_of_stored(repo) == []
    assert (opened[f"{RUN}:w.safetensors"]["w"].numpy() == 1).all()
    repo.git("fsck", "--connectivity-only")


def test_gc_at_once_does_not_wait_for_a_process_that_ended(opened: theta.Repository, repo: Repo) -> None:
    stored = theta.Run(opened, "r1").store("w.safetensors", state(1)["m.safetensors"])
    (mark,) = (repo.path / ".git/theta/stored").iterdir()
    assert mark.name.startswith(f"{stored.manifest}-")
    pid, started, *where = mark.read_text().split()
    mark.write_text(" ".join((pid, f"{started}0", *where)))
    assert repo.git("rev-parse", f"{refs_of_stored(repo)[0]}:manifest") == stored.manifest
    repo.theta("gc", "--prune=now")
    assert not mark.exists()
    assert refs_of_stored(repo) == []
    assert repo.try_git("cat-file", "-e", stored.manifest).returncode


def test_a_store_that_failed_leaves_no_mark(opened: theta.Repository, repo: Repo) -> None:
    with pytest.raises(UsageError):
        theta.Run(opened, "r1").store("../w.safetensors", state(1)["m.safetensors"])
    assert not list((repo.path / ".git/theta/stored").iterdir())


def test_a_run_is_read_by_its_name_as_a_revision_is(four: theta.Run, opened: theta.Repository) -> None:
    """The name that 'theta apply' takes was no revision for the rest."""
    _, second, *_, last = four.steps()
    for name, step in (("r1", last), (f"r1@{second.step}", second)):
        wanted = opened.load(step.commit, "m.safetensors")
        for found in (opened.load(name, "m.safetensors"), opened[f"{name}:m.safetensors"].load()):
            assert found.keys() == wanted.keys()
            assert all(np.array_equal(found[key], value) for key, value in wanted.items())
        assert opened.checkpoints(name) == ["m.safetensors"]
    with pytest.raises(theta.errors.NotFoundError, match="has no step 99"):
        opened.load("r1@99", "m.safetensors")
    saved(theta.Run(opened, "a@b"), 7, loss=1.0)
    for name in ("a@b", "a@b@7"):
        assert opened.checkpoints(name) == ["m.safetensors"]


def test_a_clone_tells_how_to_get_the_runs_of_its_remote(four: theta.Run, repo: Repo, tmp_path: Path) -> None:
    clone = repo.clone(tmp_path / "clone")
    told = clone.theta("runs").stderr
    wanted = told.partition("'")[2].rpartition("'")[0]
    clone.theta(*shlex.split(wanted)[1:])
    assert clone.theta("runs").stdout == repo.theta("runs").stdout
