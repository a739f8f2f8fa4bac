"""The repositories that commands are killed on, made once and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.harness import Runner, template
from tests.reliability.killing import complete
from tests.support import Repo


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The template of the harness; a test changes copies of it only."""
    place = tmp_path_factory.mktemp("origin")
    return template(Runner(place), place / "repo")


@pytest.fixture(scope="session")
def completed(origin: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """``origin`` with a branch in conflict and a remote."""
    return complete(origin.copy(tmp_path_factory.mktemp("completed") / "repo"))


@pytest.fixture
def repo(origin: Repo, tmp_path: Path) -> Repo:
    """A copy of ``origin`` that the test may change."""
    return origin.copy(tmp_path / "repo")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs commands that may die."""
    return Runner(tmp_path_factory.mktemp("runner"))
