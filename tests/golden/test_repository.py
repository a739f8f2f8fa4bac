"""Repositories of every version of the format that was released are read for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Repo, sha256

HERE = Path(__file__).parent
BUNDLES = sorted(HERE.glob("repository-*.bundle"))


def test_there_is_one_for_the_version_of_today() -> None:
    from theta.store.format.manifest import VERSION

    assert HERE / f"repository-{VERSION}.bundle" in BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.stem)
def test_every_version_comes_back(tmp_path: Path, bundle: Path) -> None:
    origin = Repo.create(tmp_path / "origin")
    origin.theta("clone", "-q", str(bundle), str(tmp_path / "clone"))
    repo = Repo(tmp_path / "clone")
    wanted = json.loads(bundle.with_suffix(".json").read_text())
    assert len(wanted) > 6
    for commit, digests in wanted.items():
        repo.theta("checkout", "-q", commit)
        assert {path: sha256(repo.path / path) for path in digests} == digests
    repo.theta("fsck", "--read-data")
