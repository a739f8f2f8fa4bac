"""Checkpoints that a commit or an add would leave behind, or take as plain bytes, without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.compat.story import MODEL, new_model
from tests.support import Repo, sha256

COVERED = "no tracked pattern covers"
LEFT = "a tracked pattern and is not"


@pytest.fixture
def tracking(repo: Repo) -> Repo:
    """A repository that tracks safetensors files and has committed none yet."""
    repo.theta("track", "*.safetensors")
    return repo


def committed(repo: Repo) -> set[str]:
    """The files of HEAD."""
    names = repo.git("ls-tree", "-r", "--name-only", "HEAD").split("\n")
    return {name for name in names if not name.startswith(".theta/")}


def test_a4_the_first_commit_of_the_story_holds_the_model(tracking: Repo) -> None:
    """``theta track '*.safetensors'; theta commit -am base``: the model is in it, and a line says so."""
    digest = new_model(tracking)
    done = tracking.theta("commit", "-am", "base")
    assert f"{MODEL}: new file of a tracked pattern, included" in done.stdout
    assert committed(tracking) == {".gitattributes", "code.py", MODEL}
    (tracking.path / MODEL).unlink()
    tracking.theta("restore", MODEL)
    assert sha256(tracking.path / MODEL) == digest


def test_a4_ignored_and_other_untracked_files_stay_out(tracking: Repo) -> None:
    tracking.write(".gitignore", "scratch/\n")
    new_model(tracking, "scratch/x.safetensors")
    new_model(tracking, "deep/y.safetensors")
    (tracking.path / "link.safetensors").symlink_to("deep/y.safetensors")
    done = Repo(tracking.path / "deep", tracking.ticks).theta("commit", "-a", "-m", "base")
    assert committed(tracking) == {".gitattributes", "code.py", "deep/y.safetensors"}
    assert "warning" not in done.stderr


@pytest.mark.parametrize("args", [["--dry-run"], ["--short"]])
def test_a4_a_dry_run_stages_no_new_file(tracking: Repo, args: list[str]) -> None:
    new_model(tracking)
    tracking.theta("commit", "-a", *args, code=None)
    assert MODEL not in tracking.git("ls-files")


@pytest.mark.parametrize(
    "command", [["commit", "-m", "x"], ["commit", "-m", "x", "code.py"], ["add", "-u"]], ids="_".join
)
def test_a4_siblings_say_what_they_leave_behind(tracking: Repo, command: list[str]) -> None:
    new_model(tracking)
    tracking.write("code.py", "changed\n")
    done = tracking.theta(*command)
    (line,) = (line for line in done.stderr.splitlines() if LEFT in line)
    assert line.startswith(f"warning: {MODEL} matches")
    tracking.theta(*line.rpartition("to stage: theta ")[2].split())
    assert MODEL in tracking.git("ls-files")


def test_a4_stash_leaves_an_untracked_checkpoint_where_it_is(tracking: Repo) -> None:
    digest = new_model(tracking)
    tracking.write("code.py", "changed\n")
    tracking.theta("stash")
    assert sha256(tracking.path / MODEL) == digest


def test_a4_commit_of_a_new_path_is_not_silent(tracking: Repo) -> None:
    new_model(tracking)
    assert "did not match" in tracking.theta("commit", "-m", "x", MODEL, code=1).stderr


def test_b6_a_checkpoint_that_no_pattern_covers_gets_one_line(tracking: Repo) -> None:
    """Upper case, another folder: the line names the command, and the command is right."""
    new_model(tracking, "runs/MODEL.PT")
    tracking.write("notes.txt", "text")
    done = tracking.theta("add", ".")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"warning: runs/MODEL.PT is a checkpoint or large, and {COVERED} it; to track it: theta track '*.PT'"
    )
    done = tracking.theta("commit", "-m", "raw")
    assert COVERED in done.stderr
    tracking.theta("track", "*.PT")
    done = tracking.theta("add", ".")
    assert COVERED not in done.stderr
    assert tracking.git("show", ":runs/MODEL.PT").startswith("theta checkpoint 1\n")


def test_b6_the_command_fits_where_one_stands(tracking: Repo) -> None:
    new_model(tracking, "runs/m.pt")
    (tracking.path / "other").mkdir()
    other = Repo(tracking.path / "other", tracking.ticks)
    assert "theta -C .. track '*.pt'" in other.theta("add", "../runs").stderr
    new_model(tracking, "runs/n.pt")
    runs = Repo(tracking.path / "runs", tracking.ticks)
    assert "to track it: theta track '*.pt'" in runs.theta("add", ".").stderr


def test_a4_plain_git_hears_from_the_hook_what_it_leaves_behind(tracking: Repo) -> None:
    """``git commit -a`` said nothing of a new model; the line's command is right, and theta says it once."""
    new_model(tracking)
    tracking.git("add", ".gitattributes")
    done = tracking.try_git("commit", "-q", "-am", "base")
    (line,) = done.stderr.splitlines()
    assert line == f"theta: {MODEL} matches {LEFT} in this commit; to stage: theta add {MODEL}"
    tracking.write("code.py", "changed\n")
    assert tracking.theta("commit", "-q", "-m", "code", "code.py").stderr.count(LEFT) == 1
    tracking.theta("add", MODEL)
    assert LEFT not in tracking.try_git("commit", "-q", "-m", "model").stderr


def test_b6_plain_git_hears_it_from_the_hook(tracking: Repo) -> None:
    new_model(tracking, "m.pt")
    tracking.write("big.csv", b"1,2\n" * 2_500_000)
    tracking.git("add", ".")
    done = tracking.try_git("commit", "-q", "-m", "raw")
    assert done.returncode == 0
    assert f"big.csv, m.pt are checkpoints or large, and {COVERED} them" in done.stderr
    tracking.write("code.py", "changed\n")
    assert COVERED not in tracking.try_git("commit", "-q", "-am", "next").stderr


def test_b6_small_data_and_text_are_no_concern(tracking: Repo) -> None:
    np.save(tracking.path / "labels.npy", np.arange(50))
    tracking.write("utf8.txt", "é" * 1000)
    tracking.write("empty", b"")
    tracking.write("deep/lfs.bin", Path(__file__).read_bytes())
    assert tracking.theta("add", ".").stderr == ""
    np.save(tracking.path / "weights.npy", np.zeros(200_000))
    assert "weights.npy is a checkpoint" in tracking.theta("add", ".").stderr
