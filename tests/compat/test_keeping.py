"""A later clean never removes what plain git staged, stashed or committed."""

from __future__ import annotations

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, NO_HOOKS, commit, digest, edit
from tests.support import Repo
from theta.git.repository import Repository
from theta.store import held_packs


def clean_again(repo: Repo) -> None:
    """Edits that are only looked at: each stores objects and may remove older ones."""
    for step in range(3):
        edit(repo, "layer.2.weight", step + 5.0)
        repo.git("status")
    repo.git("checkout", "-q", MODEL)


def test_a_partly_staged_checkpoint_survives_later_cleans(tracked: Repo) -> None:
    want = edit(tracked, "head.weight")
    edit(tracked, "embed.weight")
    tracked.git("add", "-p", MODEL, stdin="s\nn\ny\n")
    edit(tracked, "layer.1.weight")
    tracked.git("status")
    tracked.git("commit", "-q", "-m", "head only")
    clean_again(tracked)
    assert_agreement(tracked, {MODEL: want})
    clean_again(tracked)
    tracked.git("gc", "-q", "--prune=now")
    tracked.theta("restore", "--source", "HEAD", MODEL)
    assert_agreement(tracked, {MODEL: want})


def test_a_commit_without_hooks_on_another_branch_survives_later_cleans(tracked: Repo) -> None:
    main = digest(tracked)
    tracked.git("checkout", "-q", "-b", "side")
    side = edit(tracked, "layer.1.weight")
    tracked.git(*NO_HOOKS, "commit", "-q", "-a", "-m", "no hooks")
    tracked.git(*NO_HOOKS, "checkout", "-q", "main")
    clean_again(tracked)
    assert_agreement(tracked, {MODEL: main})
    tracked.git("checkout", "-q", "side")
    tracked.theta("fsck", "--mend")
    assert_agreement(tracked, {MODEL: side})


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_commit_without_hooks_does_not_rely_on_another_branch(tracked: Repo, program: str) -> None:
    """The branch whose commit has the tensors is deleted, and its objects are pruned."""
    tracked.git("checkout", "-q", "-b", "other")
    want = edit(tracked, "layer.1.weight")
    tracked.run(program, "commit", "-q", "-a", "-m", "with hooks")
    tracked.git("checkout", "-q", "main")
    assert edit(tracked, "layer.1.weight") == want
    for step in range(4):
        tracked.git(*NO_HOOKS, "add", MODEL)
        tracked.git(*NO_HOOKS, "commit", "-q", "-m", f"without {step}")
        edit(tracked, "layer.1.weight", step + 5.0)
        tracked.git(*NO_HOOKS, "status")
    tracked.git("branch", "-q", "-D", "other")
    tracked.git("reflog", "expire", "--expire=now", "--all")
    tracked.git("gc", "-q", "--prune=now")
    tracked.theta("restore", "--source", "HEAD~3", MODEL)
    assert digest(tracked) == want


def test_a_commit_in_the_middle_of_a_rebase_survives_cleans(tracked: Repo) -> None:
    commit(tracked, "layer.0.weight")
    tracked.git("rebase", "-i", "HEAD~1", env={"GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"})
    edit(tracked, "layer.1.weight")
    tracked.git("commit", "-q", "-am", "in between")
    want = digest(tracked)
    clean_again(tracked)
    tracked.git("rebase", "--continue")
    assert_agreement(tracked, {MODEL: want})
    clean_again(tracked)
    tracked.git("gc", "-q", "--prune=now")
    assert_agreement(tracked, {MODEL: want})


def test_an_add_of_one_checkpoint_survives_cleans_of_another(tracked: Repo) -> None:
    from tests.compat.story import new_model

    other = "other.safetensors"
    new_model(tracked, other, 5)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "two")
    want = edit(tracked, "layer.0.weight", path=other)
    tracked.git("add", other)
    clean_again(tracked)
    tracked.git("gc", "-q", "--prune=now")
    tracked.git("commit", "-q", "-m", "other")
    assert_agreement(tracked, {other: want})


def test_a_dropped_stash_is_still_in_its_commit(tracked: Repo) -> None:
    """``git stash branch`` and ``git merge stash`` name what a stash held after the stash is gone."""
    want = edit(tracked, "layer.1.weight")
    tracked.git("stash")
    kept = tracked.git("rev-parse", "stash")
    tracked.git("branch", "kept", kept)
    tracked.git("stash", "drop")
    clean_again(tracked)
    tracked.git("gc", "-q", "--prune=now")
    tracked.theta("restore", "--source", "kept", MODEL)
    assert digest(tracked) == want


def test_a_clean_that_stores_nothing_keeps_what_is_known_of_the_pack(tracked: Repo) -> None:
    """Git reads a file as new as its index twice: the second clean forgets nothing of the first."""
    edit(tracked, "layer.1.weight")
    tracked.git("status")
    [note] = (tracked.path / ".git/theta/staged").iterdir()
    first = note.read_text().splitlines()
    assert first[0].endswith(".pack")
    tracked.git("commit", "-q", "--allow-empty", "-m", "later")
    (tracked.path / MODEL).touch()
    tracked.git("status")
    tree = tracked.git("rev-parse", held_packs.REFS + note.name)
    held_packs.hold(Repository.discover(tracked.path), note.name, tree, None)
    again = note.read_text().splitlines()
    assert (again[0], again[2:]) == (first[0], first[2:])
