"""Clones: with theta, with the filter only, and with nothing but plain git."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_commit, assert_history
from tests.compat.made import diverged
from tests.compat.story import MODEL, NO_HOOKS, combined, commit, digest, edit
from tests.support import Repo, sha256
from tests.support.environment import GIT_CONFIG

FILTER = (
    "-c",
    f"filter.theta.process={sys.executable} -m theta filter-process",
    "-c",
    "filter.theta.required=true",
)


def theta_clone(repo: Repo, path: Path, *args: str) -> Repo:
    """Clone with theta."""
    repo.theta("clone", "-q", *args, repo.path.as_uri(), str(path))
    return Repo(path, repo.ticks)


def test_theta_clone(tracked: Repo, tmp_path: Path) -> None:
    new = commit(tracked, "layer.1.weight")
    clone = theta_clone(tracked, tmp_path / "clone")
    assert_agreement(clone, {MODEL: new})
    assert_agreement(clone, {MODEL: commit(clone, "head.weight")})


def test_plain_clone_with_the_filter(tracked: Repo, tmp_path: Path) -> None:
    new = commit(tracked, "layer.1.weight")
    clone = tracked.clone(tmp_path / "clone", *FILTER)
    assert_agreement(clone, {MODEL: new})
    assert_agreement(clone, {MODEL: commit(clone, "head.weight")})


def test_plain_clone_with_theta_installed_for_all(
    tracked: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(GIT_CONFIG)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    tracked.theta("install", "--global")
    clone = tracked.clone(tmp_path / "clone")
    assert_agreement(clone, {MODEL: digest(tracked)})


def test_plain_clone_is_completed_by_theta(tracked: Repo, tmp_path: Path) -> None:
    clone = tracked.clone(tmp_path / "clone")
    assert (clone.path / MODEL).read_text().startswith("theta checkpoint 1\n")
    clone.theta("install")
    clone.theta("restore", MODEL)
    assert_agreement(clone, {MODEL: digest(tracked)})


def test_plain_clone_merges_different_tensors(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.2.weight")
    clone = tracked.clone(tmp_path / "clone")
    clone.git("merge", "-q", "--no-edit", "origin/side")
    assert_commit(clone, "HEAD")
    assert clone.git("status", "--porcelain") == ""
    clone.theta("restore", MODEL)
    want = combined(tracked, tmp_path / "combined", ("layer.1.weight", 1.0), ("layer.2.weight", 2.0))
    assert sha256(clone.path / MODEL) == want
    clone.git("push", "-q", "origin", "HEAD:merged")
    tracked.git("merge", "-q", "--ff-only", "merged")
    assert_agreement(tracked, {MODEL: want})


def test_plain_clone_conflicts_in_one_tensor(tracked: Repo, tmp_path: Path) -> None:
    diverged(tracked, "layer.1.weight", "layer.1.weight")
    clone = tracked.clone(tmp_path / "clone")
    assert clone.try_git("merge", "--no-edit", "origin/side").returncode == 1
    assert MODEL in clone.git("diff", "--name-only", "--diff-filter=U").split("\n")
    clone.git("merge", "--abort")
    assert clone.git("status", "--porcelain") == ""


def test_blame_and_log_tell_who_changed_a_tensor(tracked: Repo, tmp_path: Path) -> None:
    tensors = ["layer.1.weight", "embed.weight", "layer.2.weight"]
    by = {}
    for tensor in tensors:
        commit(tracked, tensor)
        by[tensor] = tracked.git("rev-parse", "HEAD")
    clone = tracked.clone(tmp_path / "clone")
    lines = clone.git("show", f"HEAD:{MODEL}").split("\n")
    blame = [row.split(" ")[0] for row in clone.git("blame", "-l", "-s", MODEL).split("\n")]
    for tensor in tensors:
        assert blame[lines.index(tensor) + 1].lstrip("^") == by[tensor]
    values = {tensor: lines[lines.index(tensor) + 1] for tensor in tensors}
    for tensor, revision in by.items():
        patch = clone.git("log", "-p", "-1", "--format=", revision, "--", MODEL)
        assert [name for name in tensors if f"\n+{values[name]}" in patch] == [tensor]


def test_depth_one(tracked: Repo, tmp_path: Path) -> None:
    for step in range(3):
        new = commit(tracked, "layer.1.weight", step + 1.0)
    one = theta_clone(tracked, tmp_path / "one", "--depth", "1")
    assert one.git("rev-list", "--count", "HEAD") == "1"
    assert_agreement(one, {MODEL: new})
    two = tracked.clone(tmp_path / "two", "--depth", "1", *FILTER)
    assert_agreement(two, {MODEL: new})
    changed = commit(two, "layer.1.weight", 9.0)
    two.git("push", "-q", "origin", "HEAD:refs/heads/deeper")
    tracked.git("merge", "-q", "--ff-only", "deeper")
    assert_agreement(tracked, {MODEL: changed})


def test_a_single_branch_of_a_squashed_history(tracked: Repo, tmp_path: Path) -> None:
    commit(tracked, "layer.1.weight")
    new = commit(tracked, "layer.1.weight", 2.0)
    tree = tracked.git("rev-parse", "HEAD^{tree}")
    tracked.git("update-ref", "refs/heads/squashed", tracked.git("commit-tree", tree, "-m", "all"))
    clone = theta_clone(tracked, tmp_path / "clone", "--single-branch", "-b", "squashed")
    assert_agreement(clone, {MODEL: new})


def test_bundle(tracked: Repo, tmp_path: Path) -> None:
    old, new = digest(tracked), commit(tracked, "layer.1.weight")
    tracked.git("bundle", "create", "-q", str(tmp_path / "all.bundle"), "main")
    tracked.theta("clone", "-q", "-b", "main", str(tmp_path / "all.bundle"), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone", tracked.ticks)
    assert_agreement(clone, {MODEL: new})
    clone.git("checkout", "-q", "HEAD~1")
    assert_agreement(clone, {MODEL: old})


@pytest.mark.parametrize("kind", ["blob:none", "tree:0", "blob:limit=1k"])
def test_partial_clone(tracked: Repo, tmp_path: Path, kind: str) -> None:
    old, new = digest(tracked), commit(tracked, "layer.1.weight")
    tracked.git("config", "uploadpack.allowFilter", "true")
    tracked.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone = theta_clone(tracked, tmp_path / "clone", f"--filter={kind}")
    assert_agreement(clone, {MODEL: new})
    clone.git("checkout", "-q", "HEAD~1")
    assert_agreement(clone, {MODEL: old})
    clone.git("checkout", "-q", "main")
    assert_agreement(clone, {MODEL: commit(clone, "layer.1.weight")})


def test_plain_partial_clone_with_the_filter(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("config", "uploadpack.allowFilter", "true")
    tracked.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone = tracked.clone(tmp_path / "clone", "--filter=blob:none", *FILTER)
    assert_agreement(clone, {MODEL: digest(tracked)})


def test_archive_holds_the_file(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("archive", "-o", str(tmp_path / "out.tar"), "HEAD")
    with tarfile.open(tmp_path / "out.tar") as archive:
        file = archive.extractfile(MODEL)
        assert file is not None
        assert hashlib.sha256(file.read()).hexdigest() == digest(tracked)
    assert_agreement(tracked)


def test_push_and_pull_between_clones(tracked: Repo, tmp_path: Path) -> None:
    origin = tmp_path / "origin.git"
    tracked.git("clone", "-q", "--bare", ".", str(origin))
    tracked.git("remote", "add", "origin", origin.as_uri())
    tracked.git("push", "-q", "-u", "origin", "main")
    tracked.theta("clone", "-q", origin.as_uri(), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone", tracked.ticks)
    new = commit(clone, "layer.1.weight")
    clone.theta("push", "-q")
    tracked.git("pull", "-q")
    assert_agreement(tracked, {MODEL: new})
    commit(clone, "layer.2.weight", 2.0)
    clone.git("push", "-q")
    commit(tracked, "layer.0.weight", 3.0)
    tracked.theta("pull", "-q", "--no-rebase", "--no-edit")
    changes = [("layer.1.weight", 1.0), ("layer.2.weight", 2.0), ("layer.0.weight", 3.0)]
    assert_agreement(tracked, {MODEL: combined(tracked, tmp_path / "combined", *changes)})
    tracked.theta("push", "-q")
    clone.git("pull", "-q", "--rebase")
    assert_agreement(clone, {MODEL: digest(tracked)})
    assert_history(clone)


def test_push_of_a_broken_commit_is_refused(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    tracked.git("remote", "add", "origin", (tmp_path / "origin.git").as_uri())
    edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "commit", "-q", "-am", "broken")
    done = tracked.try_git("push", "-q", "origin", "main")
    assert done.returncode != 0
    assert "theta fsck --mend" in done.stderr
    tracked.theta("fsck", "--mend")
    tracked.git("push", "-q", "origin", "main")
    assert_history(tracked)
