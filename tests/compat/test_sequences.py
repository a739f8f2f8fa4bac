"""``theta rebase``, ``cherry-pick`` and ``revert``: past the stops that only checkpoints make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history, git_status
from tests.compat.inprocess import committed, shift, theta
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo, make_model, random_tensors


def subjects(repo: Repo, revisions: str = "HEAD") -> list[str]:
    return repo.git("log", "--format=%s", revisions).splitlines()


def test_a_rebase_goes_on_by_itself(forked: Repo) -> None:
    """Three commits on one tensor: two stops, settled by -X; messages, authors and order stay."""
    for step in (3.0, 4.0):
        committed(forked, (TENSOR, step))
    committed(forked, ("layer.2.weight", 7.0))
    old = subjects(forked, "side..main")
    told = theta(forked, "rebase", "-X", "average", "side")
    assert subjects(forked, "side..main") == old
    assert forked.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert_agreement(forked, {MODEL: digest(forked)})
    assert_history(forked)
    assert git_status(forked) == []
    # 1|2 -> 1.5; 4|1.5 -> 2.75; 8|2.75 -> 5.375
    assert shift(forked, TENSOR) == 5.375
    assert shift(forked, "layer.2.weight") == 7.0
    assert told.out.count("merged 5 tensors") == 3


def test_a_rebase_of_large_files(forked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size manifests stand in for files; they must not be filled in while git goes on."""
    monkeypatch.setenv("THETA_SMUDGE_LIMIT", "1000")
    committed(forked, ("layer.2.weight", 7.0))
    committed(forked, ("head.weight", 3.0))
    forked.git("rebase", "-q", "--onto", "side", "HEAD~2")
    assert [shift(forked, name) for name in (TENSOR, "layer.2.weight", "head.weight")] == [2.0, 7.0, 3.0]
    assert_agreement(forked, {MODEL: digest(forked)})
    assert_history(forked)


def test_a_rebase_stops_continues_and_aborts(forked: Repo) -> None:
    main = digest(forked)
    told = theta(forked, "rebase", "side", code=1)
    assert "theta rebase --continue" in told.err
    head = forked.git("rev-parse", "HEAD")
    assert head == forked.git("rev-parse", "side")
    theta(forked, "rebase", "--abort")
    assert_agreement(forked, {MODEL: main})
    theta(forked, "rebase", "side", code=1)
    theta(forked, "resolve", "-X", "theirs")
    theta(forked, "rebase", "--continue")
    assert shift(forked, TENSOR) == 1.0
    assert_agreement(forked, {MODEL: main})
    assert_history(forked)


def test_an_interactive_rebase_keeps_its_editor(forked: Repo, tmp_path: Path) -> None:
    """The step that theta settles asks for no message; the reword after it does."""
    committed(forked, ("layer.2.weight", 7.0))
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\necho reworded > "$1"; echo asked >> {tmp_path}/asked\n')
    editor.chmod(0o755)
    sequence = "sed -i -e '2s/^pick/reword/'"
    env = {"GIT_SEQUENCE_EDITOR": sequence, "GIT_EDITOR": str(editor)}
    theta(forked, "rebase", "-i", "-X", "theirs", "side", env=env)
    assert subjects(forked, "side..main") == ["reworded", TENSOR]
    assert (tmp_path / "asked").read_text() == "asked\n"
    assert (shift(forked, TENSOR), shift(forked, "layer.2.weight")) == (1.0, 7.0)
    assert_history(forked)


def test_commands_of_a_rebase_see_files(forked: Repo) -> None:
    command = f'head -c 6 {MODEL} | grep -qv theta && test -z "$(git status --porcelain -uno)"'
    theta(forked, "rebase", "-X", "theirs", "-x", command, "side")
    assert shift(forked, TENSOR) == 1.0


def test_a_range_is_picked_and_files_follow_the_side(forked: Repo) -> None:
    forked.git("checkout", "-q", "side")
    forked.write("code.py", "print('side')\n")
    committed(forked, (TENSOR, 2.0))
    forked.git("checkout", "-q", "main")
    forked.write("code.py", "print('main')\n")
    forked.git("commit", "-q", "-am", "code")
    theta(forked, "cherry-pick", "-x", "-X", "theirs", "main..side")
    assert shift(forked, TENSOR) == 4.0
    assert (forked.path / "code.py").read_text() == "print('side')\n"
    assert "(cherry picked from commit" in forked.git("log", "-1", "--format=%b")
    assert forked.git("rev-list", "--count", "side~2..HEAD") == "4"
    assert_agreement(forked, {MODEL: digest(forked)})
    assert_history(forked)


def test_a_pick_that_stops_is_continued_or_skipped(forked: Repo) -> None:
    main = digest(forked)
    theta(forked, "cherry-pick", "side", code=1)
    theta(forked, "cherry-pick", "--skip")
    assert_agreement(forked, {MODEL: main})
    theta(forked, "cherry-pick", "side", code=1)
    theta(forked, "cherry-pick", "--continue", "-X", "average")
    assert shift(forked, TENSOR) == 1.5
    assert subjects(forked)[0] == subjects(forked, "side")[0]
    assert_agreement(forked, {MODEL: digest(forked)})


def test_a_pick_without_commit_is_settled(forked: Repo) -> None:
    head = forked.git("rev-parse", "HEAD")
    theta(forked, "cherry-pick", "-n", "-X", "average", "side")
    assert (forked.git("rev-parse", "HEAD"), shift(forked, TENSOR)) == (head, 1.5)
    assert git_status(forked) == [f"M  {MODEL}"]


def test_a_pick_that_becomes_empty_is_gits_matter(forked: Repo) -> None:
    theta(forked, "cherry-pick", "-X", "ours", "side", code=1)
    assert forked.git("status", "--porcelain", "-uno") == ""
    theta(forked, "cherry-pick", "--skip")
    assert shift(forked, TENSOR) == 1.0


@pytest.mark.parametrize(("side", "want"), [("ours", 6.0), ("theirs", 0.0), ("average", 3.0)])
def test_a_revert_under_later_changes(forked: Repo, side: str, want: float) -> None:
    committed(forked, (TENSOR, 5.0))
    code = 1 if side == "ours" else 0
    theta(forked, "revert", "--no-edit", "-X", side, "HEAD~1", code=code)
    assert shift(forked, TENSOR) == want
    assert subjects(forked)[0].startswith("Revert") == (side != "ours")


@pytest.mark.parametrize(
    "args",
    [["rebase", "side"], ["rebase", "--onto", "side", "main~1"], ["cherry-pick", "side"], ["revert", "HEAD"]],
)
def test_b2_a_rule_that_names_no_tensor_is_refused(forked: Repo, args: list[str]) -> None:
    """A typo in ``--rule`` is not dropped in silence; before anything is begun, and at a stop."""
    head = forked.git("rev-parse", "HEAD")
    told = theta(forked, *args, "--rule", f"{TENSOR}s=ours", code=2)
    assert f"--rule '{TENSOR}s=ours' matches no tensor" in told.err
    assert TENSOR in told.err
    assert (forked.git("rev-parse", "HEAD"), git_status(forked)) == (head, [])


def test_b2_a_rule_at_a_stop_names_a_tensor_of_what_is_left(forked: Repo) -> None:
    theta(forked, "rebase", "side", code=1)
    told = theta(forked, "rebase", "--continue", "--rule", "nosuch.*=ours", code=2)
    assert "--rule 'nosuch.*=ours' matches no tensor" in told.err
    theta(forked, "rebase", "--continue", "--rule", f"{TENSOR}=theirs")
    assert shift(forked, TENSOR) == 1.0


def test_b2_a_rule_may_name_a_tensor_that_only_a_picked_commit_has(forked: Repo) -> None:
    theta(forked, "switch", "-q", "-c", "grown", "side")
    make_model(forked.path / "adapter.safetensors", random_tensors({"adapter.weight": (8, 8)}))
    theta(forked, "add", "adapter.safetensors")
    theta(forked, "commit", "-q", "-m", "an adapter")
    theta(forked, "switch", "-q", "main")
    theta(forked, "cherry-pick", "--rule", "adapter.*=theirs", "grown")
    assert (forked.path / "adapter.safetensors").exists()


_PRINTING = {
    "pick": ("cherry-pick", "-X", "average", "side"),
    "pick without commit": ("cherry-pick", "-n", "-X", "average", "side"),
    "stopped pick": ("cherry-pick", "side"),
    "empty pick": ("cherry-pick", "-X", "ours", "side"),
    "revert": ("revert", "--no-edit", "HEAD"),
    "rebase": ("rebase", "-X", "average", "side"),
    "pull": ("pull", "--no-rebase", ".", "other"),
    "stopped pull": ("pull", "--no-rebase", ".", "side"),
    "pull by rebase": ("pull", "--rebase", ".", "side"),
    "merge": ("merge", "-s", "resolve", "side"),
    "am": ("am", "-3", "side.patch"),
    "stash": ("stash", "pop"),
}


@pytest.mark.parametrize("command", _PRINTING.values(), ids=_PRINTING.keys())
def test_git_tells_nothing_of_what_is_below_theta(forked: Repo, command: tuple[str, ...]) -> None:
    """Neither the files of a summary or a conflict, nor how many of them a sparse checkout leaves out."""
    forked.git("branch", "-q", "other", "HEAD")
    forked.git("switch", "-q", "other")
    edit(forked, "layer.2.weight", 2.0)
    forked.theta("commit", "-q", "-am", "more")
    if command[0] == "stash":
        edit(forked, TENSOR, 7.0)
        forked.git("stash", "-q")
    if command[0] == "am":
        forked.write("side.patch", forked.git("format-patch", "-1", "side", "--stdout") + "\n")
    forked.git("switch", "-q", "side" if command[0] == "stash" else "main")
    done = forked.theta(*command, code=None)
    told = done.stdout + done.stderr
    assert ".theta/" not in told
    assert "sparse" not in told


def test_a_pick_tells_its_commits_as_theta_commit_does(forked: Repo) -> None:
    picked = forked.theta("cherry-pick", "-X", "average", "side").stdout.splitlines()
    assert f" {MODEL}: 1 changed of 5 tensors" in picked
    assert not [line for line in picked if "file changed" in line or "CONFLICT" in line]
    forked.write("new.txt", "new\n")
    forked.git("add", "new.txt")
    forked.git("commit", "-q", "-m", "new")
    told = forked.theta("revert", "--no-edit", "HEAD", "HEAD~1").stdout.splitlines()
    subjects_told = [line.partition("] ")[2] for line in told if line.startswith("[main ")]
    assert subjects_told == ['Revert "new"', f'Revert "{TENSOR}"']
    assert " 1 file changed, 1 deletion(-)" in told
    assert " delete mode 100644 new.txt" in told


def test_a_stop_that_is_left_is_told_with_gits_words(forked: Repo) -> None:
    stopped = forked.theta("cherry-pick", "side", code=1)
    assert "error: could not apply" in stopped.stderr
    assert "git cherry-pick --skip" in stopped.stderr
    settled = forked.theta("cherry-pick", "--continue", "-X", "average")
    assert "could not apply" not in settled.stderr
    forked.git("reset", "-q", "--hard", "HEAD~1")
    assert "could not apply" not in forked.theta("cherry-pick", "-X", "average", "side").stderr


@pytest.mark.parametrize(
    ("command", "go_on"),
    [
        (("pull", "--no-rebase", ".", "side"), "theta merge --continue"),
        (("pull", "--rebase", ".", "side"), "theta rebase --continue"),
    ],
)
def test_a_stopped_pull_says_how_to_go_on(forked: Repo, command: tuple[str, ...], go_on: str) -> None:
    done = forked.theta(*command, code=None)
    assert done.returncode
    assert f"hint: 'theta resolve' settles the checkpoints in conflict; then '{go_on}'" in done.stderr
    assert "changed of" not in done.stdout
    forked.theta("resolve", "-X", "average")
    forked.theta(*go_on.split()[1:])
    assert shift(forked, TENSOR) == 1.5
    assert_agreement(forked, {MODEL: digest(forked)})
