"""Followers keep folders at the newest step of a trainer's run, over a path and over http."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import theta
from tests.support import Repo
from tests.support.confined import as_root, tmpfs
from tests.support.http_git import served
from theta import _fs
from theta.errors import (
    ChangedWhileReadError,
    ThetaError,
    UntrustedOwnerError,
    UsageError,
    WouldOverwriteError,
)
from theta.porcelain.replicas import applying, following
from theta.porcelain.replicas.following import Followed, Follower, FollowRequest

MODEL = "m.safetensors"
FILTERED = {"uploadpack.allowFilter": "true", "uploadpack.allowAnySHA1InWant": "true"}


def values(step: int) -> dict[str, Any]:
    """Weights of which one tensor never changes, and one does so a little at each step."""
    frozen = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
    moving = np.random.default_rng(1).standard_normal((300, 200)).astype(np.float32)
    moving[: step * 3] += np.float32(1e-3)
    return {"frozen": frozen, "moving": moving, "step": np.array([step])}


def save(repo: Repo, *numbers: int) -> None:
    """Save steps of run r1."""
    with theta.open(repo.path) as opened, theta.Run(opened, "r1") as run:
        for step in numbers:
            run.save(step, {MODEL: values(step), "config.json": str(step)}, {"loss": 1 / step}).result()


@pytest.fixture
def trainer(tmp_path: Path) -> Repo:
    """A repository in which a run goes on, and that sends single objects."""
    repo = Repo.create(tmp_path / "remotes" / "trainer")
    for key, value in FILTERED.items():
        repo.git("config", key, value)
    return repo


@pytest.fixture(params=["path", "http"])
def remote(trainer: Repo, request: pytest.FixtureRequest) -> Iterator[str]:
    """The trainer's repository as followers name it."""
    if request.param == "path":
        yield str(trainer.path)
        return
    with served(trainer.path.parent) as (url, _):
        yield f"{url}/trainer/.git"


def holds(place: Path, step: int) -> bool:
    """Return whether the folder has the files of a step, bit for bit."""
    found = (place / MODEL).read_bytes()
    there = all(value.tobytes() in found for value in values(step).values())
    return there and (place / "config.json").read_text() == str(step)


def request(remote: str, place: Path, **more: Any) -> FollowRequest:
    return FollowRequest(remote, "r1", place, **more)


def bytes_of(place: Path) -> int:
    """Bytes of all packs of the follower."""
    packs = place / ".theta-applied" / "repository.git" / "objects" / "pack"
    return sum(pack.stat().st_size for pack in packs.glob("*.pack"))


def test_a_follower_is_brought_to_each_step_and_fetches_what_differs(
    trainer: Repo, remote: str, tmp_path: Path
) -> None:
    follower = Follower(request(remote, tmp_path / "out", in_place=True))
    assert follower.look() is None  # there is no run yet
    save(trainer, 1)
    first = follower.look()
    assert first is not None
    assert (first.step.step, first.step.metrics) == (1, {"loss": 1.0})
    assert holds(tmp_path / "out", 1)
    assert follower.look() is None
    fetched = bytes_of(tmp_path / "out")
    save(trainer, 2, 3, 4, 5, 6)
    last = follower.look()
    assert last is not None
    assert last.step.step == 6  # five steps at once
    assert holds(tmp_path / "out", 6)
    assert sorted(last.result.files[MODEL].tensors) == ["moving", "step"]
    assert bytes_of(tmp_path / "out") - fetched < fetched / 4


def test_a_follower_that_begins_anew_fetches_nothing_again(
    trainer: Repo, remote: str, tmp_path: Path
) -> None:
    save(trainer, 1, 2)
    Follower(request(remote, tmp_path / "out")).look()
    fetched = bytes_of(tmp_path / "out")
    again = Follower(request(remote, tmp_path / "out")).look()
    assert again is not None  # so that its command is run
    assert not again.result.changed
    assert bytes_of(tmp_path / "out") == fetched


def test_a_repository_of_a_folder_lets_go_of_what_no_step_needs(
    trainer: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest step stays whole, with all that it shares with the first one."""
    monkeypatch.setattr(following, "_MANY_PACKS", 4)
    follower, counts = Follower(request(str(trainer.path), tmp_path / "out")), []
    packs = tmp_path / "out" / ".theta-applied" / "repository.git" / "objects" / "pack"
    for step in range(1, 13):
        save(trainer, step)
        assert follower.look() is not None
        assert holds(tmp_path / "out", step)
        counts.append(len(list(packs.glob("*.pack"))))
    assert max(counts) < 13, counts
    assert counts[-1] == len(list(packs.glob("*.promisor"))) == len(list(packs.glob("*.idx")))
    (tmp_path / "out" / MODEL).unlink()
    Follower(request(str(trainer.path), tmp_path / "out")).look()
    assert holds(tmp_path / "out", 12)
    git = ["git", "-C", str(packs.parents[1]), "-c", "remote.origin.url=/nowhere", "fsck", "--no-dangling"]
    assert subprocess.run(git, check=False, capture_output=True).returncode == 0


def test_a_branch_is_followed_and_moves_back_too(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1, 2)
    trainer.git("update-ref", "refs/heads/served", "refs/theta/runs/r1")
    follower = Follower(FollowRequest(str(trainer.path), "served", tmp_path / "out"))
    follower.look()
    assert holds(tmp_path / "out", 2)
    trainer.git("update-ref", "refs/heads/served", "refs/theta/runs/r1~1")
    follower.look()
    assert holds(tmp_path / "out", 1)


def test_steps_that_were_dropped_from_the_run_do_no_harm(trainer: Repo, tmp_path: Path) -> None:
    """The commits of the run are others; the files of its newest step are not."""
    follower = Follower(request(str(trainer.path), tmp_path / "out"))
    with theta.open(trainer.path) as opened, theta.Run(opened, "r1", keep=theta.last(1)) as run:
        for step in (1, 2, 3):
            run.save(step, {MODEL: values(step), "config.json": str(step)}).result()
            found = follower.look()
            assert found is not None
            assert found.step.step == step
            assert holds(tmp_path / "out", step)


def test_a_repository_is_shared_by_folders_and_belongs_to_one_remote(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    shared = tmp_path / "shared.git"
    for name in ("one", "two"):
        Follower(request(str(trainer.path), tmp_path / name, repository=shared)).look()
        assert holds(tmp_path / name, 1)
        assert not (tmp_path / name / ".theta-applied" / "repository.git").exists()
    with pytest.raises(UsageError, match="is for"):
        Follower(request("elsewhere", tmp_path / "three", repository=shared)).look()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        Follower(request(str(trainer.path), tmp_path / "four", repository=tmp_path / "mine")).look()
    for remote, run in (("--upload-pack=touch x", "r1"), ("", "r1"), (str(trainer.path), "-x")):
        with pytest.raises(UsageError):
            Follower(FollowRequest(remote, run, tmp_path / "five"))


def tree_of(place: Path) -> dict[str, bytes]:
    """Path -> bytes of all files."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("marked", [False, True])
def test_a_repository_of_the_user_is_not_taken(trainer: Repo, tmp_path: Path, marked: bool) -> None:
    """Its refs, remote and locks are what they were."""
    save(trainer, 1)
    mine = tmp_path / "mine.git"
    trainer.git("clone", "-q", "--bare", str(trainer.path), str(mine))
    if marked:
        trainer.git("--git-dir", str(mine), "config", "theta.follows", str(trainer.path))
    (mine / "shallow.lock").touch()
    os.utime(mine / "shallow.lock", (1, 1))
    before = tree_of(mine)
    said = "configuration of .* was changed" if marked else "no repository that theta made"
    with pytest.raises(UsageError, match=said):
        Follower(request(str(trainer.path), tmp_path / "out", repository=mine)).look()
    assert tree_of(mine) == before
    worktree = Repo.create(tmp_path / "worktree")
    with pytest.raises(UsageError, match="no repository that theta made"):
        Follower(request(str(trainer.path), tmp_path / "out", repository=worktree.path / ".git")).look()
    assert not (tmp_path / "out" / MODEL).exists()


PROGRAMS = {
    "remote.origin.uploadpack": "touch {ran}; git-upload-pack",
    "core.sshCommand": "touch {ran}",
    "core.hooksPath": "{hooks}",
    "include.path": "{hooks}/config",
    "url.ext::touch {ran}.insteadOf": "/",
    "extensions.worktreeConfig": "true",
}


@pytest.mark.parametrize("key", PROGRAMS)
def test_a_folder_that_somebody_prepared_runs_no_program(trainer: Repo, tmp_path: Path, key: str) -> None:
    save(trainer, 1)
    place, ran, hooks = tmp_path / "out", tmp_path / "ran", tmp_path / "hooks"
    Follower(request(str(trainer.path), place)).look()
    hooks.mkdir()
    (hooks / "reference-transaction").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (hooks / "reference-transaction").chmod(0o755)
    config = place / ".theta-applied" / "repository.git" / "config"
    value = PROGRAMS[key].format(ran=ran, hooks=hooks)
    trainer.git("config", "--file", str(config), key.format(ran=ran), value)
    save(trainer, 2)
    with pytest.raises(UsageError, match="was changed"):
        Follower(request(str(trainer.path), place)).look()
    assert not ran.exists()


def test_a_hook_in_the_repository_of_a_follower_is_not_run(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    place, ran = tmp_path / "out", tmp_path / "ran"
    Follower(request(str(trainer.path), place)).look()
    hook = place / ".theta-applied" / "repository.git" / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    save(trainer, 2)
    Follower(request(str(trainer.path), place)).look()
    assert holds(place, 2)
    assert not ran.exists()


@as_root
def test_a_repository_of_another_user_is_refused_before_git_reads_it(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    Follower(request(str(trainer.path), tmp_path / "out")).look()
    place = tmp_path / "out" / ".theta-applied" / "repository.git"
    ran = tmp_path / "ran"
    trainer.git("config", "--file", str(place / "config"), "remote.origin.uploadpack", f"touch {ran}; false")
    for path in (place, *place.rglob("*")):
        os.chown(path, 1234, 4321)
    with pytest.raises(UntrustedOwnerError):
        Follower(request(str(trainer.path), tmp_path / "out")).look()
    assert not ran.exists()


def test_a_repository_is_there_when_it_is_whole(
    trainer: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that is cut short while it makes one leaves none."""
    save(trainer, 1)
    shared = tmp_path / "shared.git"

    def stop(operation: str, path: str) -> None:
        if (operation, path) == ("rename", str(shared)):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_fs, "on_step", stop)
        with pytest.raises(KeyboardInterrupt):
            Follower(request(str(trainer.path), tmp_path / "out", repository=shared)).look()
    assert not shared.exists()
    shared.mkdir()  # an empty one is taken
    Follower(request(str(trainer.path), tmp_path / "out", repository=shared)).look()
    assert holds(tmp_path / "out", 1)


def test_a_repository_is_made_where_the_user_shares_all(trainer: Repo, tmp_path: Path) -> None:
    """Git then writes more settings to a new repository."""
    save(trainer, 1)
    trainer.git("config", "--global", "core.sharedRepository", "group")
    try:
        for step in (1, 2):
            Follower(request(str(trainer.path), tmp_path / "out")).look()
            assert holds(tmp_path / "out", step)
            save(trainer, 2)
    finally:
        trainer.git("config", "--global", "--unset", "core.sharedRepository")


@as_root
def test_a_mount_is_no_repository(trainer: Repo, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "volume") as place:
        with pytest.raises(UsageError, match="is a mount"):
            Follower(request(str(trainer.path), tmp_path / "out", repository=place)).look()
        save(trainer, 1)
        (tmp_path / "link").symlink_to(place)
        Follower(request(str(trainer.path), tmp_path / "out", repository=tmp_path / "link" / "in")).look()
        assert holds(tmp_path / "out", 1)


def test_a_tag_is_followed(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    follower = Follower(FollowRequest(str(trainer.path), "refs/tags/v1", tmp_path / "out"))
    for step in (1, 2):
        save(trainer, *range(step, step + 1))
        trainer.git("tag", "-f", "-a", "-m", "release", "v1", "refs/theta/runs/r1")
        found = follower.look()
        assert found is not None
        assert found.step.commit == trainer.git("rev-parse", "v1^{commit}")
        assert holds(tmp_path / "out", step)
        assert follower.look() is None


def test_a_file_that_is_written_meanwhile_is_tried_again(
    trainer: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(trainer, 1)
    apply, tries = applying.apply, []

    def changed_once(*args: Any) -> Any:
        tries.append(args)
        if len(tries) == 1:
            raise ChangedWhileReadError("it changed meanwhile")
        return apply(*args)

    monkeypatch.setattr(applying, "apply", changed_once)
    assert next(theta.follow(trainer.path, "r1", tmp_path / "out", interval=0.01)).step.step == 1
    assert len(tries) == 2


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_a_time(trainer: Repo, tmp_path: Path, interval: float) -> None:
    with pytest.raises(UsageError, match="an interval is a time in seconds, not "):
        theta.follow(trainer.path, "r1", tmp_path / "out", interval=interval)


def test_the_repository_of_a_follower_may_be_removed(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    follower = Follower(request(str(trainer.path), tmp_path / "out"))
    follower.look()
    shutil.rmtree(tmp_path / "out" / ".theta-applied" / "repository.git")
    save(trainer, 2)
    follower.look()
    assert holds(tmp_path / "out", 2)


def test_a_remote_that_cannot_leave_out_files_is_followed_too(tmp_path: Path) -> None:
    plain = Repo.create(tmp_path / "plain")
    save(plain, 1, 2)
    Follower(request(str(plain.path), tmp_path / "out")).look()
    assert holds(tmp_path / "out", 2)


def test_it_goes_on_after_failures_of_the_network(trainer: Repo, tmp_path: Path) -> None:
    """The time between two tries grows, and is short again once one succeeded."""
    save(trainer, 1)
    waits: list[float] = []
    failures: list[str] = []
    with served(trainer.path.parent) as (url, server):
        server.down = True

        def wait(seconds: float) -> bool:
            if seconds:
                waits.append(seconds)
            server.down = len(waits) < 3
            return len(waits) > 4

        def failed(error: ThetaError, delay: float) -> None:
            failures.append(f"{error} {delay}")

        whole = request(f"{url}/trainer/.git", tmp_path / "out", interval=0.5)
        steps = [found.step.step for found in following.follow(whole, wait, failed)]
    assert steps == [1]
    assert waits == [1.0, 2.0, 4.0, 0.5, 0.5]
    assert len(failures) == 3
    assert "503" in failures[0]


def test_the_lock_of_a_git_that_was_killed_does_not_last(trainer: Repo, tmp_path: Path) -> None:
    save(trainer, 1)
    follower = Follower(request(str(trainer.path), tmp_path / "out"))
    follower.look()
    save(trainer, 2)
    lock = tmp_path / "out" / ".theta-applied" / "repository.git" / "shallow.lock"
    lock.touch()
    with pytest.raises(following.PASSING):  # a git may still run
        follower.look()
    os.utime(lock, (1, 1))
    follower.look()
    assert holds(tmp_path / "out", 2)


def test_a_file_of_somebody_ends_it(trainer: Repo, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    save(trainer, 1)
    with pytest.raises(WouldOverwriteError):
        next(theta.follow(trainer.path, "r1", tmp_path / "out"))
    assert (tmp_path / "out" / "config.json").read_text() == "mine"
    assert next(theta.follow(trainer.path, "r1", tmp_path / "out", force=True)).result.changed


TRAINER = textwrap.dedent("""
    import sys, time, theta
    from tests.api.test_following import MODEL, values
    with theta.open(sys.argv[1]) as repo, theta.Run(repo, "r1") as run:
        for step in range(1, 8):
            run.save(step, {MODEL: values(step), "config.json": str(step)}, {"loss": 1 / step}).result()
            time.sleep(0.1)
""")


def test_two_followers_keep_up_with_a_trainer(trainer: Repo, remote: str, tmp_path: Path) -> None:
    """One reads in place and the other replaces files; both end at the last step, and see none go back."""
    stop = threading.Event()
    seen: dict[str, list[Followed]] = {"one": [], "two": []}
    failed: list[ThetaError] = []

    def run(name: str) -> None:
        for found in theta.follow(
            remote,
            "r1",
            tmp_path / name,
            interval=0.05,
            stop=stop,
            failed=lambda error, _: failed.append(error),
            in_place=name == "one",
        ):
            seen[name].append(found)

    threads = [threading.Thread(target=run, args=(name,)) for name in seen]
    for thread in threads:
        thread.start()
    training = subprocess.run([sys.executable, "-c", TRAINER, str(trainer.path)], check=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(
        found and found[-1].step.step == 7 for found in seen.values()
    ):
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert training.returncode == 0
    for name, found in seen.items():
        numbers = [one.step.step or 0 for one in found]
        assert numbers == sorted(set(numbers)), failed
        assert numbers[-1] == 7, failed
        assert holds(tmp_path / name, 7)


# -- the command ------------------------------------------------------------------------------------


def test_the_command_runs_a_program_after_a_step(trainer: Repo, tmp_path: Path) -> None:
    place = tmp_path / "out"
    words = ["follow", str(trainer.path), "r1", "--into", str(place), "--once", "--exec"]
    assert trainer.theta(*words, "true", code=1).stdout == ""
    save(trainer, 3)
    names = "$THETA_RUN $THETA_STEP $THETA_METRIC_LOSS $THETA_METRICS"
    done = trainer.theta(*words, f'echo {names} "$THETA_REV" > "$THETA_FOLDER.told"')
    commit = trainer.git("rev-parse", "refs/theta/runs/r1")
    metrics = json.dumps({"loss": 1 / 3}).replace('"', "")
    assert Path(f"{place}.told").read_text() == f'r1 3 {1 / 3!r} {{"loss": {1 / 3!r}}} {commit}\n', metrics
    assert done.stdout.startswith(f"r1 step 3 ({commit[:10]})\n")
    failed = trainer.theta(*words, "exit 7", code=3)
    assert "the command ended with exit code 7" in failed.stderr


def test_names_of_metrics_are_no_other_variables(trainer: Repo, tmp_path: Path) -> None:
    with theta.open(trainer.path) as opened, theta.Run(opened, "r1") as run:
        run.save(1, {MODEL: values(1)}, {"eval/loss;x": 2.0, "PATH": 3.0}).result()
    words = ["follow", str(trainer.path), "r1", "--into", str(tmp_path / "out"), "--once", "--exec"]
    told = trainer.theta(*words, "env | grep ^THETA_METRIC_ | sort").stdout
    assert told.endswith("THETA_METRIC_EVAL_LOSS_X=2.0\nTHETA_METRIC_PATH=3.0\n")


def test_metrics_that_are_no_numbers_are_null_in_json(trainer: Repo, tmp_path: Path) -> None:
    with theta.open(trainer.path) as opened, theta.Run(opened, "r1") as run:
        run.save(1, {MODEL: values(1)}, {"a": float("nan"), "b": float("inf"), "c": 1.5}).result()
    words = ["follow", str(trainer.path), "r1", "--into", str(tmp_path / "out"), "--once", "--exec"]
    told = trainer.theta(*words, 'echo "$THETA_METRICS"').stdout.splitlines()[-1]
    assert json.loads(told, parse_constant=pytest.fail) == {"a": None, "b": None, "c": 1.5}


def test_more_metrics_than_the_environment_takes_are_left_out(trainer: Repo, tmp_path: Path) -> None:
    with theta.open(trainer.path) as opened, theta.Run(opened, "r1") as run:
        run.save(1, {MODEL: values(1)}, {f"loss/of_layer_{n}": n / 7 for n in range(6000)}).result()
    words = ["follow", str(trainer.path), "r1", "--into", str(tmp_path / "out"), "--once", "--exec"]
    done = trainer.theta(*words, 'echo "$THETA_STEP $(env | grep -c ^THETA_METRIC)"')
    assert done.stdout.endswith("\n1 0\n")
    assert "6000 metrics are too many" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_steps(trainer: Repo, tmp_path: Path, number: signal.Signals) -> None:
    save(trainer, 1)
    told = tmp_path / "told"
    words = [
        sys.executable,
        "-m",
        "theta",
        "follow",
        str(trainer.path),
        "r1",
        "--into",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen([*words, "--exec", f"echo x >> {told}"], env={**os.environ}) as running:
        deadline = time.monotonic() + 60
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait(30) == 0
    assert told.read_text() == "x\n"
    assert holds(tmp_path / "out", 1)
