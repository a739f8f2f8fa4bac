"""E1: the states that a kill leaves a merge in for a moment, made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.reliability.harness import FILE, State, write
from tests.reliability.killing import files, left_by_theta, look
from tests.support import Repo, sha256
from theta.git.repository import Repository
from theta.porcelain.workspace import rollback, worktree
from theta.porcelain.workspace.session import Session


@pytest.fixture(scope="module")
def origin(origin: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = origin.copy(tmp_path_factory.mktemp("origin") / "repo")
    repo.write("new.py", "print('of the user')\n")
    return repo


def leave(repo: Repo, **facts: object) -> None:
    """Leave the journal of a command that was killed just now."""
    body = {"token": "of nobody", "started": time.time(), **facts}
    (repo.path / ".git/theta/journal").write_text(json.dumps(body))


def merged(repo: Repo) -> str:
    """Bring git's merge into index and worktree, as git does before it makes the commit; return its tree."""
    repo.git("merge", "-q", "--no-commit", "other")
    tree = repo.git("write-tree").strip()
    (repo.path / ".git/AUTO_MERGE").write_text(f"{tree}\n")
    for name in ("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG"):
        (repo.path / ".git" / name).unlink()
    return tree


def test_e1_a_merge_killed_as_git_began_to_commit_it_is_under_way(repo: Repo) -> None:
    repo.theta("merge", "--no-commit", "other")
    repo.write("code.py", "print('settled by hand')\n")
    repo.git("add", "code.py")
    head, tree = repo.git("rev-parse", "HEAD").strip(), repo.git("write-tree").strip()
    (repo.path / ".git/MERGE_HEAD").rename(repo.path / ".git/theta/MERGE_HEAD")
    leave(repo, applying={"head": head, "tree": tree})
    repo.theta("status")
    assert not (repo.path / ".git/theta/MERGE_HEAD").exists()
    repo.theta("merge", "--continue")
    assert repo.git("show", "HEAD:code.py").strip() == "print('settled by hand')"
    assert repo.git("rev-list", "--parents", "-n1", "HEAD").split()[1:] == [
        head,
        repo.git("rev-parse", "other").strip(),
    ]


def test_e1_a_merge_that_git_had_committed_leaves_nothing(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD").strip()
    repo.theta("merge", "other")
    (repo.path / ".git/theta/MERGE_HEAD").write_text(repo.git("rev-parse", "other"))
    leave(repo, applying={"head": head, "tree": repo.git("rev-parse", "HEAD^{tree}").strip()})
    repo.theta("status")
    assert not (repo.path / ".git/theta/MERGE_HEAD").exists()
    assert not (repo.path / ".git/MERGE_HEAD").exists()
    assert repo.git("status", "--porcelain", "--untracked-files=no") == ""


def test_e1_a_pull_killed_before_its_commit_never_was(repo: Repo) -> None:
    repo.theta("status")
    before, mark = State.of(repo), rollback.mark(Repository.discover(repo.path), ["other"])
    merged(repo)
    leave(repo, moving=mark)
    look(repo)
    assert State.of(repo) == before
    assert not (repo.path / ".git/AUTO_MERGE").exists()


@pytest.mark.parametrize("merged_to", ["manifest", "gone"])
def test_e1_a_file_of_which_the_index_had_old_stat_data_is_put_back(repo: Repo, merged_to: str) -> None:
    """A merged manifest is in no commit, so that it was taken for an edit of the user, and filled in."""
    repo.theta("status")
    before, session = State.of(repo), Session(Repository.discover(repo.path))
    worktree.refresh(session)
    os.utime(repo.path / FILE, (1, 1))
    mark = rollback.mark(session.repo, ["other"], unchanged=session.journal.unchanged)
    assert FILE in mark["dirty"]
    index = (repo.path / ".git/index").read_bytes()
    merged(repo)
    made, main, other = repo.git("rev-parse", *(f"{name}:{FILE}" for name in ("", "main", "other"))).split()
    assert made not in (main, other)
    (repo.path / ".git/index").write_bytes(index)
    (repo.path / ".git/AUTO_MERGE").unlink()
    (repo.path / FILE).unlink()
    if merged_to == "manifest":
        (repo.path / FILE).write_bytes(Repository.discover(repo.path).read_blob(made))
    leave(repo, moving=mark)
    look(repo, by_theta=True)
    assert State.of(repo) == before


@pytest.mark.parametrize("is_at_work", [True, False])
def test_e1_a_file_is_put_back_when_the_git_is_over_that_may_hold_the_index(
    repo: Repo, is_at_work: bool
) -> None:
    """A theta that a git starts to filter a file leaves lock and journal of a dead one to a later."""
    repo.theta("status")
    before, session = State.of(repo), Session(Repository.discover(repo.path))
    mark = rollback.mark(session.repo, ["other"])
    (repo.path / FILE).unlink()
    leave(repo, moving=mark)
    (repo.path / ".git/index.lock").touch()
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.path, stdin=subprocess.PIPE) as git:
        if is_at_work:
            assert repo.theta("commit", "-am", "that", code=21).stderr.startswith("error: ")
            repo.theta("log", "-1")
            assert not (repo.path / FILE).exists()
        assert git.stdin is not None
        git.stdin.close()
    look(repo, by_theta=True)
    assert State.of(repo) == before
    assert left_by_theta(repo) == []


def test_e1_a_lock_that_something_has_open_is_removed_later(repo: Repo) -> None:
    """A dying process has its files open for a moment; the first theta after it forgot the lock."""
    session = Session(Repository.discover(repo.path))
    leave(repo, moving=rollback.mark(session.repo, ["other"]))
    with (repo.path / ".git/index.lock").open("xb"):
        repo.theta("log", "-1")
        assert (repo.path / ".git/index.lock").exists()
    repo.theta("log", "-1")
    assert left_by_theta(repo) == []


def test_e1_a_file_whose_filter_fails_is_filled_in_all_the_same(repo: Repo) -> None:
    repo.theta("status")
    session = Session(Repository.discover(repo.path))
    leave(repo, moving=rollback.mark(session.repo, ["other"]))
    (repo.path / FILE).unlink()
    failing = {"COUNT": "1", "KEY_0": "filter.theta.process", "VALUE_0": "false"}
    repo.theta("log", "-1", env={f"GIT_CONFIG_{key}": value for key, value in failing.items()})
    assert sha256(repo.path / FILE) in files(repo)


def test_e1_an_edit_of_the_user_stays(repo: Repo) -> None:
    repo.theta("status")
    session = Session(Repository.discover(repo.path))
    write(repo, {"emb": 7})
    edited = (repo.path / FILE).read_bytes()
    worktree.refresh(session)
    leave(repo, moving=rollback.mark(session.repo, ["other"], unchanged=session.journal.unchanged))
    look(repo, by_theta=True)
    assert (repo.path / FILE).read_bytes() == edited


def test_e1_what_the_user_had_staged_stays_staged(repo: Repo) -> None:
    repo.git("add", "new.py")
    mark = rollback.mark(Repository.discover(repo.path), ["other"])
    repo.git("rm", "-q", "--cached", "new.py")
    merged(repo)
    repo.git("add", "new.py")
    (repo.path / ".git/AUTO_MERGE").write_text(repo.git("write-tree"))
    staged = repo.git("ls-files", "-s")
    leave(repo, moving=mark)
    repo.theta("status")
    assert repo.git("ls-files", "-s") == staged
    assert (repo.path / "new.py").exists()
