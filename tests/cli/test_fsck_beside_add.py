"""``theta fsck`` while another process adds files: what came since git began is not missing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors

_GIT = """#!/bin/sh
case " $* " in
*" fsck "*)
    echo >> '{calls}'
    if [ "$(wc -l < '{calls}')" -le {wrong} ]; then
        echo "missing blob 8fc007d30813375ba6d3697369669105350fafbb"
        exit 2
    fi ;;
esac
exec '{real}' "$@"
"""


@pytest.fixture
def repo(repo: Repo) -> Repo:
    make_model(repo.path / "m.safetensors", random_tensors({"a": (8, 8)}))
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "model")
    return repo


def misled(tmp_path: Path, wrong: int) -> dict[str, str]:
    """Return an environment whose git misses a blob at the first ``wrong`` checks."""
    (folder := tmp_path / "programs").mkdir()
    text = _GIT.format(calls=tmp_path / "calls", wrong=wrong, real=shutil.which("git"))
    (folder / "git").write_text(text)
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_what_is_there_at_a_second_look_is_no_problem(repo: Repo, tmp_path: Path) -> None:
    done = repo.theta("fsck", env=misled(tmp_path, 1))
    assert done.stdout == "no problems found\n"


def test_what_is_missing_twice_is_one(repo: Repo, tmp_path: Path) -> None:
    done = repo.theta("fsck", env=misled(tmp_path, 2), code=90)
    assert done.stdout.splitlines() == ["missing blob 8fc007d30813375ba6d3697369669105350fafbb"]


@pytest.mark.parametrize("wrong", [1, 2])
def test_reports_for_programs_are_looked_at_twice_as_well(repo: Repo, tmp_path: Path, wrong: int) -> None:
    done = repo.theta("fsck", "--json", env=misled(tmp_path, wrong), code=None)
    assert len(json.loads(done.stdout)["theta.fsck/v1"]["git"]) == wrong - 1
