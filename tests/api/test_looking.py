"""``status``, ``diff``, ``log``: the data that the command line renders."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

import theta
from tests.api.conftest import BIG, MODEL, Story
from tests.support import Repo
from theta.errors import NotARepositoryError, NotFoundError, UsageError


@pytest.fixture
def opened(story: Story) -> Iterator[theta.Repository]:
    with theta.open(story.repo.path) as repo:
        yield repo


def test_status_is_what_the_command_says(opened: theta.Repository, story: Story) -> None:
    report = opened.status()
    told = json.loads(story.repo.theta("status", "--json").stdout)["theta.status/v1"]
    rows = [
        {"path": row.path, "index": row.index, "worktree": row.worktree, "old_path": row.old_path}
        for row in report.rows
    ]
    assert rows == told["rows"]
    assert isinstance(report, theta.Report)
    assert [(c.status, c.name) for c in report.staged[MODEL].tensors] == [("M", "three")]
    assert [(c.status, c.name) for c in report.unstaged[MODEL].tensors] == [("M", "three")]
    assert not report.clean
    assert [row.path for row in opened.status(".gitattributes").rows if row.path != MODEL] == []


@pytest.mark.parametrize(
    ("versions", "cached", "changed"),
    [
        ((), False, ["three"]),
        ((), True, ["three"]),
        (("HEAD",), False, ["three"]),
        (("HEAD~1", "HEAD"), False, [BIG]),
        (("HEAD~1",), True, [BIG, "three"]),
        (("HEAD", "HEAD"), False, []),
    ],
)
def test_diff(
    opened: theta.Repository, story: Story, versions: tuple[str, ...], cached: bool, changed: list[str]
) -> None:
    found = opened.diff(*versions, cached=cached)
    args = [*(["--cached"] if cached else []), *versions]
    told = json.loads(story.repo.theta("diff", "--json", *args).stdout)["theta.diff/v1"]
    assert [item.path for item in found] == [row["path"] for row in told]
    names = [change.name for item in found for change in item.changes.tensors]
    assert names == changed == [tensor["name"] for row in told for tensor in row["tensors"]]


def test_numbers_of_a_change(opened: theta.Repository, story: Story) -> None:
    (item,) = opened.diff("HEAD~1", "HEAD")
    (change,) = item.changes.tensors
    numbers = opened.numbers(item, change)
    assert numbers is not None
    assert numbers.largest == np.abs(story.second[BIG].astype(float) - story.first[BIG]).max()
    assert 0.99 < numbers.changed <= 1


def test_paths_choose(opened: theta.Repository) -> None:
    assert [item.path for item in opened.diff("HEAD~1", "HEAD", paths=[MODEL])] == [MODEL]
    assert opened.diff("HEAD~1", "HEAD", paths=["model", "code.py"]) == []
    assert [item.subject for item in opened.log(paths=["code.py"])] == ["initial"]
    assert [item.subject for item in opened.log(paths=[MODEL], limit=1)] == ["second"]


def test_log(opened: theta.Repository, story: Story) -> None:
    found = opened.log()
    assert [item.subject for item in found] == ["second", "first", "initial"]
    told = json.loads(story.repo.theta("log", "--json").stdout)["theta.log/v1"]
    assert [item.as_json() for item in found] == told
    assert [item.subject for item in opened.log(tensor="layers.*")] == ["second", "first"]
    assert [item.subject for item in opened.log(tensor="three")] == ["first"]
    assert [item.subject for item in opened.log("HEAD~1..main")] == ["second"]


def test_a_branch_without_commits_has_an_empty_log(repo: Repo) -> None:
    repo.git("checkout", "-q", "--orphan", "new")
    with theta.open(repo.path) as opened:
        assert opened.log() == []
        assert opened.checkpoints() == []


@pytest.mark.parametrize("revision", ["gone", "gone..main", "--all", "-n1", ""])
def test_revisions_that_are_not_there(opened: theta.Repository, revision: str) -> None:
    with pytest.raises(NotFoundError):
        opened.log(revision)
    if not revision.startswith("gone.."):
        with pytest.raises(NotFoundError):
            opened.diff("HEAD", revision)


def test_a_diff_that_makes_no_sense(opened: theta.Repository) -> None:
    with pytest.raises(UsageError):
        opened.diff(new="HEAD")
    with pytest.raises(UsageError):
        opened.diff("HEAD", "HEAD", cached=True)


def test_a_commit_of_somebody_else_is_seen(repo: Repo) -> None:
    with theta.open(repo.path) as opened:
        assert len(opened.log()) == 1
        repo.git("commit", "-q", "--allow-empty", "-m", "theirs")
        assert [item.subject for item in opened.log()] == ["theirs", "initial"]


def test_no_repository(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(NotARepositoryError):
        theta.open(tmp_path_factory.mktemp("empty"))


def test_nothing_is_printed(opened: theta.Repository, capfd: pytest.CaptureFixture[str]) -> None:
    opened.status()
    opened.diff("HEAD~1")
    opened.log()
    opened[f"HEAD:{MODEL}"].load("three")
    with pytest.raises(NotFoundError):
        opened["gone:x"]
    assert capfd.readouterr() == ("", "")
