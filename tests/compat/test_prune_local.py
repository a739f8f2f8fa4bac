"""``theta prune-local``: what a remote has need not be here, and nothing else goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.compat.inprocess import theta
from tests.compat.story import MODEL, digest, edit
from tests.support import Repo, make_model, random_tensors
from tests.support.http_git import served
from theta.errors import ExitCode
from theta.porcelain.share import proving, pruning
from theta.porcelain.workspace.session import Session

SHAPES = {f"layer.{number}.weight": (64, 128) for number in range(4)}
ONE = "layer.1.weight"


@pytest.fixture(scope="module", params=["sha1", pytest.param("sha256", marks=pytest.mark.campaign)])
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


def test_again_there_is_nothing_to_drop_but_what_is_new(repo: Repo) -> None:
    session = Session.here(repo.path)
    first = pruning.prune(session, pruning.PruneRequest("origin"))
    again = pruning.prune(Session.here(repo.path), pruning.PruneRequest("origin"))
    assert first.count > 0 and (again.count, again.size) == (0, 0)
    make_model(repo.path / MODEL, random_tensors(SHAPES, 9))
    theta(repo, "commit", "-qam", "new")
    theta(repo, "push", "-q")
    assert pruning.prune(Session.here(repo.path), pruning.PruneRequest("origin")).count > 0
    assert not pruning_of(repo)
    theta(repo, "fsck")


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


def _refused(repo: Repo, *args: str) -> str:
    """Return what prune-local says when it refuses; nothing went."""
    before = repo.git("cat-file", "--batch-check", "--batch-all-objects")
    said = theta(repo, "prune-local", *args, code=int(ExitCode.MISSING_OBJECTS)).err
    assert "nothing was dropped" in said
    assert repo.git("cat-file", "--batch-check", "--batch-all-objects") == before
    assert repo.try_git("config", "remote.origin.promisor").returncode == 1
    return said


def _elsewhere(repo: Repo, path: Path) -> None:
    """Make ``path`` a remote that is seen through a program only, as one of another host is."""
    for key in ("allowFilter", "allowAnySHA1InWant"):
        Repo(path).git("config", f"uploadpack.{key}", "true")
    repo.git("config", "protocol.ext.allow", "always")
    repo.git("remote", "set-url", "origin", f"ext::git-upload-pack {path}")


def test_the_repository_itself_is_no_remote_that_has_the_tensors(repo: Repo) -> None:
    """It was asked for what it has, and had it: then the only copy went."""
    link = repo.path.parent / "link"
    link.symlink_to(repo.path)
    for url in (".", str(repo.path), repo.path.as_uri(), str(link), f"{repo.path}/.git"):
        repo.git("remote", "set-url", "origin", url)
        assert "origin is this repository" in _refused(repo)
        assert "origin is this repository" in _refused(repo, "--dry-run")
    _elsewhere(repo, repo.path)
    for words in ((), ("--sample",)):
        assert "reads the objects of this repository" in _refused(repo, *words)


def test_a_remote_that_borrows_from_here_keeps_everything_here(repo: Repo) -> None:
    other = repo.path.parent / "other"
    repo.git("clone", "-q", "--shared", "--bare", str(repo.path), str(other))
    repo.git("remote", "set-url", "origin", str(other))
    assert "borrows objects" in _refused(repo)
    _elsewhere(repo, other)
    assert "reads the objects of this repository" in _refused(repo, "--sample")


def test_what_is_below_the_boundary_of_a_shallow_remote_stays(repo: Repo) -> None:
    other = repo.path.parent / "other"
    repo.git("clone", "-q", "--bare", "--depth=1", repo.path.as_uri(), str(other))
    repo.git("remote", "set-url", "origin", str(other))
    assert "is shallow" in _refused(repo)
    _elsewhere(repo, other)
    assert "it lacks them" in _refused(repo)


def test_two_clones_are_not_pruned_against_each_other(repo: Repo) -> None:
    other = Repo(repo.path.parent / "other")
    theta(repo, "clone", "-q", "--no-local", str(repo.path), str(other.path))
    theta(other, "prune-local")
    theta(other, "restore", "--source=HEAD~1", MODEL)
    repo.git("remote", "set-url", "origin", str(other.path))
    assert "is lazy, or was pruned" in _refused(repo)
    _elsewhere(repo, other.path)
    _refused(repo)


def test_a_remote_that_lost_an_object_keeps_everything_here(repo: Repo) -> None:
    """One object of many is not in a sample: each is looked for."""
    up, gone = up_of(repo), list(pruning_of(repo))
    for pack in (up.path / "objects" / "pack").glob("*.pack"):
        kept = pack.rename(up.path / pack.name)
        with kept.open("rb") as file:
            subprocess.run(["git", "-C", up.path, "unpack-objects", "-q"], stdin=file, check=True)
    (up.path / "objects" / gone[-1][:2] / gone[-1][2:]).unlink()
    assert f"lacks 1 of {len(gone)} objects" in _refused(repo)
    _elsewhere(repo, up.path)
    _refused(repo)


def pruning_of(repo: Repo) -> dict[str, int]:
    """Return the objects that would go."""
    return pruning._Pruning(Session.here(repo.path), "origin").gone


def test_over_http_all_is_fetched_before_it_goes(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "_BATCH", 20_000)
    fetched: list[list[str]] = []
    once = proving.Proof._fetch

    def noted(proof: proving.Proof, oids: list[str]) -> None:
        fetched.append(oids)
        once(proof, oids)

    monkeypatch.setattr(proving.Proof, "_fetch", noted)
    with served(repo.path.parent) as (url, _):
        repo.git("remote", "set-url", "origin", f"{url}/{repo.path.name}")
        assert "reads the objects of this repository" in _refused(repo)
        repo.git("remote", "set-url", "origin", f"{url}/up.git")
        assert "is not proven yet" in theta(repo, "prune-local", "--dry-run").out
        session, asked = Session.here(repo.path), set(pruning_of(repo))
        fetched.clear()
        assert pruning.prune(session, pruning.PruneRequest("origin")).count == len(asked)
        assert {oid for batch in fetched[2:] for oid in batch} == asked
        assert len(fetched) > 3
        assert all(len(batch) < len(asked) for batch in fetched)
        theta(repo, "restore", "--source=HEAD~1", MODEL)
    repo.fsck()


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
