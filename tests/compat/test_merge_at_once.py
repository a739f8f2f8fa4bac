"""``theta merge`` of two branches: in memory first, or by git where it is not plain; the same result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history, git_status
from tests.compat.inprocess import branched, committed, copied, shift, started, theta
from tests.compat.story import MODEL, TENSOR, digest, edit
from tests.support import Repo
from theta.porcelain.merge import concluding
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.store.format.skeleton import Extent, Skeleton
from theta.store.read.stored_tensor import StoredTensor

OTHER = "layer.2.weight"
AVERAGE = ("merge", "-X", "average", "side")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Main and side changed one tensor each, one together, and a file of code; main is checked out."""
    repo = started(tmp_path_factory.mktemp("both") / "repo")
    (repo.path / "train.py").write_text("".join(f"line {n}\n" for n in range(30)))
    repo.git("add", "train.py")
    repo.git("commit", "-q", "-m", "code")
    branched(repo, side=[(TENSOR, 2.0), (OTHER, 3.0)])
    theta(repo, "switch", "-q", "side")
    rewrite(repo, 2, "theirs")
    theta(repo, "switch", "-q", "main")
    rewrite(repo, 20, "ours")
    committed(repo, (TENSOR, 1.0), ("head.weight", 5.0))
    return repo


@pytest.fixture
def repo(both: Repo, tmp_path: Path) -> Repo:
    """A copy that the test may change."""
    return copied(both, tmp_path / "repo")


def rewrite(repo: Repo, number: int, text: str) -> None:
    path = repo.path / "train.py"
    lines = path.read_text().splitlines()
    lines[number] = text
    path.write_text("\n".join(lines) + "\n")
    repo.git("commit", "-q", "-am", f"{text} in the code")


def result(repo: Repo) -> list[str]:
    return repo.git("log", "-1", "--format=%T%n%P%n%B").splitlines()


def calls(repo: Repo, *args: str, code: int = 0) -> list[list[str]]:
    """The words of every git command and driver that ``theta ARGS`` starts."""
    trace = repo.path.with_suffix(".trace")
    theta(repo, *args, env={"GIT_TRACE": str(trace)}, code=code)
    marks = ("trace: built-in: git ", "run_command: ")
    lines = trace.read_text().splitlines()
    return [line.split(mark, 1)[1].split() for line in lines for mark in marks if mark in line]


def test_it_is_what_git_would_have_made(repo: Repo, tmp_path: Path) -> None:
    byhand = copied(repo, tmp_path / "byhand")
    started_by_git = calls(byhand, *AVERAGE, "--stat")
    at_once = calls(repo, *AVERAGE)
    assert ["merge", "--no-commit"] in [call[:2] for call in started_by_git]
    assert ["merge", "--no-commit"] not in [call[:2] for call in at_once]
    assert result(repo) == result(byhand)
    assert repo.git("rev-parse", "ORIG_HEAD") == byhand.git("rev-parse", "ORIG_HEAD")
    assert (shift(repo, TENSOR), shift(repo, OTHER), shift(repo, "head.weight")) == (1.5, 3.0, 5.0)
    assert_agreement(repo, {MODEL: digest(byhand)})
    assert_history(repo)
    assert git_status(repo) == []


@pytest.mark.parametrize("apart", [0, 5], ids=["as new as the index", "older"])
def test_a_file_that_git_cannot_be_sure_of(repo: Repo, apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the filter can tell git whether a file as new as the index has changed."""
    trace = repo.path.with_suffix(".trace")
    when = int((repo.path / MODEL).stat().st_mtime)
    os.utime(repo.path / ".git" / "index", (when + apart, when + apart))
    monkeypatch.setenv("GIT_TRACE", str(trace))
    concluding._check_out(Session.here(repo.path).repo.git(), repo.git("rev-parse", "side^{tree}").strip())
    assert trace.read_text().count("built-in: git read-tree") == (1 if apart else 2)
    assert (repo.path / MODEL).read_text().strip() == repo.git("cat-file", "blob", f"side:{MODEL}")


@pytest.mark.parametrize("name", ["train.py", MODEL])
def test_a_file_with_another_time_is_no_change(repo: Repo, name: str) -> None:
    """The merge happens at once nevertheless; git alone is not asked to merge."""
    os.utime(repo.path / name, (1e9, 1e9))
    assert not any(words[:1] == ["merge"] and "--no-commit" in words for words in calls(repo, *AVERAGE))
    assert shift(repo, TENSOR) == 1.5
    assert git_status(repo) == []


def test_git_starts_no_driver_for_the_chunks(repo: Repo, tmp_path: Path) -> None:
    byhand = copied(repo, tmp_path / "byhand")
    assert ["true"] in [call[:1] for call in calls(byhand, *AVERAGE, "--stat")]
    assert ["true"] not in [call[:1] for call in calls(repo, *AVERAGE)]


def test_the_message_is_gits(repo: Repo) -> None:
    theta(repo, *AVERAGE)
    assert repo.git("log", "-1", "--format=%s") == "Merge branch 'side'"
    theta(repo, "reset", "--hard", "HEAD~1")
    theta(repo, *AVERAGE, "-m", "both at once")
    assert repo.git("log", "-1", "--format=%B").splitlines() == [
        "both at once",
        "",
        "Theta-Merge: -X average",
    ]


def test_what_was_computed_is_not_decoded_again(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = StoredTensor.pieces

    def noting(self: StoredTensor) -> object:
        read.append(self.line.name)
        return real(self)

    monkeypatch.setattr(StoredTensor, "pieces", noting)
    theta(repo, *AVERAGE)
    assert TENSOR not in read
    assert OTHER in read
    assert_agreement(repo, {MODEL: digest(repo)})


def test_without_room_for_both_files_it_is_restored(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exchange, "begin", lambda *_: None)
    theta(repo, *AVERAGE)
    assert (shift(repo, TENSOR), shift(repo, OTHER)) == (1.5, 3.0)


def test_a_coming_file_needs_room(repo: Repo) -> None:
    with Exchange(Session.here(repo.path)) as files:
        assert files.begin(MODEL, "", Skeleton((Extent(1 << 60, "w"),), b"")) is None
        assert files.begin(MODEL, "", Skeleton((Extent(1 << 10, "w"),), b"")) is not None
        assert list((repo.path / ".git/theta/tmp").glob("tmp_*"))
    assert not list((repo.path / ".git/theta/tmp").glob("tmp_*"))


def untouched(repo: Repo, before: list[str], model: str) -> None:
    assert result(repo) == before
    assert digest(repo) == model
    assert not (repo.path / ".git/MERGE_HEAD").exists()


def test_changes_that_are_in_the_way_are_gits_to_tell(repo: Repo) -> None:
    before, model = result(repo), edit(repo, "embed.weight", 9.0)
    with pytest.raises(AssertionError, match="would be overwritten by merge"):
        theta(repo, *AVERAGE)
    untouched(repo, before, model)


def test_a_merge_that_may_only_fast_forward_does_not(repo: Repo) -> None:
    before = result(repo)
    repo.git("config", "merge.ff", "only")
    theta(repo, *AVERAGE, code=128)
    untouched(repo, before, digest(repo))


def test_a_merge_under_way_is_not_begun_anew(repo: Repo) -> None:
    before = result(repo)
    theta(repo, "merge", "side", code=1)
    theta(repo, *AVERAGE, code=128)
    theta(repo, "merge", "--abort")
    untouched(repo, before, digest(repo))


def test_a_conflict_in_the_code_is_left_with_the_names_of_the_branches(repo: Repo) -> None:
    rewrite(repo, 2, "ours as well")
    theta(repo, *AVERAGE, code=1)
    text = (repo.path / "train.py").read_text()
    assert "<<<<<<< HEAD" in text
    assert ">>>>>>> side" in text
    assert repo.git("ls-files", "-u").count("train.py") == 3
    assert shift(repo, TENSOR) == 1.5
    assert repo.git("rev-parse", "MERGE_HEAD") == repo.git("rev-parse", "side")


def test_a_fast_forward_is_one(repo: Repo) -> None:
    theta(repo, "switch", "-q", "-c", "behind", "side~1")
    theta(repo, *AVERAGE)
    assert repo.git("rev-parse", "HEAD") == repo.git("rev-parse", "side")


def test_a_branch_without_commits_becomes_theirs(repo: Repo) -> None:
    repo.git("switch", "-q", "--orphan", "unborn")
    theta(repo, *AVERAGE)
    assert repo.git("rev-parse", "HEAD") == repo.git("rev-parse", "side")
    assert shift(repo, TENSOR) == 2.0


def test_no_commit_stops_before_it(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD")
    theta(repo, *AVERAGE, "--no-commit")
    assert repo.git("rev-parse", "HEAD", "MERGE_HEAD").split() == [before, repo.git("rev-parse", "side")]
    assert shift(repo, TENSOR) == 1.5
    theta(repo, "merge", "--continue")
    assert_agreement(repo, {MODEL: digest(repo)})


def test_an_index_entry_of_a_large_file_is_older_than_the_index(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("theta.porcelain.workspace.worktree._WORTH_DATING_BACK", 1)
    theta(repo, *AVERAGE, "--no-commit")
    written = (repo.path / MODEL).stat().st_mtime
    assert int(written) < int((repo.path / ".git/index").stat().st_mtime)
    assert git_status(repo) == [f"M  {MODEL}", "M  train.py"]
