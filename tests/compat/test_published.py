"""A3: a commit that others may have is never rewritten by looking at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, NO_HOOKS, commit, digest, edit
from tests.support import Repo
from theta.git.repository import Repository
from theta.porcelain.workspace import closures
from theta.porcelain.workspace.session import Session


@pytest.fixture
def wrong(tracked: Repo) -> Repo:
    """A repository whose HEAD has a ``.theta/`` that does not agree with its manifest."""
    edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "commit", "-q", "-a", "-m", "no hooks")
    return tracked


def head(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD")


def by_a_remote(repo: Repo, place: Path) -> None:
    repo.git("init", "-q", "--bare", str(place / "remote"))
    repo.git("remote", "add", "origin", str(place / "remote"))
    repo.git("push", "-q", "--no-verify", "origin", "main")


def by_a_fetch(repo: Repo, place: Path) -> None:
    repo.git("fetch", "-q", ".", "main")


def by_a_tag(repo: Repo, place: Path) -> None:
    repo.git("tag", "v1")


def by_another_branch(repo: Repo, place: Path) -> None:
    repo.git("branch", "other")


def by_another_worktree(repo: Repo, place: Path) -> None:
    repo.git(*NO_HOOKS, "worktree", "add", "-q", "--detach", str(place / "second"))


def by_a_note(repo: Repo, place: Path) -> None:
    repo.git("notes", "add", "-m", "accuracy 0.91")


HOLDERS = [by_a_remote, by_a_fetch, by_a_tag, by_another_branch, by_another_worktree, by_a_note]


@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
def test_a3_a_commit_that_is_held_elsewhere_stays(
    wrong: Repo, tmp_path: Path, hold: Callable[[Repo, Path], None]
) -> None:
    hold(wrong, tmp_path)
    old, want = head(wrong), digest(wrong)
    done = wrong.theta("switch", "-q", "main")
    assert head(wrong) == old
    assert "stays as it is ('theta fsck --mend' rewrites it)" in done.stderr
    assert "stays as it is" not in wrong.theta("switch", "-q", "main").stderr, "it is said once"
    wrong.theta("fsck", "--mend", code=None)  # the old commit is still there, and reported
    assert head(wrong) != old
    assert_agreement(wrong, {MODEL: want})


def test_a3_a_commit_that_only_this_branch_has_is_mended(wrong: Repo) -> None:
    old = head(wrong)
    wrong.theta("switch", "-q", "main")
    assert head(wrong) != old
    assert_agreement(wrong, {MODEL: digest(wrong)})


def test_a3_a_clone_is_what_was_published(wrong: Repo, tmp_path: Path) -> None:
    done = wrong.theta("clone", "-q", wrong.path.as_uri(), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert head(clone) == head(wrong) == clone.git("rev-parse", "origin/main")
    assert "stays as it is" in done.stderr


@pytest.fixture
def without(tracked: Repo) -> Repo:
    """A repository whose ``main``, of other branches too, lacks ``.theta/``; ``side`` has other tensors."""
    tracked.git("switch", "-q", "-c", "side")
    commit(tracked, "layer.1.weight")
    tracked.git("switch", "-q", "main")
    tracked.git(*NO_HOOKS, "rm", "-r", "-q", "--cached", "--sparse", ".theta")
    tracked.git(*NO_HOOKS, "commit", "-q", "-m", "a strange folder")
    tracked.git("branch", "other")
    tracked.theta("switch", "-q", "main")
    return tracked


@pytest.mark.parametrize("line", [("switch", "-q"), ("checkout", "-q"), ("reset", "-q", "--keep")])
def test_a3_a_wrong_head_is_left_like_any_other(without: Repo, line: tuple[str, ...]) -> None:
    assert "nothing to commit" in without.theta("status").stdout
    assert without.theta(*line, "side").stderr == ""
    assert head(without) == without.git("rev-parse", "side")
    assert_agreement(without, {MODEL: digest(without)})


BY_GIT = [
    *("switch side", "checkout side", "checkout HEAD~", "stash", "revert --no-edit HEAD", "rebase side"),
    *("merge side", "cherry-pick side", "pull --no-rebase --no-edit . side", "bisect start HEAD HEAD~"),
    *("commit --allow-empty -m more", "merge --no-commit same"),
]


@pytest.mark.parametrize("line", BY_GIT)
def test_a3_git_finds_a_wrong_head_as_it_was_committed(without: Repo, line: str) -> None:
    without.git("branch", "same", "HEAD~")
    assert without.git("status", "--porcelain") == ""
    if line == "stash":
        edit(without, "head.weight")
    done = without.try_git(*line.split())
    assert "would be overwritten" not in done.stderr
    if (without.path / ".git/REBASE_HEAD").exists():  # the strange folder is what is applied
        without.git("rebase", "--continue", env={"GIT_EDITOR": "true"})
    elif done.returncode:
        rows = without.git("status", "--porcelain").splitlines()
        assert all(row == f"M  {MODEL}" or row.startswith("A  .theta/model") for row in rows), rows
        without.git("commit", "-q", "--no-edit")
    assert without.git("status", "--porcelain") == ""
    if closures.head_agrees(Session(Repository.discover(without.path))):
        assert_agreement(without, {MODEL: digest(without)})


@pytest.mark.parametrize("line", [("commit", "-q", "-m", "x"), ("commit", "-q", "--allow-empty", "-m", "x")])
def test_a3_the_next_commit_has_all_and_is_pushed(
    without: Repo, tmp_path: Path, line: tuple[str, ...]
) -> None:
    by_a_remote(without, tmp_path)
    without.theta(*line)
    assert "rebuilt" not in without.theta("push", "-q", "origin", "main").stderr
    assert_agreement(without, {MODEL: digest(without)})
    without.theta("clone", "-q", (tmp_path / "remote").as_uri(), str(tmp_path / "clone"))
    assert digest(Repo(tmp_path / "clone")) == digest(without)


def test_a3_gc_keeps_what_only_the_manifest_of_a_wrong_head_names(tracked: Repo, tmp_path: Path) -> None:
    want = edit(tracked, "layer.1.weight")
    tracked.theta("add", MODEL)
    tracked.git(*NO_HOOKS, "commit", "-q", "-m", "without .theta/", "--", MODEL)
    by_a_remote(tracked, tmp_path)
    tracked.theta("switch", "-q", "main")
    assert tracked.git("status", "--porcelain") == ""
    for line in ("gc -q --prune=now", "repack -q -a -d -F", "prune --expire=now"):
        tracked.git(*line.split())
        tracked.theta("gc", "--quiet", "--prune=now")
    tracked.theta("commit", "-q", "-m", "x")
    assert_agreement(tracked, {MODEL: want})


@pytest.mark.parametrize("line", [("merge", "-q"), ("merge", "-q", "-X", "average"), ("cherry-pick",)])
def test_a3_onto_a_wrong_head_comes_what_others_have(without: Repo, line: tuple[str, ...]) -> None:
    old = head(without)
    without.theta(*line, "side")
    assert without.git("rev-parse", "HEAD^") == old
    assert without.theta("diff", "--exit-code", "side", "HEAD", "--", MODEL).stdout == ""
    assert_agreement(without, {MODEL: digest(without)})


def test_a3_what_is_staged_on_a_wrong_head_stays(without: Repo) -> None:
    edit(without, "head.weight")
    without.theta("add", MODEL)
    want = digest(without)
    assert "would be overwritten" in without.theta("switch", "-q", "side", code=1).stderr
    without.theta("commit", "-q", "-m", "mine")
    assert_agreement(without, {MODEL: want})


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a3_an_old_commit_is_looked_at_and_stays(wrong: Repo, program: str) -> None:
    old, want = head(wrong), digest(wrong)
    edit(wrong, "head.weight")
    wrong.git(*NO_HOOKS, "commit", "-q", "-a", "-m", "two")
    run = wrong.git if program == "git" else wrong.theta
    run("checkout", "-q", "HEAD~")
    assert head(wrong) == old
    assert digest(wrong) == want


def test_a3_tensors_stay_where_the_attribute_line_is_gone(tracked: Repo) -> None:
    stores = tracked.git("rev-parse", "HEAD:.theta")
    lines = (tracked.path / ".gitattributes").read_text().splitlines()
    tracked.write(".gitattributes", "".join(f"{line}\n" for line in lines if "filter=theta" not in line))
    tracked.git("commit", "-q", "-m", "attributes", "--", ".gitattributes")
    assert tracked.git("rev-parse", "HEAD:.theta") == stores
    tracked.theta("commit", "-q", "--allow-empty", "-m", "by theta")
    tracked.theta("fsck", "--mend")
    assert tracked.git("rev-parse", "HEAD:.theta") == stores


def test_a3_nothing_is_amended_for_a_manifest_that_cannot_be_read(tracked: Repo) -> None:
    text = tracked.git("show", f"HEAD:{MODEL}").replace("end ", "ends ", 1) + "\n"
    oid = tracked.git("hash-object", "-w", "--stdin", stdin=text)
    tracked.git("update-index", "--cacheinfo", f"100644,{oid},{MODEL}")
    tracked.git(*NO_HOOKS, "commit", "-q", "-m", "malformed")
    old, stores = head(tracked), tracked.git("rev-parse", "HEAD:.theta")
    tracked.theta("fsck", "--mend", code=None)
    tracked.theta("switch", "-q", "main", code=None)
    assert head(tracked) == old
    assert tracked.git("rev-parse", "HEAD:.theta") == stores
