"""The stumbles of a stranger between the README and a merged model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "line",
    [
        "-b trunk",
        "-b trunk models",
        "--initial-branch trunk models",
        "--initial-branch=trunk",
        "-q -b trunk models",
    ],
)
def test_the_value_of_an_option_is_no_folder(tmp_path: Path, line: str) -> None:
    """``theta init -b main`` looked for a repository in ``main``."""
    command = [sys.executable, "-m", "theta", "init", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "models" if "models" in line else tmp_path
    assert (place / ".git" / "HEAD").read_text() == "ref: refs/heads/trunk\n"
    assert (place / ".git" / "info" / "theta-launcher").is_file()
    assert not (tmp_path / "trunk").exists()


def test_a_bare_repository_gets_no_hooks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "theta", "init", "--bare", "-b", "trunk", "models.git"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "models.git" / "HEAD").read_text() == "ref: refs/heads/trunk\n"
