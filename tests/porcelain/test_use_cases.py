"""The use cases without the command line: a request goes in, a result comes out, nothing is printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support import Repo, make_model, random_tensors, sha256
from theta.errors import NotFoundError, UsageError
from theta.git.options import Arguments
from theta.porcelain.commands import additions, clones, commits, histories, patterns, restoration, sequence
from theta.porcelain.commands.additions import AddRequest, UpdateRequest
from theta.porcelain.commands.clones import CloneRequest
from theta.porcelain.commands.commits import CommitRequest
from theta.porcelain.commands.histories import LogRequest
from theta.porcelain.commands.merge_request import TensorOptions
from theta.porcelain.commands.patterns import TrackRequest
from theta.porcelain.commands.restoration import RestoreRequest
from theta.porcelain.commands.sequence import SequenceRequest
from theta.porcelain.look import comparison, overview, showing
from theta.porcelain.look.comparison import DiffRequest
from theta.porcelain.look.diffing import Sides
from theta.porcelain.look.showing import ShownCheckpoint, ShownCommit, ShownFiles, ShownTensor
from theta.porcelain.workspace import tracking
from theta.porcelain.workspace.session import Session

MODEL = "m.safetensors"


def change(repo: Repo, seed: int, name: str = MODEL) -> str:
    """Give the model another value of one of its tensors; returns the digest of the file."""
    tensors = random_tensors({"a.weight": (20, 30), "b.weight": (20, 30)})
    tensors["a.weight"] = np.random.default_rng(seed).standard_normal((20, 30)).astype(np.float32)
    make_model(repo.path / name, tensors)
    return sha256(repo.path / name)


def state(repo: Repo) -> str:
    """The rows of git status, without those below ``.theta/``."""
    return repo.git("status", "--short", "--", ":(top)", ":(exclude,top).theta")


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.theta("track", "*.safetensors")
    change(repo, 1)
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one")
    return repo


@pytest.fixture
def session(tracked: Repo) -> Session:
    """A session as a program has it."""
    return Session.here(tracked.path)


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str], session: Session) -> object:
    capfd.readouterr()
    yield
    assert capfd.readouterr() == ("", ""), "a use case prints nothing"


def test_a_commit_of_everything_tells_what_it_holds(tracked: Repo, session: Session) -> None:
    change(tracked, 2)
    change(tracked, 3, "new.safetensors")
    result = commits.commit(session, CommitRequest.saying("two", everything=True))
    assert result.code == 0
    assert {item.path: item.newcomer for item in result.added} == {MODEL: False, "new.safetensors": True}
    assert result.summary is not None
    assert result.summary.commit == tracked.git("rev-parse", "HEAD")
    assert [change.name for change in result.summary.checkpoints[MODEL].tensors] == ["a.weight"]
    assert (result.left_out, result.uncovered, result.notes) == ((), (), ())
    plain = result.as_json()
    assert plain.pop("branch") == "main"
    assert plain == result.summary.as_json()
    assert plain["checkpoints"][MODEL] == [["M", "a.weight"]]
    assert state(tracked) == ""


def test_a_commit_of_paths_names_what_it_leaves_out(tracked: Repo, session: Session) -> None:
    change(tracked, 2)
    change(tracked, 3, "new.safetensors")
    tracked.write("code.py", "print('more')\n")
    result = commits.commit(session, CommitRequest.saying("two", [MODEL]))
    assert result.summary is not None
    assert (result.summary.files, result.left_out) == (0, ("new.safetensors",))
    assert state(tracked) == " M code.py\n?? new.safetensors"


def test_a_commit_of_nothing_tells_what_git_said(session: Session) -> None:
    before = session.repo.head()
    result = commits.commit(session, CommitRequest.saying("nothing"))
    assert (result.code, result.summary) == (1, None)
    assert "nothing to commit, working tree clean" in result.said.out
    assert session.again().repo.head() == before


def test_amending_makes_a_new_commit(tracked: Repo, session: Session) -> None:
    result = commits.commit(session, CommitRequest.saying("other words", amend=True))
    assert result.summary is not None
    assert result.summary.subject == tracked.git("log", "-1", "--format=%s") == "other words"


def test_what_is_added_comes_back(tracked: Repo, session: Session) -> None:
    change(tracked, 2)
    tracked.write("code.py", "print('more')\n")
    result = additions.add(session, AddRequest.of(everything=True))
    assert [(item.path, item.new) for item in result.added] == [(MODEL, ("a.weight",))]
    assert state(tracked).split() == ["M", "code.py", "M", MODEL]
    assert additions.add(session, AddRequest.of()).added == ()
    with pytest.raises(NotFoundError):
        additions.add(session, AddRequest.of(["nothing-there"]))


def test_an_update_leaves_new_files_out(tracked: Repo, session: Session) -> None:
    change(tracked, 3, "new.safetensors")
    result = additions.add(session, AddRequest.of(update=True))
    assert (result.added[0].new, result.left_out) == ((), ("new.safetensors",))


def test_restoring_brings_back_checkpoints_and_files(tracked: Repo, session: Session) -> None:
    one = sha256(tracked.path / MODEL)
    change(tracked, 2)
    tracked.write("code.py", "print('more')\n")
    result = restoration.restore(session, RestoreRequest.of(["."]))
    assert result.checkpoints == (MODEL,)
    assert sha256(tracked.path / MODEL) == one
    assert state(tracked) == ""


def test_restoring_another_version(tracked: Repo, session: Session) -> None:
    one = sha256(tracked.path / MODEL)
    two = change(tracked, 2)
    tracked.theta("commit", "-a", "-m", "two")
    restoration.restore(session, RestoreRequest.of([MODEL], "HEAD~1", staged=True))
    assert sha256(tracked.path / MODEL) == one
    assert state(tracked) == f"M  {MODEL}"
    restoration.restore(session.again(), RestoreRequest.of([MODEL], staged=True, worktree=False))
    assert sha256(tracked.path / MODEL) == one
    assert state(tracked) == f" M {MODEL}"
    restoration.restore(session.again(), RestoreRequest.of([MODEL]))
    assert sha256(tracked.path / MODEL) == two


def test_restoring_from_a_folder_below(tracked: Repo) -> None:
    (tracked.path / "sub").mkdir()
    change(tracked, 2)
    below = Session.here(tracked.path / "sub")
    assert restoration.restore(below, RestoreRequest.of([f"../{MODEL}"])).checkpoints == (MODEL,)
    assert state(tracked) == ""


def test_both_sides_of_a_conflict_cannot_be_asked_for(session: Session) -> None:
    both = RestoreRequest.of([MODEL], side="ours").line
    other = RestoreRequest.of([MODEL], side="theirs").line
    with pytest.raises(UsageError):
        restoration.restore(
            session, RestoreRequest(type(both)((), True, (*both.options, *other.options), (MODEL,)))
        )


def test_no_use_case_depends_on_the_current_directory(
    tracked: Repo, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change(tracked, 2)
    result = commits.commit(session, CommitRequest.saying("two", [MODEL]))
    assert result.summary is not None
    assert list(result.summary.checkpoints) == [MODEL]


def test_a_clone_has_its_checkpoints(tracked: Repo, tmp_path: Path) -> None:
    result = clones.clone(CloneRequest.of(str(tracked.path), tmp_path / "copy"))
    assert (result.code, result.place, result.notes) == (0, tmp_path / "copy", ())
    assert sha256(tmp_path / "copy" / MODEL) == sha256(tracked.path / MODEL)
    assert state(Repo(tmp_path / "copy")) == ""
    assert any("core.fsync" in line for line in result.hints)


def test_a_clone_of_nothing_tells_what_git_said(tmp_path: Path) -> None:
    result = clones.clone(CloneRequest.of(str(tmp_path / "nothing"), tmp_path / "copy"))
    assert (result.code, result.place) == (128, None)
    assert any("does not exist" in line for line in result.said.err)


@pytest.fixture
def diverged(tracked: Repo) -> Repo:
    """Two branches that changed the same tensor, and code of their own."""
    tracked.git("checkout", "--quiet", "-b", "side")
    change(tracked, 2)
    tracked.write("side.py", "side\n")
    tracked.theta("add", "-A")
    tracked.theta("commit", "-m", "side")
    tracked.git("checkout", "--quiet", "main")
    change(tracked, 3)
    tracked.theta("commit", "-a", "-m", "ours")
    return tracked


@pytest.mark.parametrize(("name", "words"), [("cherry-pick", ["side"]), ("rebase", ["side"])])
def test_a_sequence_goes_past_stops_of_checkpoints(
    diverged: Repo, session: Session, name: str, words: list[str]
) -> None:
    theirs = "side" if name == "cherry-pick" else "main"
    wanted = diverged.git("rev-parse", f"{theirs}:{MODEL}")
    before = diverged.git("rev-parse", "HEAD")
    result = sequence.sequence(session, SequenceRequest(name, words, TensorOptions(["theirs"])))
    assert (result.code, result.before, result.notes) == (0, before, ())
    assert result.after == diverged.git("rev-parse", "HEAD") != before
    assert [item.path for item in result.settlement.settled] == [MODEL]
    assert diverged.git("rev-parse", f"HEAD:{MODEL}") == wanted
    assert state(diverged) == ""


def test_a_sequence_stops_where_nobody_decides(diverged: Repo, session: Session) -> None:
    before = diverged.git("rev-parse", "HEAD")
    result = sequence.sequence(session, SequenceRequest("cherry-pick", ["side"]))
    assert (result.code, result.after) == (1, before)
    assert result.settlement.unmerged == (MODEL,)
    assert [conflict.name for conflict in result.settlement.conflicts[MODEL]] == ["a.weight"]
    assert result.settlement.go_on == "theta cherry-pick --continue"
    again = sequence.sequence(session.again(), SequenceRequest("cherry-pick", ["--abort"]))
    assert (again.code, again.after) == (0, before)
    assert state(diverged) == ""


def test_a_revert_that_comes_to_nothing_says_so(diverged: Repo, session: Session) -> None:
    change(diverged, 4)
    diverged.theta("commit", "-a", "-m", "more")
    result = sequence.sequence(session, SequenceRequest("revert", ["HEAD~1"], TensorOptions(["ours"])))
    assert result.code == 1
    assert result.empty
    assert state(diverged) == ""


def test_the_status_is_a_value(tracked: Repo, session: Session) -> None:
    change(tracked, 2)
    change(tracked, 3, "new.safetensors")
    found = overview.report(session, [])
    assert [(row.path, row.index + row.worktree) for row in found.rows] == [
        (MODEL, " M"),
        ("new.safetensors", "??"),
    ]
    assert [one.name for one in found.unstaged[MODEL].tensors] == ["a.weight"]
    assert found.as_json() == json.loads(tracked.theta("status", "--json").stdout)["theta.status/v1"]


@pytest.mark.parametrize("sides", [Sides("", None), Sides("HEAD", None)], ids=["index", "HEAD"])
def test_a_diff_is_a_value(tracked: Repo, session: Session, sides: Sides) -> None:
    change(tracked, 2)
    request = DiffRequest(sides, ["."], "a.*", numbers=True)
    result = comparison.diff(session, request)
    assert result.known == {MODEL}
    [item] = [comparison.tensors(session, request, one) for one in result.checkpoints]
    assert [one.name for one in item.tensors] == ["a.weight"]
    assert item.numbers["a.weight"].changed > 0.9
    words = [sides.old] if sides.old else []
    printed = tracked.theta("diff", *words, "--json", "--stats", "--tensor", "a.*", ".").stdout
    assert item.as_json() == json.loads(printed)["theta.diff/v1"][0] | {
        "tensors": [asdict(item.tensors[0]) | {"stats": asdict(item.numbers["a.weight"])}]
    }
    assert comparison.diff(session, DiffRequest(sides, ["code.py"])).checkpoints == ()


def test_what_a_name_shows_is_a_value(tracked: Repo, session: Session) -> None:
    commit = showing.find(session, "HEAD")
    assert isinstance(commit, ShownCommit)
    assert (commit.oid, [item.path for item in commit.changed]) == (session.repo.head(), [MODEL])
    files = showing.find(session, "HEAD:")
    assert isinstance(files, ShownFiles)
    assert files.lines[2:] == (".gitattributes", "code.py", MODEL)
    whole = showing.find(session, f"HEAD:{MODEL}")
    assert isinstance(whole, ShownCheckpoint)
    assert [line.name for line in whole.tensors] == ["a.weight", "b.weight"]
    one = showing.find(session, f"HEAD:{MODEL}#b.weight")
    assert isinstance(one, ShownTensor)
    assert (one.line, one.chunks) == (whole.tensors[1], 1)
    assert showing.find(session, "HEAD:code.py") is None
    assert [item.line for item in showing.codecs(session, f"HEAD:{MODEL}")] == list(whole.tensors)
    with pytest.raises(NotFoundError):
        showing.codecs(session, f"HEAD:{MODEL}#nothing")


def test_a_checkpoint_is_not_renamed_to_what_nothing_tracks(tracked: Repo) -> None:
    (tracked.path / "sub").mkdir()
    below = Session.here(tracked.path / "sub")
    tracking.check_moves(below, [f"../{MODEL}", "other.safetensors"])
    tracking.check_moves(below, [f"../{MODEL}", "."])
    tracking.check_moves(below, ["../code.py", "code.txt"])
    with pytest.raises(UsageError, match="would not be tracked"):
        tracking.check_moves(below, [f"../{MODEL}", "model.bin"])
    with pytest.raises(UsageError, match="outside"):
        tracking.check_moves(below, [f"../../{MODEL}", "other.safetensors"])


def test_patterns_are_tracked_and_taken_back(tracked: Repo, session: Session) -> None:
    (tracked.path / "w.npy").write_bytes(b"not an array")
    tracked.git("add", "w.npy")
    tracked.git("commit", "-q", "-m", "raw")
    done = patterns.track(session, TrackRequest(["*.npy", "*.gguf"]))
    assert (done.new, done.unmatched, done.plain) == (("*.npy", "*.gguf"), ("*.gguf",), ("w.npy",))
    assert [str(one) for one in patterns.listed(session)] == ["*.safetensors", "*.npy", "*.gguf"]
    assert patterns.untrack(session.again(), TrackRequest(["*.npy"])).plain == ("w.npy",)
    with pytest.raises(UsageError, match="not a pattern"):
        patterns.track(session.again(), TrackRequest(["../up"]))


def test_the_log_tells_which_commit_changed_a_tensor(tracked: Repo, session: Session) -> None:
    change(tracked, 2)
    tracked.theta("commit", "-q", "-a", "-m", "two")
    line = Arguments(())
    assert [item.subject for item in histories.log(session, LogRequest(line)).commits] == [
        "two",
        "one",
        "initial",
    ]
    of_b = histories.log(session, LogRequest(line, "b.*"))
    assert [(item.subject, len(item.checkpoints[MODEL].tensors)) for item in of_b.commits] == [("one", 1)]


def test_an_update_is_applied_and_staged(tracked: Repo, session: Session, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    factors = {
        "base_model.model.a.lora_A.weight": rng.standard_normal((2, 30)).astype(np.float32),
        "base_model.model.a.lora_B.weight": rng.standard_normal((20, 2)).astype(np.float32),
    }
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    before = sha256(tracked.path / MODEL)
    with pytest.raises(UsageError, match="no update type"):
        additions.update(session, UpdateRequest(MODEL, adapter, "quantum"))
    with pytest.raises(NotFoundError, match="nosuch"):
        additions.update(session, UpdateRequest(MODEL, tmp_path / "nosuch"))
    result = additions.update(session, UpdateRequest(MODEL, adapter, "low-rank"))
    assert [item.new for item in result.added] == [("a.weight",)]
    assert sha256(tracked.path / MODEL) != before
    assert state(tracked) == f"M  {MODEL}"
