"""``theta undo``: refs, index and worktree are as before the last command, and as after it once more."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo, make_model, mutate, random_tensors
from theta import _fs
from theta.cli import remembering
from theta.cli.catalogue import COMMANDS
from theta.errors import DiskError, NoSpaceError, NotFoundError
from theta.git.backends.by_git_index import GitIndexEdit
from theta.git.backends.index import IndexEdit
from theta.git.repository import Repository
from theta.git.run import Git
from theta.porcelain.care import checkup, undo_notes, undoing
from theta.porcelain.workspace.session import Session

MODEL, OTHER = "model.safetensors", "sub/other.safetensors"


def edit(repo: Repo, name: str, path: str = MODEL) -> None:
    mutate(repo.path / path, name, lambda value: value + np.float32(1))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two checkpoints and a text on main; side changed a tensor, the text, and has a file more."""
    repo = Repo.create(tmp_path_factory.mktemp("undo") / "repo")
    repo.theta("track", "*.safetensors")
    (repo.path / "sub").mkdir()
    for path in (MODEL, OTHER):
        make_model(repo.path / path, random_tensors({"a": (32, 32), "b": (8,)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    repo.theta("switch", "-qc", "side")
    edit(repo, "a")
    repo.write("code.py", "side\n")
    (repo.path / "new").mkdir()
    make_model(repo.path / "new/x.safetensors", random_tensors({"n": (4,)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "side")
    repo.theta("switch", "-q", "main")
    edit(repo, "b")
    repo.theta("commit", "-qam", "main")
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return template.copy(tmp_path / "repo")


def state(repo: Repo) -> tuple[object, ...]:
    """HEAD, refs, the index, and the bytes of all files."""
    files = {
        str(path.relative_to(repo.path)): path.read_bytes()
        for path in sorted(repo.path.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(repo.path).parts
    }
    refs = repo.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    head = (repo.path / ".git/HEAD").read_text()
    return head, refs, repo.git("ls-files", "-s"), files


def commit_all(repo: Repo) -> list[str]:
    edit(repo, "a")
    repo.write("code.py", "more\n")
    return ["commit", "-qam", "more"]


def commit_staged(repo: Repo) -> list[str]:
    edit(repo, "a")
    repo.theta("add", MODEL)
    edit(repo, "b")
    return ["commit", "-qm", "a alone"]


def add(repo: Repo) -> list[str]:
    edit(repo, "a")
    make_model(repo.path / "y.safetensors", random_tensors({"y": (4,)}))
    return ["add", "-A"]


def bundled(repo: Repo) -> list[str]:
    """Bring in a bundle of a commit that is not here."""
    there = repo.copy(repo.path.parent / "there")
    there.git("switch", "-qc", "sent", "side")
    edit(there, "a")
    there.git("commit", "-qam", "sent")
    there.theta("bundle", "create", str(there.path / "b"), "side..sent")
    return ["bundle", "apply", str(there.path / "b")]


LINES: dict[str, Callable[[Repo], list[str]] | list[str]] = {
    "commit -a": commit_all,
    "commit": commit_staged,
    "add": add,
    "switch": ["switch", "-q", "side"],
    "switch -c": ["switch", "-qc", "more", "side"],
    "switch --detach": ["switch", "-q", "--detach", "side"],
    "checkout": ["checkout", "-q", "side"],
    "merge": ["merge", "-q", "--no-edit", "side"],
    "rm": ["rm", "-q", OTHER],
    "rm --cached": ["rm", "-q", "--cached", OTHER],
    "mv": ["mv", OTHER, "moved.safetensors"],
    "reset --hard": ["reset", "-q", "--hard", "HEAD~"],
    "reset --soft": ["reset", "-q", "--soft", "HEAD~"],
    "branch": ["branch", "more"],
    "branch -D": ["branch", "-qD", "side"],
    "branch -m": ["branch", "-m", "main", "main/x"],
    "tag": ["tag", "-a", "-m", "v1", "v1"],
    "cherry-pick": ["cherry-pick", "side"],
    "revert": ["revert", "--no-edit", "HEAD"],
    "rebase": ["rebase", "-q", "side"],
    "average": ["average", "HEAD~", "HEAD", "--path", MODEL, "--commit"],
    "bundle": bundled,
    "cascade": ["cascade", "main~..main", "side"],
    "commit --amend": ["commit", "-q", "--amend", "-m", "other words"],
}


READERS = (
    *("init", "clone", "demo", "install", "uninstall", "ls-files", "export", "help", "status", "diff", "log"),
    *("runs", "show", "cat", "scan", "fsck", "blame", "du", "doctor", "gc", "undo", "fetch"),
    *("push", "follow", "prune-local", "completion", "lineage", "check", "sign", "verify"),
)
"""Commands that change none of refs at HEAD, index and files; and those that only mend."""


def test_each_command_is_remembered_or_changes_nothing() -> None:
    """``theta average --commit`` was not, so that an undo spoke of the command before it."""
    known = {*remembering.CHANGING, *remembering.ON_FILES}
    assert {name for group in COMMANDS.values() for name in group} - known == {*READERS}


@pytest.mark.parametrize("name", LINES)
def test_a_command_is_undone_and_done_again(repo: Repo, name: str) -> None:
    line = LINES[name]
    words = line if isinstance(line, list) else line(repo)
    before = state(repo)
    repo.theta(*words)
    after = state(repo)
    assert after != before
    assert repo.theta("undo").stdout.startswith(f"undid 'theta {words[0]} ")
    assert state(repo) == before
    assert checkup.examine(Session.here(repo.path)) == []
    repo.theta("undo")
    assert state(repo) == after
    assert checkup.examine(Session.here(repo.path)) == []


@pytest.mark.parametrize("name", LINES)
def test_a_command_works_where_settings_are_no_utf8(repo: Repo, name: str) -> None:
    """A name in Latin-1 is common in old files of settings."""
    with (repo.path / ".git/config").open("ab") as file:
        file.write(b'[user]\n\tname = Jos\xe9\n[remote "caf\xe9"]\n\turl = ../none\n')
    line = LINES[name]
    repo.theta(*(line if isinstance(line, list) else line(repo)))
    assert repo.theta("status", "--porcelain").stderr == ""
    assert repo.theta("undo").stdout.startswith("undid ")


def test_a_repository_of_sha_256_remembers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only git can open it."""
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    repo = Repo.create(tmp_path / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"a": (8, 8), "b": (8,)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    repo.git("branch", "side")
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/side")
    edit(repo, "b")
    for line in (["commit", "-qam", "more"], ["switch", "-q", "side"], ["branch", "-qD", "side"]):
        before = state(repo)
        repo.theta(*line)
        after = state(repo)
        assert repo.theta("undo").stdout.startswith(f"undid 'theta {line[0]} ")
        assert state(repo) == before
        repo.theta("undo")
        assert state(repo) == after
        if line[0] == "switch":
            repo.theta("undo")


def test_a_repository_in_which_nothing_was_done(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        undoing.undo(Session.here(Repo.create(tmp_path / "other").path))
    before = repo.git("rev-parse", "HEAD~")
    done = undoing.undo(Session.here(repo.path))
    assert (done.line, [*done.refs], done.files) == ("theta commit -qam main", ["refs/heads/main"], [])
    assert repo.git("rev-parse", "HEAD") == before


def test_the_first_commit_is_undone(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "new")
    repo.path.mkdir()
    repo.git("init", "-q")
    repo.theta("track", "*.safetensors")
    repo.write("a", "text\n")
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "first")
    repo.theta("undo")
    assert repo.try_git("rev-parse", "-q", "--verify", "HEAD").returncode == 1
    assert repo.git("status", "--porcelain") == "A  .gitattributes\nA  a"


def refused(repo: Repo, words: str, code: int = 2) -> None:
    before = state(repo)
    done = repo.theta("undo", code=code)
    assert words in done.stderr
    assert state(repo) == before


def test_what_changed_since_is_not_lost(repo: Repo) -> None:
    """A file, the index or a branch that changed after the command: the undo is refused by name."""
    repo.theta("switch", "-q", "side")
    edit(repo, "b")
    refused(repo, f"{MODEL} was changed since", code=14)
    repo.theta("add", MODEL)
    repo.theta("commit", "-qm", "by theta")
    repo.git("commit", "-q", "--allow-empty", "-m", "by git")
    refused(repo, "refs/heads/side moved since 'theta commit -qm 'by theta''")


def test_the_index_that_git_changed_is_not_lost(repo: Repo) -> None:
    repo.theta("branch", "more")
    repo.write("code.py", "staged\n")
    repo.git("add", "code.py")
    refused(repo, "the index changed since")


@pytest.mark.parametrize(
    "line", [["restore", MODEL], ["stash"], ["checkout", MODEL], ["reset", "-q", "--hard"]]
)
def test_a_command_that_threw_files_away_is_not_undone_by_another(repo: Repo, line: list[str]) -> None:
    edit(repo, "a")
    repo.theta(*line)
    refused(repo, f"'theta {' '.join(line)}' cannot be undone")


def test_a_merge_in_progress_is_aborted_not_undone(repo: Repo) -> None:
    repo.write("code.py", "ours\n")
    repo.theta("commit", "-qam", "ours")
    repo.theta("merge", "-q", "side", code=1)
    refused(repo, "a merge is in progress")


def test_a_file_that_git_does_not_track_stays(repo: Repo) -> None:
    repo.theta("switch", "-q", "side")
    repo.write("new/mine.txt", "mine\n")
    repo.theta("undo")
    assert [path.name for path in (repo.path / "new").iterdir()] == ["mine.txt"]


def touch(path: Path) -> None:
    path.touch()


def change_mode(path: Path) -> None:
    path.chmod(path.stat().st_mode ^ 0o020)


def move_and_back(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.with_name("elsewhere").rename(path)


def save_again(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("handle", [touch, change_mode, move_and_back, save_again])
def test_a_file_that_the_command_did_not_write_stays_though_its_times_are_later(
    repo: Repo, handle: Callable[[Path], None]
) -> None:
    new = repo.path / "new.safetensors"
    make_model(new, random_tensors({"n": (4,)}))
    edit(repo, "a")
    files = state(repo)[3]
    repo.theta("add", "-A")
    handle(new)
    handle(repo.path / MODEL)
    assert "as before" not in repo.theta("undo").stdout
    assert state(repo)[3] == files
    repo.theta("undo")
    handle(new)
    repo.theta("undo")
    assert state(repo)[3] == files
    repo.theta("commit", "-qam", "x")
    handle(repo.path / MODEL)
    assert "as before" not in repo.theta("undo").stdout
    assert state(repo)[3] == files


def test_a_file_that_the_command_wrote_is_undone_though_its_times_are_later(repo: Repo) -> None:
    before = state(repo)
    repo.theta("switch", "-q", "side")
    for path in (MODEL, "code.py", "new/x.safetensors"):
        touch(repo.path / path)
    repo.theta("undo")
    assert state(repo) == before


@pytest.mark.parametrize("is_link", [False, True])
def test_what_stands_where_a_folder_was_is_left_and_told(repo: Repo, is_link: bool) -> None:
    """Git would write through neither, and remove what is there."""
    repo.theta("rm", "-q", OTHER)
    shutil.rmtree(repo.path / "sub", ignore_errors=True)
    if is_link:
        (repo.path.parent / "outside").mkdir()
        (repo.path / "sub").symlink_to(repo.path.parent / "outside")
    else:
        repo.write("sub", "mine\n")
    assert f"{OTHER}: left as it is" in repo.theta("undo").stderr
    assert repo.git("ls-files", OTHER) == f"{OTHER}\n".strip()
    if is_link:
        assert [*(repo.path.parent / "outside").iterdir()] == []
    else:
        assert (repo.path / "sub").read_text() == "mine\n"


def test_a_branch_at_head_that_moved_since_is_not_made_to_differ_from_the_index(repo: Repo) -> None:
    """The old index on another commit would take its changes back, staged."""
    repo.write("code.py", "more\n")
    repo.theta("add", "code.py")
    repo.git("commit", "-qm", "by git")
    refused(repo, "refs/heads/main moved since 'theta add code.py'")
    repo.theta("switch", "-q", "side")
    repo.git("branch", "-f", "main", "HEAD")
    refused(repo, "refs/heads/main moved since 'theta switch -q side'")


def test_a_symbolic_ref_moves_with_its_branch(repo: Repo) -> None:
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    repo.git("symbolic-ref", "HEAD", "refs/heads/alias")
    edit(repo, "a")
    before = state(repo)
    repo.theta("commit", "-qam", "more")
    repo.theta("undo")
    assert state(repo) == before
    assert repo.git("symbolic-ref", "refs/heads/alias") == "refs/heads/main"


def test_an_undo_whose_refs_cannot_move_changes_nothing(repo: Repo) -> None:
    before = state(repo)
    repo.theta("switch", "-qc", "more", "side")
    hook = repo.path / ".git/hooks/reference-transaction"
    hook.write_text('#!/bin/sh\n[ "$1" != prepared ] || ! grep -q refs/heads/\n')
    hook.chmod(0o755)
    after = state(repo)
    assert repo.theta("undo", code=None).returncode
    assert state(repo) == after
    hook.unlink()
    repo.theta("undo")
    assert state(repo) == before


def test_an_undo_without_room_for_the_index_changes_nothing(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.theta(*commit_all(repo))
    after = state(repo)

    def full(_: object) -> None:
        raise NoSpaceError("no space to write the index")

    with monkeypatch.context() as patch, pytest.raises(NoSpaceError):
        for edit_of in (IndexEdit, GitIndexEdit):
            patch.setattr(edit_of, "_write", full)
        undoing.undo(Session.here(repo.path))
    assert state(repo) == after


def test_an_undo_without_room_in_the_reflog_is_whole(repo: Repo) -> None:
    """Git moves the branch before it fails: the index follows all the same."""
    before = repo.git("rev-parse", "HEAD"), repo.git("ls-files", "-s")
    repo.theta(*commit_all(repo))
    (repo.path / ".git/logs/HEAD").unlink()
    (repo.path / ".git/logs/HEAD").symlink_to("/dev/full")
    repo.theta("undo")
    assert (repo.git("rev-parse", "HEAD"), repo.git("ls-files", "-s")) == before


def editing(repo: Repo, *lines: str) -> dict[str, str]:
    """Return the environment of a git in whose editor somebody runs ``lines``."""
    editor = repo.path.parent / "editor"
    editor.write_text(
        "\n".join(["#!/bin/sh", "unset $(git rev-parse --local-env-vars)", *lines, 'echo m >"$1"'])
    )
    editor.chmod(0o755)
    return {"GIT_EDITOR": str(editor)}


def test_what_others_made_while_the_editor_was_open_is_not_undone(repo: Repo, tmp_path: Path) -> None:
    """Steps of a training, a branch of another worktree, and a branch that a program made all stay."""
    other = tmp_path / "w"
    repo.git("worktree", "add", "-q", str(other), "side")
    for name in ("refs/theta/runs/exp", "refs/heads/ema"):
        repo.git("update-ref", name, "HEAD~")
    made = (
        "git update-ref refs/theta/runs/exp HEAD",
        "git update-ref refs/heads/ema HEAD",
        "git branch of-others",
        f"git -C {other} commit -q --allow-empty -m other",
    )
    env, before = editing(repo, *made), repo.git("rev-parse", "HEAD")
    edit(repo, "a")
    repo.theta("commit", "-a", env=env)
    refs = repo.git("for-each-ref").replace(repo.git("rev-parse", "HEAD"), before)
    repo.theta("undo")
    assert repo.git("for-each-ref") == refs
    assert repo.git("rev-parse", "HEAD", "of-others") == f"{before}\n{before}"


@pytest.mark.parametrize("line", [["commit", "-q"], ["merge", "-q", "--edit", "side"]])
def test_what_others_staged_while_the_editor_was_open_is_not_undone(repo: Repo, line: list[str]) -> None:
    """The file was not written by the merge, which an undo would remove, and its staged content is kept."""
    if line[0] == "commit":
        repo.write("code.py", "more\n")
        repo.theta("add", "code.py")
    repo.theta(*line, env=editing(repo, f"cd {repo.path}", "echo mine >f", "git add f"))
    refused(repo, "f was staged while 'theta ")
    repo.git("rm", "-q", "--cached", "f")
    assert (repo.path / "f").read_text() == "mine\n"


def test_a_rebase_that_may_have_moved_other_branches_is_not_undone(repo: Repo) -> None:
    repo.theta("commit", "-q", "--allow-empty", "-m", "x")
    repo.git("branch", "below", "HEAD~")
    repo.theta("rebase", "-q", "--update-refs", "side")
    refused(repo, "it is not known whether refs/heads/below was moved by it")
    repo.theta("switch", "-q", "side")
    repo.theta("switch", "-q", "main")
    repo.theta("branch", "-qD", "@{-1}")
    refused(repo, "it is not known whether refs/heads/side was moved by it")


@pytest.mark.parametrize("operation", ["merge", "cherry-pick", "revert", "rebase"])
def test_what_concluded_an_operation_is_not_undone(repo: Repo, operation: str) -> None:
    """Nothing brings MERGE_HEAD back: the next commit would have one parent, and the content of a merge."""
    repo.write("code.py", "ours\n")
    repo.theta("add", "code.py")
    repo.theta("commit", "-qm", "ours")
    repo.theta(operation, "HEAD~3" if operation == "revert" else "side", code=None)
    assert undo_notes.begin(repo.path).operation == operation  # type: ignore[union-attr]
    repo.write("code.py", "settled\n")
    repo.theta("add", "code.py")
    end = ["rebase", "--continue"] if operation == "rebase" else ["commit", "-qm", "settled"]
    repo.theta(*end, env={"GIT_EDITOR": "true"})
    refused(repo, f"a {operation} was in progress before it")


def test_a_branch_that_another_worktree_uses_does_not_move(repo: Repo, tmp_path: Path) -> None:
    repo.theta("switch", "-q", "side")
    repo.theta("switch", "-q", "main")
    repo.git("worktree", "add", "-q", str(tmp_path / "w"), "side")
    refused(repo, "refs/heads/side is checked out in another worktree")
    repo.theta("branch", "new")
    repo.git("worktree", "add", "-q", str(tmp_path / "v"), "new")
    refused(repo, "refs/heads/new is checked out in another worktree")
    (repo.path / ".git/worktrees/v/rebase-merge").mkdir()
    (repo.path / ".git/worktrees/v/rebase-merge/head-name").write_text("refs/heads/new\n")
    (repo.path / ".git/worktrees/v/HEAD").write_text(repo.git("rev-parse", "HEAD"))
    refused(repo, "refs/heads/new is checked out in another worktree")


def test_an_entry_is_intended_again(repo: Repo) -> None:
    """Without the flag of ``git add -N`` the next commit would have an empty file."""
    repo.write("new.txt", "text\n")
    repo.git("add", "-N", "new.txt")
    repo.theta("add", "new.txt")
    repo.theta("undo")
    assert repo.git("status", "--porcelain") == " A new.txt"
    repo.theta("undo")
    assert repo.git("show", ":new.txt") == "text"


_CHANGES = ("update-ref", "symbolic-ref", "checkout-index")


def die_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let this process die before its change number ``count`` of names, refs or files."""
    left = itertools.count(count, -1)
    run = Git.run

    def step(operation: str, _: object = None) -> None:
        if operation in ("link", "rename", "remove", *_CHANGES) and next(left) == 0:
            os._exit(9)

    def counted(self: Git, *args: str, **options: object) -> object:
        step(args[0])
        return run(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_fs, "on_step", step)
    monkeypatch.setattr(Git, "run", counted)


def undo_until(repo: Repo, monkeypatch: pytest.MonkeyPatch, count: int) -> bool:
    """Undo in a process that dies at step ``count``; return whether it came to that."""
    pid = os.fork()
    if not pid:
        try:
            die_at(monkeypatch, count)
            undoing.undo(Session.here(repo.path))
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_an_undo_that_was_killed_is_completed_by_the_next(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undo and the undo of that take turns in being killed, each at the next step."""
    killed_at_each_step(repo, monkeypatch, both=False)


@pytest.mark.campaign
def test_an_undo_that_was_killed_at_any_step_is_completed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at_each_step(repo, monkeypatch, both=True)


def killed_at_each_step(repo: Repo, monkeypatch: pytest.MonkeyPatch, *, both: bool) -> None:
    """Kill an undo of a switch, or of that undo, at one step after the other; ``both``: at each step each."""
    states = [state(repo)]
    repo.theta("switch", "-qc", "more", "side")
    states.append(state(repo))
    count, was_killed = 0, True
    while was_killed or count % 2:
        was_killed = undo_until(repo, monkeypatch, count // 2 if both else count)
        found = state(repo)
        if found != states[0]:
            undoing.undo(Session.here(repo.path))
            found = state(repo)
        if found != states[0]:  # only the note was left to be written, and the undo was undone
            assert found == states[1], count
            undoing.undo(Session.here(repo.path))
            found = state(repo)
        assert found == states[0], count
        states.reverse()
        count += 1
    assert count > 10


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_undo_that_moves_refs_in_two_steps_is_completed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    """Main cannot be made before main/x is gone; what is between is not the end, and nothing is lost."""
    before = state(repo)
    repo.theta("branch", "-m", "main", "main/x")
    after, update, calls = state(repo), undoing._update, itertools.count()

    def failing(repository: Repository, rows: list[str], reason: str) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt if is_killed else DiskError("full")
        update(repository, rows, reason)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, DiskError)):
        patch.setattr(undoing, "_update", failing)
        undoing.undo(Session.here(repo.path))
    assert (state(repo) == after) is not is_killed
    repo.theta("undo")
    assert state(repo) == before
