"""Settings that come from outside of git's files (git-config(1), ENVIRONMENT) count for theta as for git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compat.inprocess import contested, theta
from tests.support import Repo
from theta.git.backends import opening
from theta.git.repository import Repository
from theta.porcelain.setup import installing

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


@pytest.mark.parametrize("text", [b"[user]\n\tname = Jos\xe9\n", b'[remote "caf\xe9"]\n\turl = ../r\n'])
@pytest.mark.parametrize("way", ["local", "global"])
def test_settings_that_are_no_utf8_are_those_of_git(
    repo: Repo, tmp_path: Path, text: bytes, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libgit2's bindings decode each entry that they pass."""
    file = repo.path / ".git/config" if way == "local" else tmp_path / "settings"
    if way == "global":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    with file.open("ab") as opened:
        opened.write(text + b'[theta "merge"]\n\tstrategy = ties\n')
    found = Repository.discover(repo.path)
    assert found.config.get(KEY) == "ties" == found.lasting_config.get(KEY)
    assert (found.config.get("user.name") == "Jos\udce9") == (b"user" in text)
    listed = repo.git("config", "--name-only", "--list").split("\n")
    assert {*found.lasting_config} == {*listed}
    assert found.refs.remotes() == repo.git("remote").split()


@pytest.mark.parametrize("word", ["1", "yes", "false", ""])
def test_the_settings_of_the_system_are_read_where_git_reads_them(
    repo: Repo, tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libgit2 knows nothing of GIT_CONFIG_NOSYSTEM; its folder of the system's file stands in for /etc."""
    (tmp_path / "gitconfig").write_text('[theta "merge"]\n\tstrategy = ties\n')
    monkeypatch.setattr(opening, "_SYSTEM", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", word)
    asked = ["git", "config", "--type=bool", "--get", "a.b"]
    is_read = (
        not word or subprocess.check_output(asked, text=True, cwd=repo.path, env=told(word)) == "false\n"
    )
    assert (Repository.discover(repo.path).config.get(KEY) == "ties") == is_read
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert Repository.discover(repo.path).config.get(KEY) is None


def told(word: str) -> dict[str, str]:
    """An environment in which git tells what it makes of a word."""
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": word}
    return {**os.environ, **given}


@pytest.mark.parametrize("form", ["sha1", "sha256"])
@pytest.mark.parametrize("way", ["parameters", "count", "global"])
def test_what_stays_follows_the_files_alone(
    tmp_path: Path, form: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks belong where the files say, those of GIT_CONFIG_GLOBAL too: each git of the user reads it."""
    monkeypatch.setenv("GIT_DEFAULT_HASH", form)
    repo = Repo.create(tmp_path / "r")
    file = tmp_path / "settings"
    file.write_text("[core]\n\thooksPath = elsewhere\n")
    given = {
        "parameters": {"GIT_CONFIG_PARAMETERS": "'core.hookspath'='elsewhere'"},
        "count": {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.hooksPath",
            "GIT_CONFIG_VALUE_0": "elsewhere",
        },
        "global": {"GIT_CONFIG_GLOBAL": str(file)},
    }
    for name, value in given[way].items():
        monkeypatch.setenv(name, value)
    found = Repository.discover(repo.path)
    assert found.config.get("core.hookspath") == "elsewhere"
    lasts = way == "global"
    assert found.lasting_config.get("core.hookspath") == ("elsewhere" if lasts else None)
    assert installing.hooks_directory(found) == repo.path / ("elsewhere" if lasts else ".git/hooks")
    assert "core.fsync" not in found.lasting_config


def test_a_hook_for_refs_that_only_the_environment_names_runs(repo: Repo, tmp_path: Path) -> None:
    """Libgit2 runs no hooks; git moves a ref that may have one."""
    own = tmp_path / "hooks"
    own.mkdir()
    hook = own / "reference-transaction"
    hook.write_text(f'#!/bin/sh\ncat >> "{tmp_path}/moved"\n')
    hook.chmod(0o755)
    repo.write("a.txt", "a\n")
    theta(repo, "add", ".")
    theta(repo, "-c", f"core.hooksPath={own}", "commit", "-q", "-m", "one")
    assert "refs/heads/main" in (tmp_path / "moved").read_text()


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
