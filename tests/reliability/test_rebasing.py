"""E1: a rebase that git was killed over loses no commit, whatever moment it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.harness import FILE, State, fsck, killed
from tests.support import Repo


@pytest.fixture(scope="module")
def wanted(origin: Repo, tmp_path_factory: pytest.TempPathFactory) -> State:
    """The state after the rebase when nothing is killed."""
    repo = origin.copy(tmp_path_factory.mktemp("whole") / "repo")
    repo.theta("rebase", "other")
    return State.of(repo)


def begun(repo: Repo) -> Path:
    """Leave the rebase as git does that is killed when it has just begun to apply its one commit."""
    repo.git("rebase", "-i", "other", env={"GIT_SEQUENCE_EDITOR": "sed -i '1i break'"})
    place = repo.path / ".git" / "rebase-merge"
    step = f"pick {repo.git('rev-parse', 'main')} main\n"
    (place / "git-rebase-todo").write_text("")
    (place / "done").write_text(f"break\n{step}")
    return place


def test_e1_a_commit_that_was_being_applied_is_applied(repo: Repo, wanted: State) -> None:
    begun(repo)
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted
    fsck(repo)


@pytest.mark.parametrize("edited", [False, True])
def test_e1_a_step_that_is_in_neither_list_is_put_back(repo: Repo, wanted: State, edited: bool) -> None:
    """Git takes a step out of one list before it adds it to the other; a list of the user's is left alone."""
    killed(repo)
    place = begun(repo)
    step = f"pick {repo.git('rev-parse', 'main')} main\n"
    (place / "done").write_text("")
    (place / "git-rebase-todo.backup").write_text(f"{'break' if edited else ''}\n{step}\n# a comment\n")
    repo.theta("status")
    assert (place / "git-rebase-todo").read_text() == ("" if edited else step)
    repo.theta("rebase", "--continue")
    assert edited or State.of(repo) == wanted


def test_e1_a_lock_in_the_directory_of_a_rebase_is_removed(repo: Repo, wanted: State) -> None:
    killed(repo)
    (begun(repo) / "author-script.lock").write_text("")
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


def test_e1_half_written_files_of_that_commit_are_put_back_first(repo: Repo, wanted: State) -> None:
    begun(repo)
    (repo.path / FILE).write_bytes(b"")
    repo.git("rm", "-q", "--cached", "code.py")
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


def test_e1_a_file_that_git_had_merged_for_that_commit_is_put_back(repo: Repo, wanted: State) -> None:
    """The checkpoint has tensors of both sides, and git has named no tree that holds it."""
    repo.git("merge", "-q", "--no-edit", "other")
    both = (repo.path / FILE).read_bytes()
    repo.git("reset", "-q", "--hard", "HEAD~")
    begun(repo)
    assert (repo.path / FILE).read_bytes() != both
    (repo.path / FILE).write_bytes(both)
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


@pytest.mark.parametrize(
    "names",
    [
        *((), ("done", "git-rebase-todo", "onto", "orig-head"), ("done", "head-name", "onto")),
        *(("head-name", "orig-head"), ("head-name",)),
    ],
)
def test_e1_a_rebase_of_which_git_has_removed_a_name_is_over(repo: Repo, names: tuple[str, ...]) -> None:
    killed(repo)
    repo.theta("rebase", "other")
    done = State.of(repo)
    killed(repo)
    (repo.path / ".git" / "rebase-merge").mkdir()
    for name in names:
        (repo.path / ".git" / "rebase-merge" / name).write_text("refs/heads/main")
    assert "rebas" not in repo.theta("status").stdout
    assert State.of(repo) == done
    assert not (repo.path / ".git" / "rebase-merge").exists()


def test_e1_a_change_of_the_users_is_not_overwritten_by_that(repo: Repo, wanted: State) -> None:
    begun(repo)
    repo.write("code.py", "print('mine')\n")
    done = repo.theta("rebase", "--continue", code=3)
    assert "code.py was changed since" in done.stderr
    assert (repo.path / "code.py").read_text() == "print('mine')\n"
    repo.git("checkout", "-q", "code.py")
    repo.theta("rebase", "--continue")
    assert State.of(repo) == wanted


def noted(repo: Repo) -> None:
    """Note a rebase that is not begun."""
    place = repo.path / ".git" / "rebase-merge"
    place.mkdir()
    repo.git("update-index", "-q", "--refresh")
    names = {"head-name": "refs/heads/main", "onto": "other", "orig-head": "main"}
    for name, revision in names.items():
        text = revision if name == "head-name" else repo.git("rev-parse", revision)
        (place / name).write_text(f"{text}\n")


@pytest.mark.parametrize("last", ["files", "index"])
def test_e1_a_rebase_that_was_killed_as_it_checked_out_its_base_was_not_begun(
    repo: Repo, wanted: State, last: str
) -> None:
    before, index = State.of(repo), (repo.path / ".git" / "index").read_bytes()
    noted(repo)
    repo.git("read-tree", "-m", "-u", "HEAD", "other")
    if last == "files":
        (repo.path / ".git" / "index").write_bytes(index)
    repo.theta("rebase", "--continue")
    assert State.of(repo) == before
    assert repo.git("status", "--porcelain") == ""
    repo.theta("rebase", "other")
    assert State.of(repo) == wanted


def test_e1_a_change_of_the_users_is_not_overwritten_where_a_rebase_was_not_begun(repo: Repo) -> None:
    noted(repo)
    repo.git("read-tree", "-m", "-u", "HEAD", "other")
    repo.write("code.py", "print('mine')\n")
    done = repo.theta("rebase", "--continue", code=3)
    assert "code.py was changed since" in done.stderr
    assert (repo.path / "code.py").read_text() == "print('mine')\n"


def test_e1_a_rebase_that_was_not_begun_says_so(repo: Repo, wanted: State) -> None:
    noted(repo)
    before = State.of(repo)
    assert "the rebase was not begun" in repo.theta("rebase", "--continue").stdout
    assert State.of(repo) == before
    repo.theta("rebase", "other")
    assert State.of(repo) == wanted


def test_e1_a_rebase_whose_branch_has_moved_is_concluded(repo: Repo, wanted: State) -> None:
    head = repo.git("rev-parse", "main")
    repo.git("rebase", "-i", "other", env={"GIT_SEQUENCE_EDITOR": "sed -i '$a break'"})
    repo.git("update-ref", "refs/heads/main", "HEAD", head)
    (repo.path / ".git" / "rebase-merge" / "git-rebase-todo").write_text("")
    assert "is concluded" in repo.theta("rebase", "--continue").stdout
    assert State.of(repo) == wanted
    assert repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", ["onto", "orig-head"])
def test_e1_a_rebase_of_which_git_has_not_written_all_names_was_not_begun(
    repo: Repo, wanted: State, name: str, empty: bool
) -> None:
    before = State.of(repo)
    noted(repo)
    killed(repo)
    place = repo.path / ".git" / "rebase-merge" / name
    place.write_text("") if empty else place.unlink()
    assert "rebas" not in repo.theta("status").stdout
    assert State.of(repo) == before
    repo.theta("rebase", "other")
    assert State.of(repo) == wanted


def test_e1_half_a_step_is_not_in_the_way_of_giving_up(repo: Repo) -> None:
    """Git does not overwrite a new file of that step, which it takes for one of the user's."""
    repo.write("new.py", "print('new')\n")
    repo.git("add", "new.py")
    repo.git("commit", "-q", "-m", "new")
    before = State.of(repo)
    place = begun(repo)
    repo.write("new.py", "print('new')\n")
    assert (place / "done").read_text().split()[2] == repo.git("rev-parse", "main")
    repo.theta("rebase", "--abort")
    assert State.of(repo) == before
    assert repo.git("status", "--porcelain") == ""


@pytest.fixture
def patched(repo: Repo) -> State:
    """Note two patches, and be stopped at the second; return what was before the first."""
    before = State.of(repo)
    place = repo.path / ".git" / "patches"
    for name in ("one", "two"):
        repo.write(f"{name}.py", f"print('{name}')\n")
        repo.git("add", ".")
        repo.git("commit", "-q", "-m", name)
    repo.git("format-patch", "-q", "-o", str(place), "HEAD~2")
    repo.git("reset", "-q", "--hard", "HEAD~2")
    killed(repo)
    repo.write("two.py", "print('in the way')\n")
    assert repo.try_git("am", *sorted(map(str, place.iterdir()))).returncode
    (repo.path / "two.py").unlink()
    return before


@pytest.mark.parametrize("name", ["next", "last", "applying next last"])
def test_e1_an_am_of_which_git_has_not_all_names_is_over(repo: Repo, patched: State, name: str) -> None:
    for one in name.split():
        (repo.path / ".git" / "rebase-apply" / one).unlink()
    assert "am" not in repo.theta("status").stdout.split()
    assert not (repo.path / ".git" / "rebase-apply").exists()
    assert repo.git("log", "-1", "--format=%s") == "one"


@pytest.mark.parametrize("name", ["author-script", "abort-safety"])
def test_e1_an_am_that_was_killed_between_two_patches_is_given_up(
    repo: Repo, patched: State, name: str
) -> None:
    """Git refuses an empty author, and does not go back if it has not noted the commit that it made."""
    base = repo.git("rev-parse", "HEAD~")
    (repo.path / ".git" / "rebase-apply" / name).write_text("" if name == "author-script" else base)
    repo.theta("status")
    repo.theta("am", "--abort")
    assert State.of(repo) == patched


def test_e1_a_commit_of_the_users_during_an_am_is_not_given_up(repo: Repo, patched: State) -> None:
    repo.write("mine.py", "print('mine')\n")
    repo.git("add", "mine.py")
    repo.git("commit", "-q", "-m", "mine")
    repo.theta("status")
    repo.theta("am", "--abort")
    assert repo.git("log", "-1", "--format=%s") == "mine"
