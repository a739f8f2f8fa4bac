"""``theta prune-local``: what a remote has need not be here, and nothing else goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import theta
from tests.compat.story import MODEL, digest, edit
from tests.support import Repo, make_model, random_tensors
from theta.errors import ExitCode
from theta.porcelain.share import pruning
from theta.porcelain.workspace.session import Session

SHAPES = {f"layer.{number}.weight": (64, 128) for number in range(4)}
ONE = "layer.1.weight"


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions that were pushed, one that was not, one that is staged."""
    tmp_path = tmp_path_factory.mktemp(request.param)
    place = tmp_path / "repo"
    place.mkdir()
    repo = Repo(place)
    theta(repo, "init", "-q", f"--object-format={request.param}")
    theta(repo, "track", "*.safetensors")
    for seed in range(2):
        make_model(place / MODEL, random_tensors(SHAPES, seed))
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", f"version {seed}")
    up = tmp_path / "up.git"
    repo.git("init", "-q", "--bare", f"--object-format={request.param}", str(up))
    for key in ("allowFilter", "allowAnySHA1InWant"):
        Repo(up).git("config", f"uploadpack.{key}", "true")
    repo.git("remote", "add", "origin", up.as_uri())
    repo.git("push", "-q", "-u", "origin", "main")
    edit(repo, ONE)
    theta(repo, "commit", "-qam", "not pushed")
    edit(repo, "layer.2.weight")
    repo.git("add", MODEL)
    return repo


@pytest.fixture
def repo(made: Repo, tmp_path: Path) -> Repo:
    """A copy of the repository and of its remote, which the test may change."""
    up_of(made).copy(tmp_path / "up.git")
    repo = made.copy(tmp_path / "repo")
    repo.git("remote", "set-url", "origin", up_of(repo).path.as_uri())
    return repo


def up_of(repo: Repo) -> Repo:
    return Repo(repo.path.parent / "up.git")


def test_what_the_remote_has_goes_and_comes_back(repo: Repo) -> None:
    staged, before = digest(repo), repo.stored_bytes()
    said = theta(repo, "prune-local", "--dry-run").out
    assert "would go; origin has them" in said
    assert repo.stored_bytes() == before
    theta(repo, "prune-local")
    assert repo.stored_bytes() < before / 2
    repo.fsck()
    assert f"M  {MODEL}" in repo.git("status", "--porcelain")
    repo.git("commit", "-q", "-m", "staged before")
    assert "no problems" in theta(repo, "fsck").out
    # what was not on the remote is here without it
    url = repo.git("remote", "get-url", "origin")
    repo.git("remote", "set-url", "origin", f"{url}-gone")
    assert "changed of 4 tensors" in theta(repo, "log", "--stat").out
    new = repo.git("rev-list", "--objects", "HEAD", "--not", "origin/main").split("\n")
    for oid in (row.partition(" ")[0] for row in new):
        repo.git("cat-file", "-e", oid)
    repo.git("remote", "set-url", "origin", url)
    theta(repo, "switch", "-q", "--detach", "origin/main")
    theta(repo, "switch", "-q", "main")
    assert digest(repo) == staged
    assert repo.git("status", "--porcelain") == ""
    repo.git("gc", "-q", "--prune=now")
    repo.fsck()
    theta(repo, "push", "-q")
    up_of(repo).fsck()
    assert up_of(repo).git("rev-parse", "main") == repo.git("rev-parse", "main")


def test_again_there_is_nothing_to_drop(repo: Repo) -> None:
    session = Session.here(repo.path)
    first = pruning.prune(session, pruning.PruneRequest("origin"))
    again = pruning.prune(Session.here(repo.path), pruning.PruneRequest("origin"))
    assert first.count > 0 and (again.count, again.size) == (0, 0)


def test_a_remote_that_sends_no_objects_by_their_ids_keeps_everything_here(repo: Repo) -> None:
    up_of(repo).git("config", "uploadpack.allowAnySHA1InWant", "false")
    before = repo.stored_bytes()
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version", "GIT_CONFIG_VALUE_0": "0"}
    done = theta(repo, "prune-local", code=int(ExitCode.MISSING_OBJECTS), env=env)
    assert "nothing was dropped" in done.err
    assert repo.stored_bytes() == before
    assert repo.try_git("config", "remote.origin.promisor").returncode == 1


def test_a_branch_that_went_from_the_remote_keeps_its_tensors_here(repo: Repo) -> None:
    """The remote-tracking branch still has it; what counts is what the remote has now."""
    repo.git("push", "-q", "origin", "HEAD:refs/heads/gone")
    up_of(repo).git("update-ref", "-d", "refs/heads/gone")
    theta(repo, "prune-local")
    repo.git("commit", "-q", "-m", "staged before")
    theta(repo, "push", "-q")
    up_of(repo).fsck()
    clone = Repo(repo.path.parent / "clone")
    theta(repo, "clone", "-q", str(up_of(repo).path), str(clone.path))
    assert digest(clone) == digest(repo)
    theta(clone, "fsck", "--read-data")


def test_without_a_remote_nothing_goes(repo: Repo) -> None:
    done = theta(repo, "prune-local", "nowhere", code=int(ExitCode.NOT_FOUND))
    assert "there is no remote nowhere" in done.err


@pytest.mark.campaign
def test_killed_at_any_write_nothing_is_lost(repo: Repo, tmp_path: Path) -> None:
    for number in range(1, 200):
        one = tmp_path / str(number)
        one.mkdir()
        up_of(repo).copy(one / "up.git")
        copy = repo.copy(one / "repo")
        copy.git("remote", "set-url", "origin", up_of(copy).path.as_uri())
        done = copy.theta("prune-local", code=None, env={"THETA_CRASH_AT": str(number)})
        copy.fsck()
        assert "no problems" in copy.theta("fsck").stdout
        copy.git("commit", "-q", "-m", "staged before")
        copy.theta("switch", "-q", "--detach", "HEAD~3")
        copy.theta("switch", "-q", "main")
        assert digest(copy) == digest(repo)
        copy.fsck()
        if done.returncode == 0:
            assert number > 10
            return
    pytest.fail("it never ends")
