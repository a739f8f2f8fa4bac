"""``theta diff REV:PATH REV:PATH`` and ``theta diff REV:PATH FILE``: two checkpoints by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.checks import refused
from tests.support import Repo, make_model, mutate, random_tensors

TENSORS = random_tensors({"a.weight": (30, 40), "b.weight": (8, 4)}, seed=4)
NAME = "m.safetensors"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkpoint in two formats; branch rte changes one tensor, and so does the worktree."""
    repo = Repo.create(tmp_path_factory.mktemp("pairs") / "repo")
    repo.theta("track", "*.safetensors", "*.gguf")
    (repo.path / "sub").mkdir()
    make_model(repo.path / "sub" / NAME, TENSORS)
    repo.theta("convert", f"sub/{NAME}", "-o", "m.gguf")
    repo.write("note.txt", "a note\n")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "one")
    repo.theta("switch", "-c", "rte")
    mutate(repo.path / "sub" / NAME, "b.weight", lambda value: value * 2)
    repo.theta("commit", "-a", "-m", "two")
    repo.theta("switch", "main")
    mutate(repo.path / "sub" / NAME, "a.weight", lambda value: value * 2)
    make_model(repo.path / "new.safetensors", TENSORS)
    return repo


def _changed(repo: Repo, *line: str) -> dict[str, Any]:
    done = repo.theta("diff", "--json", "--exit-code", *line, code=1)
    (item,) = json.loads(done.stdout)["theta.diff/v1"]
    return {"path": item["path"], **{row["name"]: row["status"] for row in item["tensors"]}}


def test_two_versions(repo: Repo) -> None:
    old, new = f"main:sub/{NAME}", f"rte:sub/{NAME}"
    assert _changed(repo, old, new) == {"path": f"sub/{NAME}", "b.weight": "M"}
    assert _changed(repo, f"rte:sub/{NAME}", f":sub/{NAME}") == {"path": f"sub/{NAME}", "b.weight": "M"}
    here = Repo(repo.path / "sub")
    assert _changed(here, f"main:./{NAME}", f"rte:./{NAME}") == {"path": f"sub/{NAME}", "b.weight": "M"}
    shown = repo.theta("diff", old, new).stdout
    assert shown.startswith(f"sub/{NAME}: 1 changed of 2 tensors") and "b.weight" in shown
    assert "theta checkpoint" not in shown
    numbers = repo.theta("diff", "--stats", old, new).stdout
    assert "100.000%" in numbers and "1.000000" in numbers


def test_two_formats_of_one_model(repo: Repo) -> None:
    done = repo.theta("diff", "HEAD:m.gguf", f"HEAD:sub/{NAME}")
    assert done.stdout.startswith(f"m.gguf → sub/{NAME}: same weights, different container")
    both = {"path": f"m.gguf → sub/{NAME}", "b.weight": "M"}
    assert _changed(repo, "HEAD:m.gguf", f"rte:sub/{NAME}") == both
    assert "b.weight" in repo.theta("diff", "--stats", "HEAD:m.gguf", f"rte:sub/{NAME}").stdout


def test_a_version_and_a_file(repo: Repo) -> None:
    both = {"a.weight": "M", "b.weight": "M"}
    assert _changed(repo, f"rte:sub/{NAME}", f"sub/{NAME}") == {"path": f"sub/{NAME}", **both}
    assert "a.weight" in repo.theta("diff", "--stats", f"rte:sub/{NAME}", f"sub/{NAME}").stdout
    new = {"path": f"sub/{NAME} → new.safetensors", "b.weight": "M"}
    assert _changed(repo, f"rte:sub/{NAME}", "new.safetensors") == new


def test_what_is_the_same(repo: Repo) -> None:
    for pair in ((f"HEAD:sub/{NAME}", f"main:sub/{NAME}"), ("HEAD:m.gguf", "m.gguf")):
        done = repo.theta("diff", "--exit-code", *pair)
        assert done.stdout + done.stderr == ""


def test_a_glob(repo: Repo) -> None:
    pair = (f"main:sub/{NAME}", f"rte:sub/{NAME}")
    assert "b.weight" in repo.theta("diff", *pair, "--tensor", "b*").stdout
    done = repo.theta("diff", *pair, "--tensor", "a*")
    assert done.stdout + done.stderr == "no changed tensor is called a*\n"
    refused(repo.theta("diff", *pair, "--tensor", "c.weight", code=None), 13, "c.weight")


def test_other_files_are_git_s(repo: Repo) -> None:
    for pair in (
        ("HEAD:note.txt", "HEAD:code.py"),
        ("HEAD:note.txt", f"HEAD:sub/{NAME}"),
        (f"HEAD:sub/{NAME}", "note.txt"),
    ):
        assert repo.theta("diff", *pair).stdout.rstrip() == repo.git("diff", *pair).rstrip()
        refused(repo.theta("diff", "--json", *pair, code=None), 2, "two checkpoints")
    pair = (f"main:sub/{NAME}", f"rte:sub/{NAME}")
    assert repo.theta("diff", "--stat", *pair).stdout.rstrip() == repo.git("diff", "--stat", *pair).rstrip()
    refused(repo.theta("diff", "--md", *pair, code=None), 2, "two versions")
