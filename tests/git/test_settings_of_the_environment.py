"""Settings that come from outside of git's files (git-config(1), ENVIRONMENT) count for theta as for git."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import contested, theta
from tests.support import Repo
from theta.git.repository import Repository

KEY = "theta.merge.strategy"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.create(tmp_path / "r")


@pytest.mark.parametrize("way", ["parameters", "count", "global", "system"])
def test_settings_are_those_of_git(
    repo: Repo, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings"
    file.write_text('[theta "merge"]\n\tstrategy = ties\n[a]\n\tflag\n\tmany = 1\n\tmany = 2\n')
    given = {
        "parameters": {"GIT_CONFIG_PARAMETERS": f"'include.path'='{file}'"},
        "count": {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "include.path",
            "GIT_CONFIG_VALUE_0": str(file),
        },
        "global": {"GIT_CONFIG_GLOBAL": str(file)},
        "system": {"GIT_CONFIG_NOSYSTEM": "", "GIT_CONFIG_SYSTEM": str(file)},
    }
    assert Repository.discover(repo.path).config.get(KEY) is None
    for name, value in given[way].items():
        monkeypatch.setenv(name, value)
    found = Repository.discover(repo.path)
    assert found.config.get(KEY) == "ties" == repo.git("config", KEY)
    if way != "count":
        assert found.config.flag("a.flag")
        assert found.config.all("a.many") == ["1", "2"]
    repo.git("config", KEY, "average")
    assert found.config.get(KEY) == repo.git("config", KEY)


@pytest.mark.parametrize(
    "condition", ["hasconfig:remote.*.url:https://example.org/**", "onbranch:main", "gitdir:**/r/.git"]
)
def test_included_settings_are_those_of_git(repo: Repo, tmp_path: Path, condition: str) -> None:
    """Libgit2 passes over files that are included for the URL of a remote."""
    (tmp_path / "settings").write_text('[theta "merge"]\n\tstrategy = ties\n')
    repo.git("remote", "add", "origin", "https://example.org/team/model.git")
    repo.git("config", f"includeIf.{condition}.path", str(tmp_path / "settings"))
    assert Repository.discover(repo.path).config.get(KEY) == "ties" == repo.git("config", KEY)


def test_what_theta_gives_to_git_needs_no_git(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that theta's git starts would else start one git more."""
    for name, value in repo_environment(repo).items():
        monkeypatch.setenv(name, value)
    assert "Libgit2" in type(Repository.discover(repo.path).config).__name__


def repo_environment(repo: Repo) -> dict[str, str]:
    """The settings in the environment that a git of theta's gets."""
    found = Repository.discover(repo.path).git().environment()
    return {name: value for name, value in found.items() if name.startswith("GIT_CONFIG")}


def test_a_strategy_on_the_command_line_settles_a_merge(tmp_path: Path) -> None:
    repo = contested(tmp_path / "r")
    assert theta(repo, "merge", "side", code=None).code != 0
    theta(repo, "merge", "--abort")
    theta(repo, "-c", f"{KEY}=average", "merge", "-q", "side")
    assert "average" in repo.git("log", "-1", "--format=%B")
