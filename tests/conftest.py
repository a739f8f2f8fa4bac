"""Every test session: isolated from the machine, and repeatable."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.docs.pages import page_blocks
from tests.support import Repo, environment, real_model_path, server

__all__ = ["page_blocks"]

# `--hypothesis-profile deep` looks for more; the default finds the same cases on every machine.
hypothesis.settings.register_profile("ci", max_examples=60, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")

_home = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that ``tests/gitsuite`` needs."""
    parser.addoption("--git-tree", metavar="DIR", help="built source tree of git, for -m gitsuite")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the user's environment before any test module is imported."""
    environment.use_memory()
    home = Path(tempfile.mkdtemp(prefix="theta-tests-")).resolve()
    config.stash[_home] = home
    environment.enter(home)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home directory of the session."""
    server.stop()
    if home := config.stash.get(_home, None):
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def home(pytestconfig: pytest.Config) -> Path:
    """The home directory of the session; the isolation is checked before the first test."""
    directory = pytestconfig.stash[_home]
    environment.check_isolation(directory)
    return directory


@pytest.fixture(scope="session", autouse=True)
def warm_launchers(home: Path) -> Iterator[None]:
    """Let the launchers that theta installs from the test's own process start forks of the server."""
    from theta.porcelain.setup import installing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installing, "sys", server.Python())
        yield


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A new repository with one commit."""
    return Repo.create(tmp_path / "repo")


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The path of a real checkpoint of 90 MB; copy it, never change it."""
    return real_model_path()
