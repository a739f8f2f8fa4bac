"""Lines of ``theta add``: one for each file whose staged version is another now."""

from __future__ import annotations

import pytest

from tests.support import Repo, make_model, random_tensors

TENSORS = random_tensors({"a.weight": (30, 40), "b.weight": (8, 4)}, seed=4)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A committed checkpoint."""
    repo = Repo.create(tmp_path_factory.mktemp("told") / "repo")
    repo.theta("track", "*.safetensors", "*.gguf")
    make_model(repo.path / "m.safetensors", TENSORS)
    done = repo.theta("add", ".")
    assert "m.safetensors: 2 of 2 tensors new, " in done.stdout + done.stderr
    repo.theta("commit", "-m", "one")
    return repo


def _told(repo: Repo, *line: str) -> list[str]:
    done = repo.theta(*line)
    return (done.stdout + done.stderr).splitlines()


def test_values_that_are_known(repo: Repo) -> None:
    """A file in another format, a copy and another header have no new tensors, and are new versions."""
    repo.theta("convert", "-f", "m.safetensors", "-o", "m.gguf")
    make_model(repo.path / "copy.safetensors", TENSORS)
    make_model(repo.path / "m.safetensors", TENSORS, metadata={"note": "another header"})
    lines = _told(repo, "add", ".")
    for name in ("m.gguf", "copy.safetensors", "m.safetensors"):
        assert [line for line in lines if line.startswith(f"{name}: 0 of 2 tensors new, ")], lines
    assert _told(repo, "add", ".") == []
    (repo.path / "m.gguf").touch()
    assert _told(repo, "add", ".") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("hello.safetensors", "hello\n"), ("empty.safetensors", ""), ("txt.gguf", "some text\n")],
)
def test_a_file_that_no_reader_knows(repo: Repo, name: str, text: str) -> None:
    repo.write(name, text)
    size = f"{len(text)} B"
    assert _told(repo, "add", name) == [f"{name}: no reader knows this file, stored as plain bytes ({size})"]


def test_a_file_that_is_cut_short(repo: Repo) -> None:
    whole = (repo.path / "m.safetensors").read_bytes()
    (repo.path / "cut.safetensors").write_bytes(whole[:-9])
    warning, line = _told(repo, "add", "cut.safetensors")[::-1]
    assert warning.startswith("warning: cut.safetensors: ") and "tracked as plain bytes" in warning
    assert line.startswith("cut.safetensors: stored as plain bytes (")
