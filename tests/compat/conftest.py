"""Repositories with a tracked checkpoint, made once and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.inprocess import branched, committed, copied, started
from tests.compat.story import TENSOR, new_model
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


@pytest.fixture(scope="session")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Main and side changed one tensor, by 1 and by 2."""
    repo = started(tmp_path_factory.mktemp("diverged") / "repo")
    branched(repo, side=[(TENSOR, 2.0)])
    committed(repo, (TENSOR, 1.0))
    return repo


@pytest.fixture
def forked(diverged: Repo, tmp_path: Path) -> Repo:
    """A copy of ``diverged`` that the test may change."""
    return copied(diverged, tmp_path / "repo")
