"""Words behind ``--`` are names, whatever they begin with (gitcli(7)), in each command that has names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import contested, theta
from tests.compat.story import MODEL, TENSOR
from tests.support import Repo

NAME = "-q.safetensors"
LINES = (
    f"blame -- {NAME}",
    f"blame HEAD -- {NAME}#*",
    f"ls-files -- {NAME}",
    f"check -- {NAME}",
    f"scan -- {NAME}",
    f"cat -- {NAME}#{TENSOR}",
    f"cat -- HEAD:{NAME}#{TENSOR}",
    f"lineage HEAD -- {NAME}",
    f"apply HEAD --into ../folder -- {NAME}",
    f"convert -o o.npz -- {NAME}",
    f"export -o o.safetensors -- HEAD:{NAME}",
    f"status -- {NAME}",
    f"show HEAD -- {NAME}",
    f"diff HEAD~ -- {NAME}",
    f"log -- {NAME}",
    f"restore -- {NAME}",
    f"track -- {NAME}",
    f"untrack -- {NAME}",
    f"rm -- {NAME}",
)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two branches whose checkpoint is named like an option."""
    found = contested(tmp_path_factory.mktemp("operands") / "r")
    for branch in ("side", "ours"):
        theta(found, "switch", "-q", branch)
        theta(found, "mv", "--", MODEL, NAME)
        theta(found, "commit", "-q", "-m", "renamed")
    return found


def test_a_name_is_no_option(repo: Repo) -> None:
    for line in LINES:
        done = theta(repo, *line.split(), code=None)
        assert (done.code, "\x01" in done.err) == (0, False), (line, done)


def test_a_conflict_in_such_a_file_is_settled(repo: Repo) -> None:
    repo.git("reset", "-q", "--hard")
    theta(repo, "merge", "side", code=1)
    theta(repo, "resolve", "-X", "average", "--", NAME)
    assert repo.git("ls-files", "--unmerged") == ""


def test_what_is_no_option_is_told(repo: Repo) -> None:
    for line in ("resolve -y", "apply HEAD --into ../folder -y", "check -y"):
        assert "-y" in theta(repo, *line.split(), code=2).err


def test_commands_of_theta_alone_do_not_write_another_index(repo: Repo, tmp_path: Path) -> None:
    other = {"GIT_INDEX_FILE": str(tmp_path / "other")}
    for line in ("resolve", "average HEAD", "undo", "track *.x", "cascade HEAD~..HEAD side", "migrate raw"):
        assert "GIT_INDEX_FILE is set" in theta(repo, *line.split(), code=2, env=other).err
