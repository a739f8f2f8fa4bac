"""The workers of an engine write the file that threads write, whatever happens to a worker."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.compat.inprocess import theta
from tests.engine import factories
from tests.engine.small_parts import spread
from tests.engine.test_engines import HERE, MODEL, near, normal
from tests.support import Repo, sha256
from theta.engine import restore_parts
from theta.engine.restore_parts import ComingPlace, RestorePart
from theta.engine.workplace import Workplace
from theta.errors import DiskError, EngineError
from theta.store.format.manifest import Line

ARCHIVE = "arrays.npz"


@pytest.fixture(autouse=True)
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread files of any size in many parts, and a tensor of several chunks over more than one."""
    spread(monkeypatch, 4 << 20)
    monkeypatch.setattr(restore_parts, "LARGEST", 6 << 20)
    monkeypatch.setattr(factories, "_made", 0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions of a model with a tensor of four chunks, and of an archive, whose CRCs are derived."""
    repo = Repo.create(tmp_path_factory.mktemp("stored") / "r")
    theta(repo, "track", "*.safetensors", "*.npz")
    arrays = {"large": normal(1, 1100, 4000), "small": normal(2, 64, 64), "none": normal(3, 0, 4)}
    for step in range(2):
        save_file(arrays, repo.path / MODEL)
        _write_npz(repo.path / ARCHIVE, {"a": np.arange(4000) + step, "b": np.arange(9)})
        theta(repo, "add", ".")
        theta(repo, "commit", "-qm", str(step))
        arrays = arrays | {"large": near(arrays["large"], 4), "more": normal(5, 300, 300)}
    return repo


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), file.getvalue())


@pytest.mark.parametrize("engine", ["asked", pytest.param("dying_once", marks=pytest.mark.campaign)])
def test_workers_restore_the_same_though_one_is_killed(stored: Repo, tmp_path: Path, engine: str) -> None:
    repo = stored.copy(tmp_path / "twin")
    wanted = {path: sha256(repo.path / path) for path in (MODEL, ARCHIVE)}
    for path in wanted:
        (repo.path / path).unlink()
    theta(repo, "--engine", HERE + engine, "restore", MODEL, ARCHIVE)
    assert {path: sha256(repo.path / path) for path in wanted} == wanted
    assert repo.git("status", "--porcelain") == ""
    if engine == "asked":
        assert set(factories.last.asked) == {restore_parts.restore}
        assert factories.last.passed < 1_000 * len(factories.last.asked)


def test_a_large_tensor_is_cut_into_ranges() -> None:
    line = Line("w", "f32", (3 << 18,), "0" * 64, "0" * 40)
    found = [
        *restore_parts.spans([replace(line, name="v", shape=(1 << 18,)), replace(line, shape=(5 << 19,))])
    ]
    assert [(span.name, span.start >> 20, span.stop >> 20) for span in found] == [
        ("v", 0, 1),
        ("w", 0, 4),
        ("w", 4, 8),
        ("w", 8, 10),
    ]


def test_what_an_old_file_has_is_not_decoded_by_workers(stored: Repo, tmp_path: Path) -> None:
    repo = stored.copy(tmp_path / "twin")
    theta(repo, "status")  # the copy of the file is found to be the one that is staged
    theta(repo, "--engine", f"{HERE}asked", "restore", "--source", "HEAD~1", MODEL)
    assert {span.name for part in factories.last.parts for span in part.spans} == {"large"}
    theta(repo, "restore", "--source", "HEAD", MODEL)
    assert sha256(repo.path / MODEL) == sha256(stored.path / MODEL)


def test_a_worker_refuses_a_file_that_was_not_begun(stored: Repo, tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.write_bytes(b"mine")
    workplace = Workplace(str(stored.path), f"{os.getpid()}")
    manifest = stored.git("rev-parse", f"HEAD:{MODEL}")
    for path, error in ((place, EngineError), (tmp_path / "gone", DiskError)):
        with pytest.raises(error):
            restore_parts.restore(RestorePart(workplace, manifest, ComingPlace(str(path), 100, ""), ()))
    assert place.read_bytes() == b"mine"
