"""The session is isolated from the machine, and a leak would be seen."""

import os
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import ConfigLevel

from tests.support import Repo, environment


def test_nothing_of_the_machine_leaks_in(tmp_path: Path) -> None:
    base = {
        "PATH": "/bin",
        "HOME": "/home/someone",
        "GIT_DIR": "/elsewhere/.git",
        "GIT_AUTHOR_NAME": "Someone",
        "GIT_CONFIG_COUNT": "1",
        "XDG_CONFIG_HOME": "/home/someone/.config",
        "THETA_LOG": "debug",
        "NO_COLOR": "1",
        "EDITOR": "vi",
        "NUMBA_CACHE_DIR": "/tmp/kernels",
        "CI": "true",
    }
    made = environment.hermetic_environment(tmp_path, base)
    leaks = [name for name in base if made.get(name) == base[name]]
    assert leaks == ["NUMBA_CACHE_DIR", "CI"]
    assert [name for name, value in made.items() if "/home/someone" in value] == []
    assert "GIT_DIR" not in made


def test_configuration_from_elsewhere_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.check_isolation(home)
    with monkeypatch.context() as patch:
        patch.setenv("GIT_CONFIG_COUNT", "1")
        patch.setenv("GIT_CONFIG_KEY_0", "user.name")
        patch.setenv("GIT_CONFIG_VALUE_0", "Someone")
        with pytest.raises(AssertionError, match="reads configuration from"):
            environment.check_isolation(home)
    with monkeypatch.context() as patch:
        patch.setenv("GIT_AUTHOR_NAME", "Someone")
        with pytest.raises(AssertionError, match="commits as"):
            environment.check_isolation(home)
    with monkeypatch.context() as patch:
        patch.setenv("HOME", "/")
        with pytest.raises(AssertionError, match="home directory"):
            environment.check_isolation(home)


def test_a_search_path_of_libgit2_elsewhere_is_seen(home: Path) -> None:
    pygit2.settings.search_path[ConfigLevel.SYSTEM] = "/etc"
    try:
        with pytest.raises(AssertionError, match="SYSTEM"):
            environment.check_isolation(home)
    finally:
        pygit2.settings.search_path[ConfigLevel.SYSTEM] = str(
            environment.search_paths(home)[ConfigLevel.SYSTEM]
        )


def test_commit_ids_are_constants(tmp_path: Path) -> None:
    first, second = Repo.create(tmp_path / "a"), Repo.create(tmp_path / "b")
    assert first.git("rev-parse", "HEAD") == second.git("rev-parse", "HEAD")


def test_the_clock_moves_on(repo: Repo) -> None:
    repo.git("commit", "--quiet", "--allow-empty", "-m", "later")
    later, sooner = (int(line) for line in repo.git("log", "--format=%ct").splitlines())
    assert later > sooner > environment.EPOCH


def test_the_cache_of_kernels_follows_the_sources_and_the_bounds_check(tmp_path: Path) -> None:
    base = {"XDG_CACHE_HOME": str(tmp_path)}
    plain = environment.numba_cache(base)
    assert plain.is_relative_to(tmp_path)
    assert environment.numba_cache(base | {"NUMBA_BOUNDSCHECK": "1"}) != plain
    assert environment.numba_cache({"NUMBA_CACHE_DIR": "/chosen"}) == Path("/chosen")


def test_the_cache_of_kernels_is_private() -> None:
    assert Path(os.environ["NUMBA_CACHE_DIR"]).stat().st_mode & 0o077 == 0
