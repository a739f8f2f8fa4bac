"""``theta clone`` with git clone's options: the same repository, with its checkpoints filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, commit, digest
from tests.support import Repo, sha256

ALLOW = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}


@pytest.fixture
def outer(tracked: Repo, tmp_path: Path) -> Repo:
    """A repository with a submodule that has a checkpoint, and one that has none."""
    plain = Repo.create(tmp_path / "plain")
    repo = Repo.create(tmp_path / "outer")
    for path, name in ((tracked.path, "models/sub"), (plain.path, "plain")):
        repo.git("submodule", "--quiet", "add", path.as_uri(), name, env=ALLOW)
    repo.git("commit", "-q", "-m", "submodules")
    return repo


def assert_plain(repo: Repo) -> None:
    """Assert that nothing of theta is in a repository without checkpoints."""
    assert repo.try_git("config", "core.sparseCheckout").returncode == 1
    assert repo.try_git("config", "filter.theta.process").returncode == 1


@pytest.mark.parametrize(
    "options", [[], ["--shallow-submodules", "--jobs=2"], ["--remote-submodules"]], ids=lambda o: "".join(o)
)
def test_b8_submodules_are_filled_in(outer: Repo, tracked: Repo, tmp_path: Path, options: list[str]) -> None:
    args = ["clone", "-q", "--recurse-submodules", *options, outer.path.as_uri(), str(tmp_path / "new")]
    outer.theta(*args, env=ALLOW)
    inner = Repo(tmp_path / "new/models/sub", outer.ticks)
    assert_agreement(inner, {MODEL: digest(tracked)})
    assert_plain(Repo(tmp_path / "new/plain"))
    assert Repo(tmp_path / "new").git("status", "--porcelain") == ""
    inner.git("checkout", "-q", "-b", "work")
    assert_agreement(inner, {MODEL: commit(inner, "layer.1.weight")})


def test_b8_submodules_that_plain_git_checked_out(outer: Repo, tracked: Repo, tmp_path: Path) -> None:
    """Install says what to do, and does it; theta submodule update needs no word."""
    new = outer.clone(tmp_path / "new")
    new.git("submodule", "--quiet", "update", "--init", env=ALLOW)
    place = new.path / "models/sub" / MODEL
    assert place.read_text().startswith("theta checkpoint 1\n")
    said = new.theta("install").stdout
    assert "the submodule models/sub has checkpoints; 'theta install --recurse-submodules'" in said
    inner = Repo(new.path / "models/sub", new.ticks)
    assert "1 checkpoint(s) are manifests here; 'theta restore :/'" in inner.theta("install").stdout
    new.theta("install", "--recurse-submodules")
    assert_agreement(inner, {MODEL: digest(tracked)})
    assert "manifests here" not in inner.theta("install").stdout
    new.git("submodule", "--quiet", "deinit", "--all", "--force")
    new.theta("submodule", "--quiet", "update", "--init", env=ALLOW)
    assert sha256(place) == digest(tracked)


def test_b8_a_switch_that_moves_submodules(outer: Repo, tracked: Repo, tmp_path: Path) -> None:
    args = ["clone", "-q", "--recurse-submodules", outer.path.as_uri(), str(tmp_path / "new")]
    outer.theta(*args, env=ALLOW)
    new, inner = Repo(tmp_path / "new"), Repo(tmp_path / "new/models/sub")
    old = digest(inner)
    inner.git("checkout", "-q", "-b", "work")
    later = commit(inner, "layer.1.weight")
    new.git("switch", "-q", "-c", "side")
    new.git("commit", "-q", "-am", "moved")
    for branch, want in (("main", old), ("side", later)):
        new.theta("switch", "-q", "--recurse-submodules", branch)
        assert sha256(inner.path / MODEL) == want


CLONES = {
    "branch": (["--branch", "side"], "new"),
    "separate": (["--separate-git-dir", "elsewhere.git"], "new"),
    "config": (["-c", "core.abbrev=20", "--config", "user.name=Eve"], "new"),
    "glued": (["-bside", "-oupstream", "-j2"], "new"),
    "origin": (["--origin=up", "--no-tags", "--single-branch"], "new"),
    "depth": (["--depth", "1"], "new"),
    "named by git": (["-q"], None),
}


@pytest.mark.parametrize("case", CLONES)
def test_b8_options_that_act_at_checkout(tracked: Repo, tmp_path: Path, case: str) -> None:
    tracked.git("branch", "side")
    options, name = CLONES[case]
    base = Repo(tmp_path / "base dir", tracked.ticks)
    base.path.mkdir()
    base.theta("clone", "-q", *options, tracked.path.as_uri(), *([name] if name else []))
    clone = Repo(base.path / (name or "repo"), base.ticks)
    assert_agreement(clone, {MODEL: digest(tracked)})
    assert clone.try_git("config", "theta.cloned").returncode == 1
    if case == "config":
        assert clone.git("config", "user.name") == "Eve"
    if case in ("branch", "glued"):
        assert clone.git("branch", "--show-current") == "side"


def test_b8_no_checkout_and_bare(tracked: Repo, tmp_path: Path) -> None:
    tracked.theta("clone", "-q", "-n", ".", str(tmp_path / "none"))
    none = Repo(tmp_path / "none", tracked.ticks)
    assert [path.name for path in none.path.iterdir()] == [".git"]
    none.theta("checkout", "-q", "main")
    assert_agreement(none, {MODEL: digest(tracked)})
    for option in ("--bare", "--mirror"):
        tracked.theta("clone", "-q", option, ".", str(tmp_path / option))
        bare = Repo(tmp_path / option)
        assert_plain(bare)
        assert not (bare.path / "info/sparse-checkout").exists()
        assert bare.try_git("config", "theta.cloned").returncode == 1


def test_b8_sparse(tracked: Repo, tmp_path: Path) -> None:
    tracked.write("deep/other.txt", "x")
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "deep")
    tracked.theta("clone", "-q", "--sparse", tracked.path.as_uri(), str(tmp_path / "new"))
    clone = Repo(tmp_path / "new", tracked.ticks)
    assert not (clone.path / "deep").exists()
    assert_agreement(clone, {MODEL: digest(tracked)})
    clone.git("sparse-checkout", "add", "deep")
    assert (clone.path / "deep/other.txt").exists()


def test_b8_the_users_template_holds(tracked: Repo, tmp_path: Path) -> None:
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\necho ran > ran\n")
    hook.chmod(0o755)
    environment = {"GIT_TEMPLATE_DIR": str(tmp_path / "template")}
    for name, args in (("env", []), ("option", ["--template", str(tmp_path / "template")])):
        place = tmp_path / name
        tracked.theta("clone", "-q", *args, tracked.path.as_uri(), str(place), env=environment)
        assert (place / "ran").exists()
        (place / "ran").unlink()
        assert_agreement(Repo(place, tracked.ticks), {MODEL: digest(tracked)})


def test_b8_a_clone_that_fails_is_gits_failure(tmp_path: Path, repo: Repo) -> None:
    assert repo.theta("clone", "-q", "nowhere", "x", code=128).stderr.startswith("fatal: ")


def test_a_repository_without_checkpoints_is_no_sparse_checkout(repo: Repo, tmp_path: Path) -> None:
    repo.theta("clone", "-q", repo.path.as_uri(), str(tmp_path / "new"))
    assert Repo(tmp_path / "new").try_git("config", "core.sparseCheckout").returncode == 1


def test_a_clone_with_its_worktree_elsewhere(tracked: Repo, tmp_path: Path) -> None:
    """``GIT_WORK_TREE`` names the worktree of the new clone, which theta made an error of."""
    tree, place = tmp_path / "tree", tmp_path / "place"
    tracked.theta("clone", "-q", tracked.path.as_uri(), str(place), env={"GIT_WORK_TREE": str(tree)})
    assert (place / "config").is_file()
    assert (tree / "code.py").read_bytes() == (tracked.path / "code.py").read_bytes()
