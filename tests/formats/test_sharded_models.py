"""Sharded models as one: diff, status, log and show by tensor, and what cutting anew costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.formats.helpers import write_shards
from tests.support import Repo, make_model, mutate, random_tensors
from theta.formats import sharded
from theta.porcelain.look import version_changes
from theta.porcelain.look.version_changes import Group
from theta.store.changes import ValueDigest, Version

TENSORS = random_tensors({f"layers.{number}.w": (40, 50) for number in range(6)}, seed=5)
RAW = sum(value.nbytes for value in TENSORS.values())


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Three commits: two shards; three shards with the same weights; one tensor changed."""
    repo = Repo.create(tmp_path_factory.mktemp("shards") / "repo")
    repo.theta("track", "*.safetensors")
    write_shards(repo.path, 2, TENSORS)
    repo.theta("add", ".")
    repo.theta("commit", "-m", "two shards")
    before = repo.stored_bytes()
    write_shards(repo.path, 3, TENSORS)
    repo.theta("add", "-A")
    repo.write("status.txt", repo.theta("status").stdout)
    repo.theta("commit", "-m", "three shards")
    repo.write("cost.txt", str(repo.stored_bytes() - before))
    mutate(repo.path / "model-00003-of-00003.safetensors", "layers.5.w", lambda value: value + np.float32(1))
    repo.theta("commit", "-a", "-m", "train")
    return repo


def diff(repo: Repo, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(repo.theta("diff", "--json", *args).stdout)["theta.diff/v1"]
    return found


def test_cutting_anew_is_no_change_of_a_tensor(repo: Repo) -> None:
    (item,) = diff(repo, "HEAD~2", "HEAD~1")
    assert (item["path"], item["tensors"], item["unchanged"]) == ("model.safetensors", [], 6)
    assert item["container"] and len(item["files"]) == 5
    text = repo.theta("diff", "HEAD~2", "HEAD~1").stdout
    assert "model.safetensors: same weights, different container (2 -> 3 files)" in text


def test_cutting_anew_moves_no_bytes(repo: Repo) -> None:
    """Three skeletons, three manifests, one commit: nothing of the 48 kB of tensors."""
    assert int((repo.path / "cost.txt").read_text()) < 8000 < RAW


def test_a_change_is_told_of_the_model(repo: Repo) -> None:
    (item,) = diff(repo, "HEAD~2", "HEAD", "--stats")
    assert [(row["status"], row["name"]) for row in item["tensors"]] == [("M", "layers.5.w")]
    assert item["tensors"][0]["stats"]["changed"] == 1.0
    (item,) = diff(repo, "HEAD~1", "HEAD")
    assert [(row["status"], row["name"]) for row in item["tensors"]] == [("M", "layers.5.w")]
    assert item["unchanged"] == 5
    assert diff(repo, "HEAD~2", "HEAD", "--", "code.py") == []
    assert len(diff(repo, "HEAD~2", "HEAD", "--", "model-00001-of-00003.safetensors")) == 1


def test_status_tells_of_the_model(repo: Repo) -> None:
    lines = [line for line in (repo.path / "status.txt").read_text().splitlines() if "model-" in line]
    assert len(lines) >= 3
    assert all("same weights, different container (2 -> 3 files)" in line for line in lines)


def test_the_log_tells_of_the_model(repo: Repo) -> None:
    text = repo.theta("log", "--stat").stdout
    assert " model.safetensors | 1 changed of 6 tensors (3 files)" in text
    assert " model.safetensors | same weights, different container (2 -> 3 files)" in text
    found = json.loads(repo.theta("log", "--json", "--tensor", "layers.5.*").stdout)["theta.log/v1"]
    assert [item["subject"] for item in found] == ["train", "two shards"]


def test_the_diffstat_counts_tensors(repo: Repo) -> None:
    """Lines of manifests were counted."""
    row = " model.safetensors | 1 changed of 6 tensors (3 files)\n"
    shown = repo.theta("show", "--stat", "HEAD").stdout
    assert shown.endswith(f"\n\n{row}")
    assert shown.startswith(repo.git("show", "--no-patch", "HEAD").strip())
    for args in (["HEAD~1"], ["HEAD~1", "HEAD"], ["--no-color", "HEAD~1"]):
        assert repo.theta("diff", "--stat", *args).stdout == row
    by_git = repo.git("diff", "--stat", "-p", "HEAD~1", "--", ".", ":!.theta")
    assert repo.theta("diff", "--stat", "-p", "HEAD~1").stdout.strip() == by_git.strip()
    repo.write("code.py", "print(1)\n")
    assert repo.theta("diff", "--stat").stdout.startswith(" code.py | ")
    assert repo.theta("diff", "--stat", "HEAD~1").stdout.startswith(f"{row} code.py | ")
    repo.git("checkout", "-q", "code.py")


def test_show_tells_of_the_model(repo: Repo) -> None:
    text = repo.theta("show", "HEAD").stdout
    assert "model.safetensors: 1 changed of 6 tensors (3 files)" in text
    assert "theta checkpoint" not in text
    listed = repo.theta("show", "HEAD:model.safetensors").stdout
    assert listed.startswith("model.safetensors: 3 files, 6 tensors")
    assert "layers.5.w" in repo.theta("show", "HEAD:model.safetensors#layers.5.w").stdout


def test_a_sharded_model_is_exported_as_one(repo: Repo, tmp_path: Path) -> None:
    for number, name in enumerate(("model.safetensors", "model.safetensors.index.json")):
        out = tmp_path / f"{number}.npz"
        repo.theta("export", f"HEAD~2:{name}", "-o", str(out))
        with np.load(out) as found:
            assert all((found[key] == value).all() for key, value in TENSORS.items())


def test_the_worktree_is_compared_too(repo: Repo) -> None:
    (item,) = diff(repo, "HEAD~2")
    assert [(row["status"], row["name"]) for row in item["tensors"]] == [("M", "layers.5.w")]
    path = repo.path / "model-00001-of-00003.safetensors"
    before = path.read_bytes()
    mutate(path, "layers.0.w", lambda value: value * np.float32(2))
    (item,) = diff(repo, "HEAD~2", "--stats")
    assert [row["name"] for row in item["tensors"]] == ["layers.0.w", "layers.5.w"]
    assert all(row["stats"]["changed"] > 0.9 for row in item["tensors"])
    path.write_bytes(before)


def test_a_tensor_that_moved_to_another_file_is_no_change(repo: Repo) -> None:
    names = sharded.shard_names(3)
    files = [load_file(repo.path / name) for name in names]
    before = [(repo.path / name).read_bytes() for name in names]
    files[0]["layers.2.w"] = files[1].pop("layers.2.w")
    for name, tensors in zip(names, files, strict=True):
        make_model(repo.path / name, tensors)
    lines = [line for line in repo.theta("status").stdout.splitlines() if "modified:" in line]
    assert len(lines) == 2
    assert all(line.endswith("(same weights, different container (3 files))") for line in lines)
    (item,) = diff(repo)
    assert (item["path"], item["tensors"]) == ("model.safetensors", [])
    for name, data in zip(names, before, strict=True):
        (repo.path / name).write_bytes(data)


def test_one_file_and_shards_are_one_model(repo: Repo) -> None:
    repo.git("switch", "-q", "-c", "single")
    write_shards(repo.path, 1, TENSORS)
    before = repo.stored_bytes()
    repo.theta("add", "-A")
    repo.theta("commit", "-m", "one file")
    assert (
        repo.stored_bytes() - before < 6000 + 8000
    )  # layers.5.w is the old one again: it was not kept at HEAD
    (item,) = diff(repo, "HEAD~1", "HEAD")
    assert (item["path"], [row["name"] for row in item["tensors"]]) == ("model.safetensors", ["layers.5.w"])
    repo.git("switch", "-q", "--force", "-")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["a.safetensors"], []),
        (["a.pt"], ["a.pt"], []),
        (["m-00001-of-00001.bin"], ["m-00001-of-00001.bin"], []),
        (["m.bin"], ["m-00001-of-00001.bin"], ["m.bin"]),
        (["d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"], [], ["d/m.gguf"]),
        (["m.bin", "m-00001-of-00001.bin"], ["m-00001-of-00001.bin"], []),
        (["a/m-00001-of-00002.bin"], ["b/m-00002-of-00002.bin"], []),
        (["m-00003-of-00002.bin"], ["m.bin"], []),
    ],
)
def test_what_belongs_together(before: list[str], after: list[str], expected: list[str]) -> None:
    assert [group.name for group in version_changes.groups(before, after)] == expected


def test_files_that_contradict_each_other_are_no_model() -> None:
    def version(digest: str) -> Version:
        return Version("safetensors", "s", {"w": ValueDigest("u8", (1,), digest)})

    group = Group("m", ("a", "b"), ())
    assert version_changes.compare(group, {"a": version("1"), "b": version("2")}, {}) is None
    item = version_changes.compare(group, {"a": version("1"), "b": version("1")}, {})
    assert item is not None and item.count("D") == 1
