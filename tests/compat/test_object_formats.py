"""The main journeys over all formats of a repository.

Libgit2 reads objects of SHA-1 whose refs are files; SHA-256, and refs in tables, are left to git itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.compat.inprocess import committed, shift, theta
from tests.compat.story import MODEL, TENSOR, digest, new_model
from tests.support import Repo
from theta.git.repository import Repository
from theta.porcelain.workspace import unfinished

DIGITS: Final = {"sha1": 40, "sha256": 64}
TABLES: Final = pytest.mark.skipif(
    "--ref-format" not in subprocess.run(["git", "init", "-h"], capture_output=True, text=True).stdout,
    reason="git has refs in tables from 2.45 on",
)
FORMS: Final = (
    ("sha1", "files"),
    ("sha256", "files"),
    pytest.param(("sha1", "reftable"), marks=TABLES),
    pytest.param(("sha256", "reftable"), marks=TABLES),
)
OTHER: Final = "layer.0.weight"


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Repo]:
    """A repository of one format with a tracked checkpoint, and branches main and side that changed it."""
    hashes, refs = request.param
    repo = Repo(tmp_path_factory.mktemp(hashes) / "repo")
    repo.path.mkdir()
    theta(repo, "init", "-q", f"--object-format={hashes}", *[f"--ref-format={refs}"] * (refs != "files"))
    theta(repo, "track", "*.safetensors")
    new_model(repo)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "first model")
    theta(repo, "switch", "-q", "-c", "side")
    committed(repo, (TENSOR, 3.0))
    theta(repo, "switch", "-q", "main")
    committed(repo, (TENSOR, 1.0))
    return hashes, repo


def opened(repo: Repo) -> Repository:
    return Repository.discover(repo.path)


@pytest.fixture
def form(told: tuple[str, Repo]) -> str:
    return told[0]


@pytest.fixture
def repo(told: tuple[str, Repo], tmp_path: Path) -> Repo:
    return told[1].copy(tmp_path / "repo")


def test_a_commit_is_whole(form: str, repo: Repo) -> None:
    assert repo.git("rev-parse", "--show-object-format") == form
    manifest = repo.git("show", f"HEAD:{MODEL}")
    ids = re.findall(r"(?:^skeleton |sha256:[0-9a-f]{64} )([0-9a-f]+)$", manifest, re.MULTILINE)
    assert len(ids) == 6 and {len(oid) for oid in ids} == {DIGITS[form]}
    assert repo.git("status", "--porcelain") == "" == theta(repo, "status", "--porcelain").out
    assert repo.git("fsck", "--strict", "--no-dangling") == ""
    assert "no problems" in theta(repo, "fsck", "--read-data").out


def test_plain_git_makes_the_first_commit(form: str, tmp_path: Path) -> None:
    """The hooks compare it with no tree, whose id hangs on the hash."""
    repo = Repo(tmp_path / "new")
    repo.path.mkdir()
    theta(repo, "init", "-q", f"--object-format={form}")
    theta(repo, "track", "*.safetensors")
    new_model(repo)
    repo.write("other.bin", b"\0" * 10)
    repo.git("add", ".")
    done = repo.try_git("commit", "-q", "-m", "first")
    assert (done.returncode, done.stderr) == (0, "")
    assert repo.git("status", "--porcelain") == ""
    assert "no problems" in theta(repo, "fsck").out


def test_what_the_filter_keeps_is_let_go(repo: Repo) -> None:
    """Git reads what theta staged by itself; each version left refs that no later filter removed."""
    for step in range(4):
        new_model(repo, seed=10 + step)
        repo.theta("commit", "-qam", f"step {step}")
        repo.git("status")
    new_model(repo, seed=20)
    repo.git("status")
    names = repo.git("for-each-ref", "--format=%(refname)", "refs/theta/clean").split("\n")
    assert len({name.removesuffix("-text") for name in names}) <= 2  # of what is staged, and of the file
    repo.git("gc", "-q", "--prune=now")
    assert "no problems" in theta(repo, "fsck", "--read-data").out


def test_a_change_is_told_and_restored(repo: Repo) -> None:
    before = digest(repo)
    new_model(repo, seed=5)
    assert "5 changed of 5 tensors" in theta(repo, "diff").out
    theta(repo, "restore", MODEL)
    assert digest(repo) == before
    assert TENSOR in theta(repo, "diff", "HEAD~1", "HEAD").out
    assert theta(repo, "show", "--stat", "HEAD").code == 0


def test_sides_are_merged_and_taken_apart(repo: Repo) -> None:
    theta(repo, "merge", "-q", "-X", "average", "side")
    assert shift(repo, TENSOR) == 2.0
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "switch", "-q", "--detach", "HEAD~1")
    assert shift(repo, TENSOR) == 1.0
    theta(repo, "switch", "-q", "side")
    assert shift(repo, TENSOR) == 3.0
    assert "no problems" in theta(repo, "fsck").out


def test_plain_git_leaves_a_conflict_that_theta_settles(repo: Repo) -> None:
    assert repo.try_git("merge", "-q", "side").returncode == 1
    theta(repo, "resolve", "-X", "theirs")
    repo.git("commit", "-q", "--no-edit")
    assert shift(repo, TENSOR) == 3.0
    assert "no problems" in theta(repo, "fsck").out


def test_plain_git_commits_and_a_pick_follows(repo: Repo) -> None:
    committed(repo, (OTHER, 1.0))
    theta(repo, "switch", "-q", "side")
    theta(repo, "cherry-pick", "main")
    assert (shift(repo, TENSOR), shift(repo, OTHER)) == (3.0, 1.0)
    assert repo.git("status", "--porcelain") == ""


def test_it_is_pushed_and_cloned(form: str, repo: Repo, tmp_path: Path) -> None:
    up = tmp_path / "up.git"
    repo.git("init", "-q", "--bare", f"--object-format={form}", str(up))
    theta(repo, "push", "-q", str(up), "main")
    theta(repo, "clone", "-q", str(up), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert digest(clone) == digest(repo)
    assert clone.git("status", "--porcelain") == ""
    assert "no problems" in theta(clone, "fsck", "--read-data").out
    assert clone.git("rev-parse", "--show-object-format") == form


def test_a_branch_of_another_worktree_is_known(repo: Repo, tmp_path: Path) -> None:
    """It is left alone by undo and cascade."""
    assert opened(repo).refs.used_elsewhere() == set()
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"), "side")
    linked = Repo(tmp_path / "linked", repo.ticks)
    assert opened(repo).refs.used_elsewhere() == {"refs/heads/side"}
    assert opened(linked).refs.used_elsewhere() == {"refs/heads/main"}
    committed(linked, (OTHER, 4.0))
    assert "no problems" in theta(linked, "fsck").out
    assert linked.git("status", "--porcelain") == ""


def test_a_merge_is_undone(repo: Repo) -> None:
    before = digest(repo), repo.git("rev-parse", "main")
    theta(repo, "merge", "-q", "-X", "average", "side")
    theta(repo, "undo")
    assert (digest(repo), repo.git("rev-parse", "main")) == before
    assert repo.git("status", "--porcelain") == ""


def test_a_pick_is_over_when_the_reflog_of_head_tells_its_commit(repo: Repo) -> None:
    """The file of a git that was killed behind its commit is taken away, and no other."""
    if (repo.path / ".git/reftable").exists():
        over_in_tables(repo)
        return
    before, left = repo.git("rev-parse", "main"), repo.path / ".git/CHERRY_PICK_HEAD"
    left.write_text(repo.git("rev-parse", "side") + "\n")
    unfinished.end(opened(repo), before)
    assert left.exists(), "HEAD has not moved"
    repo.git("-c", "core.hooksPath=/dev/null", "update-ref", "-m", "cherry-pick: made", "HEAD", "main~1")
    repo.git("read-tree", "main")
    os.utime(left, (4e9, 4e9))
    unfinished.end(opened(repo), before)
    assert left.exists(), "it is of a later pick"
    os.utime(left, (1, 1))
    unfinished.end(opened(repo), before)
    assert not left.exists()


def over_in_tables(repo: Repo) -> None:
    """Git keeps the commit that is picked with the other refs, without a time."""
    before = repo.git("rev-parse", "main")
    repo.git("update-ref", "CHERRY_PICK_HEAD", "side")
    unfinished.end(opened(repo), before)
    assert repo.git("rev-parse", "CHERRY_PICK_HEAD"), "HEAD has not moved"
    quiet = ("-c", "core.hooksPath=/dev/null", "update-ref", "-m", "cherry-pick: made", "HEAD")
    repo.git(*quiet, "main~1")
    repo.git("read-tree", "main")
    unfinished.end(opened(repo), before)
    assert repo.git("rev-parse", "CHERRY_PICK_HEAD"), "it is of another pick"
    written = {"GIT_AUTHOR_DATE": repo.git("log", "-1", "--format=%ad", "side")}
    repo.git(*quiet, repo.git("commit-tree", "main^{tree}", "-p", "main", "-m", "made", env=written))
    unfinished.end(opened(repo), before)
    assert repo.try_git("rev-parse", "-q", "--verify", "CHERRY_PICK_HEAD").returncode == 1


@pytest.mark.parametrize("name", ["cherry-pick", "revert", "rebase"])
def test_a_stop_of_plain_git_is_known_and_goes_on(repo: Repo, name: str) -> None:
    """The commit that is picked, reverted or rebased stands in a file, or where all refs are."""
    if name == "revert":
        committed(repo, (TENSOR, 5.0))
    words = {"cherry-pick": ["side"], "revert": ["--no-edit", "HEAD~1"], "rebase": ["side"]}[name]
    subject = repo.git("log", "-1", "--format=%s", "side" if name == "cherry-pick" else "HEAD~1")
    assert repo.try_git(name, *words).returncode == 1
    told = json.loads(theta(repo, "status", "--json").out)["theta.status/v1"]
    assert (told["operation"], told["conflicts"]) == (name, {MODEL: [TENSOR]})
    theta(repo, "resolve", "-X", "theirs")
    theta(repo, name, "--continue")
    assert shift(repo, TENSOR) == {"cherry-pick": 3.0, "revert": 0.0, "rebase": 1.0}[name]
    if name != "rebase":
        assert subject in repo.git("log", "-1", "--format=%B")
    assert repo.git("status", "--porcelain") == ""
    assert "no problems" in theta(repo, "fsck").out


def test_a_pick_is_settled_and_goes_on_by_itself(repo: Repo) -> None:
    theta(repo, "cherry-pick", "-X", "theirs", "side")
    assert shift(repo, TENSOR) == 3.0
    assert repo.git("rev-list", "--count", "main") == "3"
    assert json.loads(theta(repo, "status", "--json").out)["theta.status/v1"]["operation"] == ""


def test_changes_that_a_merge_puts_aside_come_back(repo: Repo) -> None:
    before = repo.git("rev-parse", "main")
    repo.write(".gitattributes", f"{(repo.path / '.gitattributes').read_text()}# more\n")
    theta(repo, "merge", "-q", "--autostash", "-X", "average", "side")
    assert (repo.path / ".gitattributes").read_text().endswith("# more\n")
    assert shift(repo, TENSOR) == 2.0
    assert repo.git("rev-parse", "ORIG_HEAD") == before
