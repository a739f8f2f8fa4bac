"""``theta cascade``: the updates of fine-tunes on a new base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.errors import NotFoundError, RefusedError, UsageError
from theta.porcelain.drive import renewing
from theta.porcelain.lineage import cascading
from theta.porcelain.lineage.cascading import CascadeEnding, CascadeRequest
from theta.porcelain.workspace.session import Session
from theta.store.read.tensor_records import read_record

MODEL = "m.safetensors"
RANDOM = np.random.default_rng(7)
OLD: dict[str, NDArray[Any]] = {
    "w": RANDOM.normal(size=(256, 192)).astype("<f4"),
    "kept": RANDOM.normal(size=(30, 4)).astype("<f4"),
    "head": RANDOM.normal(size=(64, 8)).astype("<f4"),
    "n": np.array([1, 2]),
}
NEW = OLD | {"w": OLD["w"] + np.float32(0.5), "kept": OLD["kept"] * 2, "n": np.array([3, 4])}
UPDATE = (RANDOM.normal(size=(256, 2)) @ RANDOM.normal(size=(2, 192)) * 0.1).astype("<f4")
CHAT = OLD | {"w": OLD["w"] + UPDATE}
CODE = OLD | {"head": -OLD["head"]}
ODD = OLD | {"n": np.array([9, 9])}


def commit(repo: Repo, message: str, model: Mapping[str, NDArray[Any]]) -> None:
    make_model(repo.path / MODEL, dict(model))
    repo.theta("add", MODEL)
    repo.theta("commit", "-qm", message)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """v1 with three fine-tunes, and v2 on main."""
    repo = Repo.create(tmp_path_factory.mktemp("cascade") / "repo")
    repo.theta("track", "*.safetensors")
    repo.write("README", "v1\n")
    repo.theta("add", ".")
    commit(repo, "v1", OLD)
    repo.git("tag", "v1")
    for name, model in (("chat", CHAT), ("code", CODE), ("odd", ODD)):
        repo.theta("switch", "-q", "-c", name, "v1")
        commit(repo, name, model)
    repo.theta("switch", "-q", "main")
    repo.write("README", "v2\n")
    commit(repo, "v2", NEW)
    repo.git("commit", "-qam", "readme")
    repo.git("tag", "v2")
    return repo


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return template.copy(tmp_path / "repo")


def cascade(repo: Repo, *branches: str, **more: Any) -> list[cascading.Cascaded]:
    test = more.pop("test", None)
    return cascading.cascade(Session.here(repo.path), CascadeRequest("v1", "v2", branches, **more), test)


def model_at(repo: Repo, revision: str, place: Path) -> dict[str, NDArray[Any]]:
    repo.theta("export", f"{revision}:{MODEL}", "-o", str(place), "--force")
    return read_model(place)


def test_each_update_is_applied_to_the_new_base(repo: Repo, tmp_path: Path) -> None:
    before = {name: repo.git("rev-parse", name) for name in ("chat", "code", "main")}
    found = cascade(repo, "chat", "code")
    assert [one.ending for one in found] == [CascadeEnding.MOVED] * 2
    assert [one.decided for one in found] == [{MODEL: {"w": "task_arithmetic"}}, {MODEL: {}}]
    out = tmp_path / "out.safetensors"
    chat, code = model_at(repo, "chat", out), model_at(repo, "code", out)
    assert np.allclose(chat["w"], NEW["w"] + UPDATE, atol=1e-6)
    assert {name: np.array_equal(chat[name], NEW[name]) for name in ("kept", "head", "n")} == dict.fromkeys(
        ("kept", "head", "n"), True
    )
    assert all(np.array_equal(code[name], (NEW | {"head": CODE["head"]})[name]) for name in NEW)
    for one in found:
        parents = repo.git("log", "-1", "--format=%P", one.branch).split()
        assert parents == [before[one.branch], repo.git("rev-parse", "v2^{commit}")]
        assert repo.git("show", f"{one.branch}:README") == "v2"
    assert repo.git("rev-parse", "main") == before["main"]
    assert not repo.git("status", "--porcelain")
    repo.theta("fsck")
    assert "the same tree" in repo.theta("merge", "--replay", "chat").stdout


def test_factors_stay_factors(repo: Repo) -> None:
    cascade(repo, "chat")
    session = Session.here(repo.path)
    line = session.at("chat").manifests[MODEL].by_name["w"]
    assert any(layer.codec.startswith("lowrank/") for layer in read_record(session.objects, line.tree).layers)


def test_a_branch_in_conflict_stays_and_the_others_move(repo: Repo) -> None:
    before = repo.git("rev-parse", "odd")
    done = repo.theta("cascade", "v1..v2", "odd", "code", code=1)
    assert f"odd: in conflict\n  {MODEL}#n\n" in done.stdout
    assert "code: moved to" in done.stdout
    assert repo.git("rev-parse", "odd") == before
    repo.theta("cascade", "v1..v2", "odd", "--rule", "n=theirs")
    assert "has the new base already" in repo.theta("cascade", "v1..v2", "odd").stdout


def test_the_branch_that_is_checked_out_takes_its_files_along(repo: Repo) -> None:
    repo.theta("switch", "-q", "chat")
    repo.theta("cascade", "v1..v2", "chat")
    assert np.allclose(read_model(repo.path / MODEL)["w"], NEW["w"] + UPDATE, atol=1e-6)
    assert (repo.path / "README").read_text() == "v2\n"
    assert not repo.git("status", "--porcelain")
    make_model(repo.path / MODEL, dict(OLD))
    with pytest.raises(RefusedError, match="not committed"):
        cascade(repo, "code")


def test_a_branch_whose_test_fails_stays(repo: Repo) -> None:
    before = repo.git("rev-parse", "chat")
    seen: list[str] = []

    def test(folder: Path) -> bool:
        seen.append((folder / "README").read_text())
        return not np.array_equal(read_model(folder / MODEL)["head"], OLD["head"])

    assert [one.ending for one in cascade(repo, "chat", "code", test=test)] == [
        CascadeEnding.FAILED,
        CascadeEnding.MOVED,
    ]
    assert seen == ["v2\n", "v2\n"]
    assert repo.git("rev-parse", "chat") == before
    command = 'test -f {}/m.safetensors && test "$THETA_CANDIDATE" = {} && exit 3'
    done = repo.theta("cascade", "v1..v2", "chat", "--exec", command, code=1)
    assert "chat: failed its test" in done.stdout


def test_a_dry_run_moves_nothing(repo: Repo) -> None:
    before = repo.git("for-each-ref"), sorted((repo.path / ".git/objects").rglob("*"))
    done = repo.theta("cascade", "--dry-run", "v1..v2", "chat", "odd", code=1)
    assert "chat: can be moved, 1 tensors computed" in done.stdout
    assert "odd: in conflict" in done.stdout
    assert (repo.git("for-each-ref"), sorted((repo.path / ".git/objects").rglob("*"))) == before


def test_a_branch_that_does_not_rest_on_the_old_base_is_refused(repo: Repo) -> None:
    """Its update would be a difference to something that it never had: the merge would take that back."""
    before = repo.git("for-each-ref")
    repo.git("tag", "fork", "v1~")
    repo.git("branch", "earlier", "fork")
    repo.git("branch", "orphan", repo.git("commit-tree", "-m", "alone", "v1^{tree}"))
    done = repo.theta("cascade", "v1..v2", "code", "earlier", code=1)
    assert "earlier does not rest on v1" in done.stderr
    assert f"theta cascade {repo.git('rev-parse', 'fork')[:12]}..v2 earlier" in done.stderr
    for more in ((), ("--allow-unrelated",), ("--dry-run",)):
        assert "orphan does not rest" in repo.theta("cascade", *more, "v1..v2", "orphan", code=1).stderr
        assert "code does not rest on v2" in repo.theta("cascade", *more, "v2..v1", "code", code=1).stderr
    repo.git("branch", "-q", "-f", "later", "v2")
    assert "v1 does not descend from v2" in repo.theta("cascade", "v2..v1", "later", code=1).stderr
    repo.git("branch", "-q", "-D", "earlier", "orphan", "later")
    repo.git("tag", "-d", "fork")
    assert repo.git("for-each-ref") == before


def test_what_base_and_branch_have_in_common_is_not_added_twice(repo: Repo) -> None:
    repo.theta("switch", "-q", "-c", "late", "v2")
    commit(repo, "late", NEW | {"w": NEW["w"] + UPDATE})
    repo.theta("switch", "-q", "main")
    commit(repo, "v3", NEW | {"w": NEW["w"] - 1})
    with pytest.raises(RefusedError, match="late rests on a later base than v1"):
        cascading.cascade(Session.here(repo.path), CascadeRequest("v1", "main", ["late"]))
    (moved,) = cascading.cascade(Session.here(repo.path), CascadeRequest("v2", "main", ["late"]))
    assert moved.ending is CascadeEnding.MOVED


def test_a_new_base_without_its_history_is_taken_when_asked(repo: Repo, tmp_path: Path) -> None:
    repo.git("branch", "vendor", repo.git("commit-tree", "-m", "vendor's", "v2^{tree}"))
    assert "--allow-unrelated" in repo.theta("cascade", "v1..vendor", "chat", code=1).stderr
    repo.theta("cascade", "--allow-unrelated", "v1..vendor", "chat")
    assert np.allclose(model_at(repo, "chat", tmp_path / "m.safetensors")["w"], NEW["w"] + UPDATE, atol=1e-6)
    again = repo.theta("merge", "--replay", "chat")
    assert "the same tree" in again.stdout
    assert "by hand" not in again.stderr
    repo.git("branch", "text", repo.git("commit-tree", "-p", "v1", "-m", "text", "v1^{tree}"))
    repo.git("branch", "same", repo.git("commit-tree", "-m", "vendor's text", "code^{tree}"))
    repo.theta("cascade", "--allow-unrelated", "v1..same", "text")
    assert "the same tree" in repo.theta("merge", "--replay", "text").stdout


@pytest.mark.parametrize("commits", [["chat"], ["code", "chat"]], ids=["checked out", "both"])
def test_a_branch_that_gets_a_commit_meanwhile_keeps_it_and_its_files(repo: Repo, commits: list[str]) -> None:
    repo.theta("switch", "-q", "chat")
    before, model = repo.git("rev-parse", "chat"), (repo.path / MODEL).read_bytes()
    moves = " && ".join(
        f"git -C {repo.path} update-ref refs/heads/{name}"
        f" $(git -C {repo.path} commit-tree -p {name} -m meanwhile {name}^{{tree}})"
        for name in commits
    )
    done = repo.theta("cascade", "v1..v2", "chat", "code", "--exec", f"{moves}; true {{}}", code=1)
    assert "chat: stopped by an error" in done.stdout
    assert "chat has another commit meanwhile, and was not moved" in done.stderr
    assert ("code was not moved: " in done.stderr) == ("code" in commits)
    assert ("code: moved to" in done.stdout) == ("code" not in commits)
    assert repo.git("rev-parse", "chat~2") == before  # the test ran twice
    assert (repo.path / MODEL).read_bytes() == model
    assert not repo.git("status", "--porcelain")


@pytest.mark.parametrize("head", ["stays", "moves"])
def test_files_go_back_when_head_cannot_be_moved_at_the_end(repo: Repo, head: str) -> None:
    model, tip = (repo.path / MODEL).read_bytes(), repo.git("rev-parse", "HEAD")
    new = repo.git("commit-tree", "-p", "HEAD", "-m", "chat's", "chat^{tree}")
    kept = [] if head == "stays" else ["--allow-empty"]

    def move() -> None:
        assert (repo.path / MODEL).read_bytes() != model
        if kept:
            later = repo.git("commit-tree", "-p", "HEAD", "-m", "meanwhile", "HEAD^{tree}")
            repo.git("update-ref", "HEAD", later)
        raise RefusedError("no")

    with pytest.raises(RefusedError, match="no"):
        renewing.advance(Session.here(repo.path), new, move)
    assert (repo.path / MODEL).read_bytes() == model
    assert repo.git("rev-parse", "HEAD~" if kept else "HEAD") == tip
    assert not repo.git("status", "--porcelain")


class _KilledError(BaseException):
    """The end of a process, of which nothing else in it hears."""


@pytest.mark.parametrize("moved", ["by git", "to a commit of others", "back", "by the command"])
def test_files_follow_head_where_a_killed_command_had_not_moved_it(repo: Repo, moved: str) -> None:
    """Killed between files and ref: the user moves HEAD before the next command of theta."""
    new = repo.git("commit-tree", "-p", "HEAD", "-m", "chat's", "chat^{tree}")
    repo.write("notes.txt", "untracked\n")

    def move() -> None:
        if moved == "by the command":
            repo.git("update-ref", "HEAD", new)
        raise _KilledError

    with pytest.raises(_KilledError):
        renewing.advance(Session.here(repo.path), new, move)
    assert (repo.path / MODEL).stat().st_size < OLD["w"].nbytes  # a manifest, which theta had not yet filled
    wanted = {"by git": "v1", "to a commit of others": "code", "back": "HEAD", "by the command": new}[moved]
    tip = repo.git("rev-parse", f"{wanted}^{{commit}}")
    if moved == "by git":
        repo.git("symbolic-ref", "HEAD", "refs/heads/old")
        repo.git("branch", "old", "v1^{commit}")
    else:
        repo.git("update-ref", "HEAD", tip)
    done = repo.theta("status", "--porcelain")
    assert done.stdout.strip() == "?? notes.txt"
    repo.theta("restore", MODEL)
    wanted_model = {"by git": OLD, "to a commit of others": CODE, "back": NEW, "by the command": CHAT}[moved]
    found = read_model(repo.path / MODEL)
    assert all(np.array_equal(found[name], wanted_model[name]) for name in found)
    assert repo.git("rev-parse", "HEAD") == tip
    assert not (repo.path / ".git/theta/journal").exists()


def test_what_makes_no_sense_is_refused(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no branch nowhere"):
        cascade(repo, "chat", "nowhere")
    with pytest.raises(UsageError, match="name the branches"):
        cascade(repo)
    assert "from one base to another" in repo.theta("cascade", "v1", "chat", code=2).stderr
    repo.git("worktree", "add", "-q", str(tmp_path / "other"), "chat")
    with pytest.raises(RefusedError, match="another worktree"):
        cascade(repo, "chat")


def test_branches_of_a_bare_repository_move(template: Repo, tmp_path: Path) -> None:
    template.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    bare = Repo(tmp_path / "bare.git")
    assert (
        "code: moved to"
        in bare.theta("cascade", "v1..v2", "code", "--exec", "test -f {}/m.safetensors").stdout
    )
    assert bare.git("log", "-1", "--format=%s", "code") == "Merge v2 into code, in place of v1"
