"""The file of ours that a merge leaves in conflict is not staged as the result: theirs would be lost.

Whatever git leaves a text of the conflict in its place, theta puts ours there; what it tells to do works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.agreement import assert_agreement, index_entries
from tests.compat.made import diverged, once
from tests.compat.story import MODEL, combined, commit, digest, edit, run_either
from tests.support import Repo, sha256

BOTH, THEIRS = "layer.1.weight", "layer.2.weight"
SAID = f"{MODEL} is in conflict, and its file is all of ours, without what only theirs changed ({THEIRS})"

STOPPING = {
    "merge": ("merge", "--no-prompt", "side"),
    "cherry-pick": ("cherry-pick", "side"),
    "rebase": ("rebase", "main"),
}
STAGING = (
    ("theta", "add", MODEL),
    ("theta", "add", "."),
    ("theta", "commit", "-a", "-m", "x"),
    ("git", "add", MODEL),
    ("git", "add", "-u"),
    ("git", "commit", "-q", "-a", "-m", "x"),
)
TAKING_OURS = (
    ("git", "checkout", "--ours", MODEL),
    ("git", "checkout", "-q", "-2", MODEL),
    ("git", "restore", "--ours", MODEL),
    ("theta", "checkout", "--ours", MODEL),
    ("theta", "restore", "--ours", MODEL),
)


def words(line: tuple[str, ...]) -> str:
    """The name of a case."""
    return " ".join(line)


@pytest.fixture
def in_conflict(tracked: Repo) -> Repo:
    """A merge of theta's that stopped: both sides changed a tensor, and theirs another one, too."""
    once(tracked, stop, "merge")
    return tracked


def stop(repo: Repo, by: str) -> None:
    """Let a command of theta's stop with a conflict."""
    diverged(repo, BOTH, BOTH)
    repo.git("checkout", "-q", "side")
    edit(repo, THEIRS, 2.0)
    repo.git("commit", "-q", "--amend", "-a", "-m", "side")
    if by != "rebase":
        repo.git("checkout", "-q", "main")
    done = repo.theta(*STOPPING[by], code=None)
    assert done.returncode == 1, done.stderr
    assert {entry.stage for entry in index_entries(repo) if entry.path == MODEL} == {1, 2, 3}


@pytest.mark.parametrize("line", STAGING, ids=words)
@pytest.mark.parametrize("by", STOPPING)
def test_what_nobody_touched_is_not_staged(tracked: Repo, by: str, line: tuple[str, ...]) -> None:
    once(tracked, stop, by)
    before, head = digest(tracked), tracked.git("rev-parse", "HEAD")
    done = run_either(tracked, *line)
    assert done.returncode == (128 if line[0] == "git" else 1)
    assert SAID in done.stderr
    assert "'theta resolve' settles it" in done.stderr
    assert {entry.stage for entry in index_entries(tracked) if entry.path == MODEL} == {1, 2, 3}
    assert (digest(tracked), tracked.git("rev-parse", "HEAD")) == (before, head)


def test_resolve_keeps_what_only_theirs_changed(in_conflict: Repo, tmp_path: Path) -> None:
    in_conflict.theta("add", MODEL, code=1)
    in_conflict.theta("resolve", "-X", "ours", MODEL)
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: combined(in_conflict, tmp_path / "c", (BOTH, 1.0), (THEIRS, 2.0))})


@pytest.mark.parametrize("program", ["theta", "git"])
@pytest.mark.parametrize("line", TAKING_OURS, ids=words)
def test_ours_is_staged_when_it_was_asked_for(in_conflict: Repo, line: tuple[str, ...], program: str) -> None:
    ours = digest(in_conflict)
    assert run_either(in_conflict, *line).returncode == 0
    done = run_either(in_conflict, program, "add", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} lacks what only theirs changed: {THEIRS}" in done.stderr
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: ours})


@pytest.mark.parametrize("program", ["theta", "git"])
def test_an_edited_file_is_staged_with_a_warning(in_conflict: Repo, program: str) -> None:
    edited = edit(in_conflict, BOTH, 0.5)
    done = run_either(in_conflict, program, "add", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"{MODEL} lacks what only theirs changed: {THEIRS}" in done.stderr
    in_conflict.theta("commit", "-m", "merged")
    assert_agreement(in_conflict, {MODEL: edited})


def test_a_file_with_all_of_theirs_is_staged_silently(in_conflict: Repo) -> None:
    in_conflict.git("checkout", "--theirs", MODEL)
    assert in_conflict.theta("add", MODEL).stderr == ""


def test_the_files_beside_it_are_staged(in_conflict: Repo) -> None:
    in_conflict.write("notes.txt", "x\n")
    in_conflict.theta("add", "notes.txt")
    assert "notes.txt" in in_conflict.git("diff", "--cached", "--name-only").split()


@pytest.mark.parametrize(
    "line",
    [("git", "merge", "--abort"), ("theta", "merge", "--abort"), ("git", "reset", "-q", "--hard")],
    ids=words,
)
def test_giving_up_puts_ours_back(in_conflict: Repo, line: tuple[str, ...]) -> None:
    ours = digest(in_conflict)
    assert run_either(in_conflict, *line).returncode == 0
    assert_agreement(in_conflict, {MODEL: ours})
    assert commit(in_conflict, THEIRS, 3.0)


WAYS = {
    "merge": ("merge", "side"),
    "pull": ("pull", "-q", "--no-rebase", "."),
    "pull --rebase": ("pull", "-q", "--rebase", "."),
    "cherry-pick": ("cherry-pick", "side"),
    "am": ("am", "-q", "-3", "../0001-side.patch"),
    "stash pop": ("stash", "pop"),
    "stash apply": ("stash", "apply", "-q"),
    "checkout -m": ("checkout", "-q", "-m", "side"),
    "switch -m": ("switch", "-q", "-m", "side"),
    "rebase --autostash": ("rebase", "-q", "--autostash", "side"),
    "pull --autostash": ("pull", "-q", "--rebase", "--autostash", ".", "side"),
    "merge --autostash": ("merge", "-q", "--autostash", "side"),
    "merge and commit --autostash": ("merge", "-q", "--no-ff", "--no-edit", "--autostash", "side"),
}
"""Ways to a conflict with the branch side, or of changes in the worktree with it."""
_TOLD_IN_A_TABLE = ("merge", "cherry-pick")
_IS_OURS = f"{MODEL} is in conflict; its file is ours until 'theta resolve' settles it"


def prepare(repo: Repo, way: str) -> None:
    """Make a branch side, and what is in conflict with it: a commit on main, a stash or the worktree."""
    is_committed = way in ("merge", "pull", "pull --rebase", "cherry-pick", "am")
    is_stashed = way.startswith("stash")
    once(repo, oppose_side, "commit" if is_committed else "stash" if is_stashed else "edit")
    if way == "am":
        repo.git("format-patch", "-q", "-1", "side", "-o", "..")


def oppose_side(repo: Repo, by: str) -> None:
    """Make a branch side, and change a tensor of it otherwise: in a commit, a stash or the worktree."""
    once(repo, stop_side)
    if by == "commit":
        commit(repo, BOTH, 1.0)
        repo.git("config", "branch.main.remote", ".")
        repo.git("config", "branch.main.merge", "refs/heads/side")
        return
    edit(repo, BOTH, 1.0)
    if by == "stash":
        repo.git("stash", "-q")
        repo.git("merge", "-q", "side")


def stop_side(repo: Repo) -> None:
    """Make a branch side with one commit, which changes two tensors."""
    repo.git("checkout", "-q", "-b", "side")
    edit(repo, THEIRS, 2.0)
    edit(repo, BOTH, 2.0)
    repo.git("commit", "-q", "-a", "-m", "side")
    repo.git("checkout", "-q", "main")


def side_of(repo: Repo, stage: int, scratch: Path) -> str:
    """The sha256 of the file of a side of the conflict."""
    repo.git("worktree", "add", "-q", "--detach", str(scratch), "HEAD")
    other = Repo(scratch)
    oid = next(one.oid for one in index_entries(repo) if (one.path, one.stage) == (MODEL, stage))
    other.git("update-index", "--cacheinfo", f"100644,{oid},{MODEL}")
    other.git("checkout", "-q", "--", MODEL)
    return sha256(scratch / MODEL)


def holds_text(repo: Repo) -> bool:
    """Return whether the file is git's text of the conflict."""
    return (repo.path / MODEL).read_bytes().startswith(b"theta checkpoint")


@pytest.mark.parametrize("way", WAYS)
def test_theta_leaves_the_file_of_ours(tracked: Repo, tmp_path: Path, way: str) -> None:
    prepare(tracked, way)
    done = tracked.theta(*WAYS[way], code=None)
    assert {entry.stage for entry in index_entries(tracked) if entry.path == MODEL} == {1, 2, 3}
    assert (_IS_OURS in done.stderr) is (way not in _TOLD_IN_A_TABLE), done.stderr
    assert digest(tracked) == side_of(tracked, 2, tmp_path / "ours")
    refused = tracked.theta("add", MODEL, code=1)
    assert "'theta resolve' settles it" in refused.stderr
    theirs = side_of(tracked, 3, tmp_path / "theirs")
    tracked.theta("restore", "--theirs", MODEL)
    assert digest(tracked) == theirs
    tracked.theta("resolve", "-X", "theirs")
    assert {entry.stage for entry in index_entries(tracked) if entry.path == MODEL} == {0}
    assert not holds_text(tracked)


@pytest.mark.parametrize("way", WAYS)
def test_after_plain_git_theta_names_commands_that_work(tracked: Repo, tmp_path: Path, way: str) -> None:
    prepare(tracked, way)
    tracked.try_git(*WAYS[way])
    assert holds_text(tracked)
    refused = tracked.theta("add", MODEL, code=1)
    assert f"{MODEL} is in conflict; 'theta resolve' settles it" in refused.stderr
    assert f"'theta restore --ours {MODEL}'" in refused.stderr
    tracked.theta("restore", "--ours", MODEL)
    assert digest(tracked) == side_of(tracked, 2, tmp_path / "ours")
    tracked.theta("resolve", "-X", "theirs")
    assert {entry.stage for entry in index_entries(tracked) if entry.path == MODEL} == {0}
    assert not holds_text(tracked)


@pytest.mark.parametrize(
    "line",
    [("restore", "-m", MODEL), ("checkout", "-m", "--", MODEL), ("checkout", "--conflict=diff3", MODEL)],
    ids=words,
)
def test_a_conflict_that_is_made_again_is_of_the_file_of_ours(
    in_conflict: Repo, line: tuple[str, ...]
) -> None:
    ours = digest(in_conflict)
    in_conflict.theta("restore", "--ours", MODEL)
    done = in_conflict.theta(*line)
    assert _IS_OURS in done.stderr
    assert digest(in_conflict) == ours
    in_conflict.theta("add", MODEL, code=1)  # what was chosen before is not chosen any more


def test_a_text_that_was_there_before_stays(tracked: Repo) -> None:
    prepare(tracked, "merge")
    tracked.try_git("merge", "side")
    edited = (tracked.path / MODEL).read_text().replace("=======\n", "=======\n=======\n", 1)
    (tracked.path / MODEL).write_text(edited)
    tracked.theta("stash", "list")
    tracked.theta("commit", "-m", "x", code=None)
    assert (tracked.path / MODEL).read_text() == edited


def test_a_choice_is_one_of_this_conflict(in_conflict: Repo) -> None:
    in_conflict.git("checkout", "--ours", MODEL)
    in_conflict.git("merge", "--abort")
    in_conflict.git("checkout", "-q", "side")
    edit(in_conflict, THEIRS, 5.0)
    in_conflict.git("commit", "-q", "-a", "-m", "more")
    in_conflict.git("checkout", "-q", "main")
    in_conflict.theta("merge", "--no-prompt", "side", code=1)
    assert SAID in in_conflict.theta("add", MODEL, code=1).stderr


def test_a_manifest_is_staged_by_the_commands_that_are_named(in_conflict: Repo, tmp_path: Path) -> None:
    theirs = side_of(in_conflict, 3, tmp_path / "theirs")
    (in_conflict.path / MODEL).write_text(in_conflict.git("show", f":3:{MODEL}") + "\n")
    refused = in_conflict.theta("add", MODEL, code=1)
    assert f"'git add {MODEL}' takes the manifest" in refused.stderr
    in_conflict.git("add", MODEL)
    in_conflict.theta("restore", MODEL)
    assert digest(in_conflict) == theirs


def test_a_manifest_of_nothing_staged_is_taken_by_the_commands_that_are_named(tracked: Repo) -> None:
    (tracked.path / "copy.safetensors").write_text(tracked.git("show", f"HEAD:{MODEL}") + "\n")
    refused = tracked.theta("add", "copy.safetensors", code=23)
    assert "'git add copy.safetensors' takes it" in refused.stderr
    tracked.git("add", "copy.safetensors")
    tracked.theta("restore", "copy.safetensors")
    assert digest(tracked, "copy.safetensors") == digest(tracked)


@pytest.mark.parametrize("way", ["merge", "pull --rebase", "cherry-pick", "am", "stash pop"])
def test_status_begins_with_the_lines_of_git(tracked: Repo, way: str) -> None:
    """They tell where the operation is, and what continues, skips and aborts it."""
    prepare(tracked, way)
    run_either(tracked, "theta", *WAYS[way])
    git = tracked.git("-c", "core.sparseCheckout=false", "status")
    head = git.partition("Unmerged paths:")[0].partition("Changes to be")[0]
    told = tracked.theta("status").stdout
    assert head.replace('"git ', '"theta ').split() == told.partition("Unmerged paths:")[0].split()
    assert "--abort" in told or way == "stash pop"


@pytest.mark.parametrize("program", ["theta", "git"])
def test_diff_tells_what_is_in_conflict(tracked: Repo, program: str) -> None:
    prepare(tracked, "merge")
    run_either(tracked, program, "merge", "side")
    tracked.write("code.py", "print('edited')\n")
    shown = tracked.theta("diff")
    assert f"{MODEL}: 1 in conflict" in shown.stdout
    assert f"{BOTH}  both modified" in shown.stdout
    assert THEIRS not in shown.stdout
    assert "diff --cc" not in shown.stdout
    assert "+print('edited')" in shown.stdout
    assert (
        "'theta resolve' settles the checkpoints in conflict; then 'theta merge --continue'" in shown.stderr
    )
    numbers = tracked.theta("diff", "--stats").stdout
    assert all(word in numbers for word in ("Δ ours", "Δ theirs", "cosine", "+1.000"))
    staged = tracked.theta("diff", "--cached").stdout
    assert f"{MODEL}: 1 in conflict" in staged
    assert "delete" not in staged


def test_the_report_of_diff_has_what_is_in_conflict(in_conflict: Repo) -> None:
    def report(*line: str, code: int = 0) -> list[Any]:
        told = in_conflict.theta("diff", "--json", *line, code=code).stdout
        return list(json.loads(told)["theta.diff/v1"])

    torn = {"path": MODEL, "files": [MODEL], "tensors": [], "conflicts": [BOTH]}
    assert torn in report()
    assert torn in report("--cached", "--exit-code", code=1)
    assert {**torn, "conflicts": []} in report("--tensor", "nothing*")
    assert report("--", "code.py") == []
    assert all("conflicts" not in item for item in report("HEAD~", "HEAD"))


def test_diff_tells_of_conflicts_that_are_asked_for(in_conflict: Repo) -> None:
    assert in_conflict.theta("diff", "--exit-code", code=1).stdout
    for line in (("--", "code.py"), ("--tensor", "nothing*"), ("HEAD~", "HEAD")):
        assert "in conflict" not in in_conflict.theta("diff", *line).stdout
    assert in_conflict.theta("diff", "--exit-code", "--", "code.py").stdout == ""
