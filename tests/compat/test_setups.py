"""Setups that users have already: hooks, sparse checkouts, other filters, linked worktrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, git_status
from tests.compat.story import MODEL, commit, digest, edit, new_model, own_hook_of
from tests.support import Repo


def own_hook(repo: Repo, path: str, note: str, code: int = 0) -> None:
    """A hook of the user's that leaves a note."""
    file = repo.write(
        path, f'#!/bin/sh\necho {note} "$@" >> "$(git rev-parse --git-dir)/notes"\nexit {code}\n'
    )
    file.chmod(0o755)


def notes(repo: Repo) -> list[str]:
    """Return the lines that the user's hooks wrote."""
    path = repo.path / ".git" / "notes"
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.fixture
def untracked(tmp_path: Path) -> Repo:
    """A repository that knows nothing of theta."""
    return Repo.create(tmp_path / "repo")


def begin(repo: Repo) -> str:
    """Track and commit a checkpoint."""
    repo.theta("track", "*.safetensors")
    first = new_model(repo)
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "model")
    return first


def test_own_hooks_run_before_thetas(untracked: Repo) -> None:
    own_hook(untracked, ".git/hooks/pre-commit", "pre")
    own_hook(untracked, ".git/hooks/post-commit", "post")
    own_hook(untracked, ".git/hooks/post-checkout", "checkout")
    first = begin(untracked)
    assert_agreement(untracked, {MODEL: first})
    assert [note for note in notes(untracked) if note.startswith("p")] == ["pre", "post"]
    untracked.git("checkout", "-q", "-b", "side")
    head = untracked.git("rev-parse", "HEAD")
    assert notes(untracked)[-1] == f"checkout {head} {head} 1"


def test_own_hook_that_refuses_is_heard(untracked: Repo) -> None:
    begin(untracked)
    untracked.theta("uninstall")
    own_hook(untracked, ".git/hooks/pre-commit", "pre", 1)
    untracked.theta("install")
    new = edit(untracked, "layer.1.weight")
    assert untracked.try_git("commit", "-am", "refused").returncode == 1
    assert untracked.theta("commit", "-am", "refused", code=None).returncode != 0
    assert untracked.git("rev-list", "--count", "HEAD") == "2"
    untracked.git("reset", "-q")
    assert_agreement(untracked, {MODEL: new})


def test_own_hooks_path(untracked: Repo) -> None:
    own_hook(untracked, "tools/hooks/pre-commit", "pre")
    untracked.git("config", "core.hooksPath", "tools/hooks")
    untracked.git("add", ".")
    untracked.git("commit", "-q", "-m", "hooks")
    untracked.theta("track", "*.safetensors")
    first = new_model(untracked)
    untracked.git("add", MODEL, ".gitattributes")
    untracked.git("commit", "-q", "-m", "model")
    assert notes(untracked) == ["pre", "pre"]
    assert_agreement(untracked, {MODEL: first})


def test_theta_runs_own_hooks_too(untracked: Repo) -> None:
    own_hook(untracked, ".git/hooks/pre-commit", "pre")
    begin(untracked)
    edit(untracked, "layer.1.weight")
    untracked.theta("commit", "-q", "-a", "-m", "by theta")
    assert notes(untracked) == ["pre", "pre"]
    own_hook(untracked, own_hook_of(untracked, "pre-commit"), "pre", 1)
    edit(untracked, "layer.1.weight")
    assert untracked.theta("commit", "-q", "-a", "-m", "refused", code=None).returncode != 0


def test_own_sparse_checkout(untracked: Repo) -> None:
    untracked.write("docs/a.txt", "a")
    untracked.write("data/b.txt", "b")
    untracked.git("add", ".")
    untracked.git("commit", "-q", "-m", "folders")
    untracked.git("sparse-checkout", "set", "--no-cone", "/*", "!/data/")
    first = begin(untracked)
    assert_agreement(untracked, {MODEL: first})
    assert not (untracked.path / "data").exists()
    new = commit(untracked, "layer.1.weight")
    untracked.git("sparse-checkout", "add", "/data/")
    assert (untracked.path / "data/b.txt").exists()
    untracked.git("checkout", "-q", "HEAD~1")
    untracked.git("checkout", "-q", "main")
    assert_agreement(untracked, {MODEL: new})


def test_own_sparse_checkout_by_cones(untracked: Repo) -> None:
    untracked.write("docs/a.txt", "a")
    untracked.write("data/b.txt", "b")
    untracked.git("add", ".")
    untracked.git("commit", "-q", "-m", "folders")
    untracked.git("sparse-checkout", "set", "--cone", "docs")
    first = begin(untracked)
    assert_agreement(untracked, {MODEL: first})
    new = commit(untracked, "layer.1.weight")
    assert_agreement(untracked, {MODEL: new})
    assert not (untracked.path / "data").exists()
    untracked.git("checkout", "-q", "HEAD~1")
    assert_agreement(untracked, {MODEL: first})


def test_sparse_checkout_set_after_track(tracked: Repo) -> None:
    tracked.git("sparse-checkout", "set", "--no-cone", "/*", "!/code.py")
    tracked.theta("status")
    new = commit(tracked, "layer.1.weight")
    assert_agreement(tracked, {MODEL: new})
    assert not (tracked.path / "code.py").exists()


def test_sparse_checkout_disabled_is_set_up_again(tracked: Repo) -> None:
    tracked.git("sparse-checkout", "disable")
    tracked.theta("status")
    assert_agreement(tracked)
    new = commit(tracked, "layer.1.weight")
    assert_agreement(tracked, {MODEL: new})


@pytest.mark.parametrize("line", ["*.safetensors filter=lfs diff=lfs -text", "model.* filter=lfs"])
def test_another_filter_is_refused(untracked: Repo, line: str) -> None:
    untracked.write(".gitattributes", f"{line}\n")
    untracked.write("models/.gitattributes", f"{line}\n")
    new_model(untracked, "models/model.safetensors")
    before = untracked.git("status", "--porcelain")
    done = untracked.theta("track", "*.safetensors", code=2)
    assert "filter=lfs" in done.stderr
    assert (untracked.path / ".gitattributes").read_text() == f"{line}\n"
    assert untracked.git("status", "--porcelain") == before


def test_a_later_line_of_another_filter_is_refused_by_add(tracked: Repo) -> None:
    attributes = (tracked.path / ".gitattributes").read_text()
    tracked.write(".gitattributes", f"{attributes}*.safetensors filter=lfs\n")
    edit(tracked, "layer.1.weight")
    done = tracked.theta("add", MODEL, code=None)
    assert done.returncode != 0
    assert "lfs" in done.stderr


def test_linked_worktrees(tracked: Repo) -> None:
    old = digest(tracked)
    tracked.git("worktree", "add", "-q", "../linked", "-b", "side")
    linked = Repo(tracked.path.parent / "linked", tracked.ticks)
    assert_agreement(linked, {MODEL: old})
    side = commit(linked, "layer.1.weight")
    assert_agreement(linked, {MODEL: side})
    edit(tracked, "layer.0.weight")
    tracked.git("add", MODEL)
    edit(linked, "layer.2.weight")
    linked.git("status")
    linked.git("checkout", "-q", MODEL)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("commit", "-q", "-m", "in the first")
    tracked.git("merge", "-q", "--no-edit", "side")
    assert_agreement(tracked)
    linked.theta("merge", "--ff-only", "main")
    assert_agreement(linked, {MODEL: digest(tracked)})


def test_stash_in_a_linked_worktree(tracked: Repo) -> None:
    old = digest(tracked)
    tracked.git("worktree", "add", "-q", "../linked", "-b", "side")
    linked = Repo(tracked.path.parent / "linked", tracked.ticks)
    new = edit(linked, "layer.1.weight")
    linked.git("stash", "-q")
    assert_agreement(linked, {MODEL: old})
    tracked.git("status")
    tracked.git("gc", "-q", "--prune=now")
    linked.git("stash", "pop", "-q")
    assert_agreement(linked, {MODEL: new})
    assert git_status(linked) == [f" M {MODEL}"]
    assert_agreement(tracked, {MODEL: old})


def test_objects_staged_in_one_worktree_survive_cleans_in_another(tracked: Repo) -> None:
    tracked.git("worktree", "add", "-q", "../linked", "-b", "side")
    linked = Repo(tracked.path.parent / "linked", tracked.ticks)
    new = edit(linked, "layer.1.weight")
    linked.git("add", MODEL)
    edit(tracked, "layer.0.weight")
    tracked.git("status")
    edit(tracked, "layer.0.weight")
    tracked.git("status")
    tracked.git("gc", "-q", "--prune=now")
    linked.git("commit", "-q", "-m", "side")
    assert_agreement(linked, {MODEL: new})
    assert git_status(linked) == []


def test_a_theta_repository_in_a_submodule(tracked: Repo, tmp_path: Path) -> None:
    outer = Repo.create(tmp_path / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", tracked.path.as_uri(), "sub")
    outer.git("commit", "-q", "-m", "submodule")
    inner = Repo(outer.path / "sub", outer.ticks)
    inner.theta("install")
    inner.theta("restore", ".")
    assert_agreement(inner, {MODEL: digest(tracked)})
    new = commit(inner, "layer.1.weight")
    assert_agreement(inner, {MODEL: new})
    assert git_status(outer) == [" M sub"]


def test_uninstall_leaves_a_repository_that_git_can_use(untracked: Repo) -> None:
    own_hook(untracked, ".git/hooks/pre-commit", "pre")
    first = begin(untracked)
    untracked.theta("uninstall")
    assert "before-theta" not in " ".join(path.name for path in (untracked.path / ".git/hooks").iterdir())
    untracked.write("code.py", "print('plain')\n")
    untracked.git("commit", "-q", "-m", "plain", "code.py")
    assert notes(untracked) == ["pre", "pre"]
    untracked.theta("install")
    assert_agreement(untracked, {MODEL: first})
