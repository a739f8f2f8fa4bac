"""``theta merge``: strategies, rules, several branches, rehearsals, and merges done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.inprocess import branched, committed, copied, shift, started, theta
from tests.compat.story import MODEL, digest, edit
from tests.support import Repo

TENSOR, OTHER = "layer.1.weight", "layer.2.weight"


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Four branches: a, b and c changed one tensor, d another one."""
    repo = started(tmp_path_factory.mktemp("forest") / "repo")
    branched(
        repo,
        a=[(TENSOR, 1.0)],
        b=[(TENSOR, 2.0), ("head.weight", 4.0)],
        c=[(TENSOR, 6.0)],
        d=[(OTHER, 3.0)],
    )
    theta(repo, "switch", "-q", "a")
    return repo


@pytest.fixture
def repo(forest: Repo, tmp_path: Path) -> Repo:
    """A copy with branch a checked out."""
    return copied(forest, tmp_path / "repo")


def parents(repo: Repo) -> int:
    return len(repo.git("rev-parse", "HEAD^@").split())


def objects(repo: Repo) -> set[str]:
    return set(repo.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())


def test_rules_go_before_the_strategy_and_are_done_again(repo: Repo) -> None:
    theta(repo, "merge", "--rule", "layer.*=linear:weight=[3,1]", "-X", "ours", "b")
    assert (shift(repo, TENSOR), shift(repo, "head.weight")) == (1.25, 4.0)
    body = repo.git("log", "-1", "--format=%B")
    assert "Theta-Merge: --rule 'layer.*=linear:weight=[3,1]'" in body, "-X ours settled nothing"
    before = objects(repo)
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert objects(repo) == before
    assert_agreement(repo, {MODEL: digest(repo)})


def test_rounds_are_done_again(repo: Repo) -> None:
    theta(repo, "merge", "b", code=1)
    theta(repo, "resolve", "-X", "average", MODEL)
    theta(repo, "merge", "--continue")
    assert "Theta-Merge: -X average\n" in repo.git("log", "-1", "--format=%B") + "\n"
    theta(repo, "merge", "--replay", "HEAD")
    repo.git("commit", "-q", "--amend", "-m", "without a trailer")
    assert "by hand" in theta(repo, "merge", "--replay", "HEAD").out
    repo.git("commit", "-q", "--amend", "-m", "another recipe\n\nTheta-Merge: -X ours")
    assert f"{MODEL}: not what" in theta(repo, "merge", "--replay", "HEAD", code=1).out
    theta(repo, "merge", "--replay", "HEAD~1", code=2)


def test_configuration_is_the_default(repo: Repo) -> None:
    repo.git("config", "theta.merge.strategy", "theirs")
    repo.git("config", "--add", "theta.merge.rule", "head*=ours")
    theta(repo, "merge", "b")
    assert (shift(repo, TENSOR), shift(repo, "head.weight")) == (2.0, 4.0)
    repo.git("reset", "-q", "--hard", "HEAD~1")
    theta(repo, "merge", "-X", "average", "b")
    assert shift(repo, TENSOR) == 1.5


def test_several_branches_make_one_average(repo: Repo) -> None:
    told = theta(repo, "merge", "b", "c", "d", code=1)
    assert TENSOR in told.out
    assert not (repo.path / ".git/MERGE_HEAD").exists()
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "merge", "-X", "average", "b", "c", "d")
    assert [shift(repo, name) for name in (TENSOR, OTHER, "head.weight")] == [3.0, 3.0, 4.0]
    assert parents(repo) == 4
    assert repo.git("log", "-1", "--format=%s") == "Merge branches 'b', 'c' and 'd' into a"
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert_agreement(repo, {MODEL: digest(repo)})


def test_a_step_that_settles_is_not_asked_again(repo: Repo) -> None:
    """Branch later goes on from a: what it says of the tensor is no conflict between the two."""
    theta(repo, "switch", "-q", "-c", "later", "a")
    committed(repo, (TENSOR, 8.0), (OTHER, 1.0))
    theta(repo, "switch", "-q", "a")
    committed(repo, ("embed.weight", 1.0))
    theta(repo, "merge", "--no-commit", "-m", "three", "later", "d", "-X", "average")
    assert (repo.path / ".git/MERGE_HEAD").read_text().count("\n") == 2
    theta(repo, "merge", "--continue")
    found = [shift(repo, name) for name in (TENSOR, OTHER, "embed.weight")]
    assert found == [9.0, 2.0, 1.0]
    assert repo.git("log", "-1", "--format=%s") == "three"


def test_a_rehearsal_changes_nothing(repo: Repo) -> None:
    before = objects(repo), repo.git("status", "--porcelain"), digest(repo)
    told = theta(repo, "merge", "--dry-run", "-X", "average", "b")
    assert "merge base" in told.out
    row = next(line for line in told.out.splitlines() if line.startswith(TENSOR))
    assert "average" in row
    assert "1 merged" in told.out
    found = json.loads(theta(repo, "merge", "--dry-run", "--json", "-X", "average", "b").out)
    rows = {row["name"]: row for row in found["theta.merge/v1"]["checkpoints"][MODEL]}
    assert rows["head.weight"]["state"] == "theirs"
    assert rows[TENSOR]["stored"] > 0
    assert theta(repo, "merge", "--dry-run", "b", "c", code=1).out.count("CONFLICT") == 1
    theta(repo, "merge", "--dry-run", "-X", "average", "b", "c", "d")
    assert (objects(repo), repo.git("status", "--porcelain"), digest(repo)) == before


def test_scope_all_merges_what_one_side_changed(repo: Repo) -> None:
    theta(repo, "merge", "-X", "linear", "--scope", "all", "d")
    assert (shift(repo, TENSOR), shift(repo, OTHER)) == (0.5, 1.5)
    assert "--scope all" in repo.git("log", "-1", "--format=%B")
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out


def test_a_recipe_names_its_branches(repo: Repo) -> None:
    repo.write(
        "recipe.yaml",
        "merge_method: linear\nmodels:\n"
        "  - {model: b, parameters: {weight: 1}}\n  - {model: a, parameters: {weight: 3}}\n",
    )
    theta(repo, "merge", "--recipe", "recipe.yaml")
    assert (shift(repo, TENSOR), shift(repo, "head.weight")) == (1.25, 1.0)
    assert parents(repo) == 2
    theta(repo, "merge", "--replay", "HEAD")


def test_a_recipe_names_another_base(repo: Repo) -> None:
    """Task arithmetic from where c is: 6 + (1 - 6) + (2 - 6)."""
    repo.write(
        "recipe.yaml", "merge_method: task_arithmetic\nbase_model: c\nmodels: [{model: a}, {model: b}]\n"
    )
    theta(repo, "merge", "--recipe", "recipe.yaml")
    assert shift(repo, TENSOR) == -3.0
    assert "--base" in repo.git("log", "-1", "--format=%B")
    theta(repo, "merge", "--replay", "HEAD")


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (["--squash", "-X", "average", "b"], 1),
        (["--squash", "-X", "average", "b", "d"], 1),
        (["--no-ff", "-m", "said", "-X", "average", "b"], 2),
        (["-s", "ours", "b"], 2),
    ],
)
def test_options_of_git(repo: Repo, args: list[str], want: int) -> None:
    head = repo.git("rev-parse", "HEAD")
    theta(repo, "merge", *args)
    if "--squash" in args:
        assert repo.git("rev-parse", "HEAD") == head
        theta(repo, "commit", "-q", "-m", "squashed")
    assert parents(repo) == want
    assert shift(repo, TENSOR) == (1.0 if "-s" in args else 1.5)
    assert "said" not in args or repo.git("log", "-1", "--format=%s") == "said"
    assert_agreement(repo, {MODEL: digest(repo)})


def test_what_git_refuses_is_refused(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    assert theta(repo, "merge", "--ff-only", "b", code=None).code == 128
    theta(repo, "switch", "-q", "--orphan", "alone")
    repo.git("commit", "-q", "--allow-empty", "-m", "alone")
    theta(repo, "switch", "-q", "a")
    assert theta(repo, "merge", "alone", code=None).code == 128
    theta(repo, "merge", "alone", "d", code=3)
    assert repo.git("rev-parse", "HEAD") == head
    theta(repo, "merge", "--allow-unrelated-histories", "alone")
    assert parents(repo) == 2
    assert theta(repo, "merge", "a", "main").out == "Already up to date.\n"


def test_changes_that_are_not_committed_are_not_overwritten(repo: Repo) -> None:
    mine = edit(repo, "embed.weight", 9.0)
    for others in (["b"], ["b", "d"]):
        assert theta(repo, "merge", "-X", "ours", *others, code=None).code in (2, 3)
        assert digest(repo) == mine
        assert repo.git("status", "--porcelain") == f" M {MODEL}"


def test_a_changed_file_is_in_the_way_and_nothing_is_said_of_it_but_that(repo: Repo) -> None:
    """Git stashes it to try the merge, so that a manifest stands in its place when git has ended."""
    wanted = edit(repo, "embed.weight", 0.5)
    done = theta(repo, "merge", "-X", "average", "b", code=2)
    assert "would be overwritten by merge" in done.err
    assert "changed while git ran" not in done.err
    assert digest(repo) == wanted


def test_status_tells_that_branches_have_diverged_on_two_lines(repo: Repo) -> None:
    repo.git("config", "branch.a.remote", ".")
    repo.git("config", "branch.a.merge", "refs/heads/b")
    repo.write("notes.txt", "x\n")
    lines = repo.theta("status").stdout.splitlines()
    assert lines[1:3] == [
        "Your branch and 'b' have diverged,",
        "and have 1 and 1 different commits each, respectively.",
    ]
