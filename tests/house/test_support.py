"""The helpers of the tests do what they say, measured against the safetensors library."""

import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.support import Repo, make_model, models, mutate, random_tensors, read_model, server, sha256

SHAPES: dict[str, tuple[int, ...]] = {
    "z.weight": (3, 5),
    "a": (),
    "empty": (0, 4),
    "name with / and ü": (2, 2, 2),
}


def test_a_made_model_is_a_safetensors_file(tmp_path: Path) -> None:
    tensors = random_tensors(SHAPES, seed=1)
    path = make_model(tmp_path / "model.safetensors", tensors, {"format": "pt"})
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", sorted(models._NUMPY))
def test_every_dtype_is_written_and_read_back(tmp_path: Path, dtype: str) -> None:
    tensors = random_tensors({"a": (3, 8)}, dtype=models._NUMPY[dtype])
    path = make_model(tmp_path / "model.safetensors", tensors)
    with safe_open(path, "np") as file:
        assert file.get_slice("a").get_dtype() == dtype
    read = read_model(path)["a"]
    assert (read.dtype, read.shape) == (tensors["a"].dtype, (3, 8))
    assert read.tobytes() == tensors["a"].tobytes()


def test_mutate_changes_one_tensor_in_place(tmp_path: Path) -> None:
    tensors = random_tensors({"a": (4,), "b": (4,), "c": (4,)}, dtype=ml_dtypes.bfloat16)
    path = make_model(tmp_path / "model.safetensors", tensors)
    before, inode = path.read_bytes(), path.stat().st_ino
    mutate(path, "b", lambda tensor: -tensor)
    after = path.read_bytes()
    assert path.stat().st_ino == inode
    assert len(before) == len(after)
    assert {i for i in range(len(after)) if before[i] != after[i]} <= set(
        range(len(after) - 16, len(after) - 8)
    )
    assert sha256(path) == subprocess.check_output(["sha256sum", str(path)], text=True).split()[0]
    np.testing.assert_array_equal(read_model(path)["b"], -tensors["b"])
    with pytest.raises(AssertionError):
        mutate(path, "b", lambda tensor: tensor[:2])


def test_the_real_model_is_read_without_torch(real_model: Path) -> None:
    assert real_model.stat().st_size > 90_000_000
    weights = read_model(real_model)
    assert weights["embeddings.word_embeddings.weight"].shape == (30522, 384)


def test_a_missing_real_model_fails_in_ci_and_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        models.real_model_path()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        models.real_model_path()


def test_a_repo_runs_git_and_reports_failure(repo: Repo, tmp_path: Path) -> None:
    assert repo.git("log", "--format=%s") == "initial"
    assert repo.try_git("rev-parse", "nowhere").returncode == 128
    with pytest.raises(AssertionError, match="exit code 128"):
        repo.git("rev-parse", "nowhere")
    repo.fsck()
    assert repo.stored_bytes() > 0
    shallow = repo.clone(tmp_path / "clone", "--depth", "1")
    assert shallow.git("rev-parse", "HEAD") == repo.git("rev-parse", "HEAD")


def test_fsck_sees_a_broken_object(repo: Repo) -> None:
    blob = repo.git("rev-parse", "HEAD:code.py")
    broken = repo.path / ".git" / "objects" / blob[:2] / blob[2:]
    broken.chmod(0o644)
    broken.write_bytes(b"no object")
    with pytest.raises(AssertionError, match=blob):
        repo.fsck()


def test_a_fork_of_the_server_loads_nothing_that_each_of_them_would_load(repo: Repo, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    env = {"THETA_TEST_LOADED": str(loaded)}
    repo.theta("track", "*.safetensors", env=env)
    make_model(repo.path / "model.safetensors", random_tensors({"a": (64, 64)}))
    for command in ("add .", "status", "commit -q -m model", "log -1", "switch -c side", "diff HEAD~1"):
        repo.theta(*command.split(), env=env)
    repo.git("commit", "-q", "--allow-empty", "-m", "later", env=env)  # filter and hooks are such forks too
    assert loaded.read_text() == ""


@pytest.mark.parametrize("compiler", ["cc", None])
def test_a_client_of_the_server_is_a_theta(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str | None
) -> None:
    """It hands over its arguments, directory, environment and streams, and brings the exit code back."""
    if compiler is None:
        monkeypatch.setattr("shutil.which", lambda name: None)
    program = tmp_path / "python"
    server.make_client(program, server.get()._path)
    command = [str(program), "-P", "-m", "theta"]
    assert repo.run(*command, "--version").stdout.startswith("theta ")
    told = repo.run(*command, "track", "*.\udcff", env={"THETA_TEST_LOADED": str(tmp_path / "loaded")})
    assert (told.returncode, (tmp_path / "loaded").read_text()) == (0, ""), told
    assert "*.\udcff" in (repo.path / ".gitattributes").read_text(errors="surrogateescape")
    assert repo.run(*command, "hook", "no-such-hook").returncode == 3
