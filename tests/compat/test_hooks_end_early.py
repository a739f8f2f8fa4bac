"""Hooks start theta only where it may have something to do, and leave nothing undone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement
from tests.compat.story import MODEL, edit, new_model
from tests.support import Repo

_NOTED = """\
import os, sys

with open(os.environ["STARTS"], "a") as file:
    words = sys.orig_argv
    print(*words[words.index("theta") + 1 :], file=file)
"""


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which each theta that starts adds its words."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(_NOTED)
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"]]))
    return tmp_path / "starts"


@pytest.fixture
def tracked(tmp_path: Path) -> Repo:
    """A repository with a checkpoint, whose hooks start theta as they do for a user."""
    repo = Repo.create(tmp_path / "repo")
    repo.afresh = True
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.git("add", ".")
    repo.git("commit", "-q", "-m", "model")
    return repo


def started(starts: Path) -> list[str]:
    """Return the words of each start, without those of ``git commit``'s messages."""
    found = starts.read_text().splitlines() if starts.exists() else []
    starts.unlink(missing_ok=True)
    return [" ".join(line.split()[:2]) for line in found]


def test_a_plain_add_and_commit_start_theta_twice(tracked: Repo, starts: Path) -> None:
    new = edit(tracked, "layer.0.weight")
    tracked.git("add", MODEL)
    assert started(starts) == ["filter-process", "hook post-index-change"]
    tracked.git("commit", "-q", "-m", "edit")
    # Git reads a file again, by the filter, if it is as new as the index.
    assert [words for words in started(starts) if words != "filter-process"] == ["hook pre-commit"]
    assert_agreement(tracked, {MODEL: new})


def test_what_pre_commit_has_not_seen_is_mended(tracked: Repo, starts: Path) -> None:
    """A note of a commit that was given up does not keep the next from being looked at."""
    tracked.write(".git/hooks/commit-msg", "#!/bin/sh\nexit 1\n").chmod(0o755)
    edit(tracked, "layer.0.weight")
    tracked.git("add", MODEL)
    assert tracked.try_git("commit", "-q", "-m", "given up").returncode == 1
    (tracked.path / ".git/hooks/commit-msg").unlink()
    started(starts)
    tracked.git("rm", "-rq", "--cached", "--sparse", ".theta")
    tracked.git("commit", "-q", "-n", "-m", "unseen", env={"THETA_HOOKS": ""})
    assert "hook post-commit" in started(starts)
    assert tracked.git("ls-tree", "HEAD", ".theta")
    for how in (["-a"], [MODEL]):
        new = edit(tracked, "layer.1.weight")
        tracked.git("commit", "-q", "-m", "other indexes", *how)
        assert "hook post-commit" in started(starts)
        assert_agreement(tracked, {MODEL: new})
