"""A repository with a tracked checkpoint, made once and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.story import new_model
from tests.support import Repo


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two commits: code, then a checkpoint."""
    repo = Repo.create(tmp_path_factory.mktemp("template") / "repo")
    repo.theta("track", "*.safetensors")
    new_model(repo)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "first model")
    return repo


@pytest.fixture
def tracked(template: Repo, tmp_path: Path) -> Repo:
    """A copy of the template that the test may change."""
    repo = template.copy(tmp_path / "repo")
    repo.theta("status")
    return repo
