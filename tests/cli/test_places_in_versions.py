"""``REV:PATH`` and ``:PATH`` of the index, by the rules of gitrevisions(7), in all commands that take one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import theta
from tests.cli.checks import refused
from tests.support import Repo, make_model, mutate, random_tensors
from theta.git.object_values import TreePath, tree_path
from theta.git.run import plain
from theta.porcelain.care.line_words import LineWords

TENSORS = random_tensors({"a.w": (30, 40), "c": (3,)}, seed=4)
NAME = "m.safetensors"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkpoint in a folder; HEAD, the index and the worktree differ."""
    repo = Repo.create(tmp_path_factory.mktemp("places") / "repo")
    repo.theta("track", "*.safetensors")
    (repo.path / "sub" / "deep").mkdir(parents=True)
    make_model(repo.path / "sub" / NAME, TENSORS)
    repo.write("sub/note.txt", "a note\n")
    repo.write("sub/bad.pkl", "cos\nsystem\n(S'true'\ntR.")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "one")
    mutate(repo.path / "sub" / NAME, "c", lambda value: value * 2)
    repo.theta("add", ".")
    mutate(repo.path / "sub" / NAME, "c", lambda value: value * 3)
    return repo


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("HEAD:a/b", TreePath("HEAD", "a/b")),
        ("HEAD:", TreePath("HEAD", "")),
        ("main@{yesterday 10:00}:a", TreePath("main@{yesterday 10:00}", "a")),
        ("HEAD^{/a: b}", None),
        (":a", TreePath("", "a")),
        (":0:a", TreePath("", "a")),
        (":2:a", TreePath(":2", "a")),
        (":4:a", TreePath("", "4:a")),
        (":/a: b", None),
        ("a", None),
    ],
)
def test_names_are_read_as_git_reads_them(text: str, found: TreePath | None) -> None:
    assert tree_path(text) == found


@pytest.mark.parametrize(
    ("revision", "folder", "path"),
    [("HEAD:", "sub", "./"), ("HEAD:", "", "./sub/"), (":", "sub/deep", "../"), (":0:", "sub", "../sub/")],
)
@pytest.mark.parametrize(
    "line",
    [
        ("show", "{}"),
        ("show", "{}#c"),
        ("show", "--codecs", "{}"),
        ("show", "--md", "{}"),
        ("cat", "{}#c"),
        ("scan", "{}"),
        ("convert", "-f", "{}", "-o", "x.npz"),
        ("export", "-f", "{}", "-o", "x.npz"),
        ("export", "-f", "{}", "-o", "x.safetensors"),
    ],
    ids=lambda line: " ".join(line),
)
def test_a_path_from_here(
    repo: Repo, tmp_path: Path, revision: str, folder: str, path: str, line: tuple[str, ...]
) -> None:
    here = Repo(repo.path / folder)
    words = [str(tmp_path / word) if word.startswith("x.") else word for word in line]
    near = here.theta(*(word.format(f"{revision}{path}{NAME}") for word in words))
    far = here.theta(*(word.format(f"{revision}sub/{NAME}") for word in words))
    assert "theta checkpoint 1" not in far.stdout
    assert _plain(near.stdout, path) == _plain(far.stdout, "sub/")


def _plain(text: str, path: str) -> str:
    return text.replace(f"{path}{NAME}", f"sub/{NAME}")


def test_each_version_is_its_own(repo: Repo, tmp_path: Path) -> None:
    here, once = Repo(repo.path / "sub"), TENSORS["c"]
    for name, wanted in {f"HEAD:./{NAME}": once, f":./{NAME}": once * 2, NAME: once * 6}.items():
        assert here.theta("cat", f"{name}#c").stdout == f"{wanted}\n"
    exact = tmp_path / "x.safetensors"
    here.theta("export", f":./{NAME}", "-o", str(exact))
    assert (load_file(exact)["c"] == once * 2).all()


def test_other_files_and_folders_are_as_git_has_them(repo: Repo) -> None:
    here = Repo(repo.path / "sub")
    assert (
        here.theta("show", "HEAD:./note.txt").stdout == here.theta("show", ":./note.txt").stdout == "a note\n"
    )
    assert here.theta("show", "HEAD:./").stdout == here.git("show", "HEAD:./") + "\n"
    assert here.theta("show", "HEAD:../").stdout.replace("../", "") == repo.theta("show", "HEAD:").stdout
    assert "os.system" in here.theta("scan", "HEAD:./bad.pkl", code=1).stdout


def test_blame_and_statistics(repo: Repo) -> None:
    here = Repo(repo.path / "sub")
    assert here.theta("blame", f"HEAD:./{NAME}").stdout == here.theta("blame", NAME).stdout
    refused(here.theta("blame", f":./{NAME}#c", code=None), 13, "the index, which has no history")


def test_what_is_not_there(repo: Repo) -> None:
    here = Repo(repo.path / "sub")
    for line in (("cat", "HEAD:./gone.safetensors#c"), ("export", ":./gone.safetensors", "-o", "x.npz")):
        refused(here.theta(*line, code=None), 13, "sub/gone.safetensors")
    refused(here.theta("cat", f":2:./{NAME}#c", code=None), 13, "stage 2 of the index")
    for line in (("cat", "HEAD:../../x#c"), ("show", "HEAD:../../x"), ("scan", "HEAD:../../x")):
        refused(here.theta(*line, code=None), 2, "outside")


def test_a_side_of_a_conflict(repo: Repo) -> None:
    other = Repo.create(repo.path.parent / "conflict")
    other.theta("track", "*.safetensors")
    (other.path / "sub").mkdir()
    make_model(other.path / "sub" / NAME, TENSORS)
    other.theta("add", ".")
    other.theta("commit", "-m", "base")
    for branch, factor in (("side", 2), ("main", 3)):
        other.git("checkout", "-q", "-B", branch, "main")
        mutate(other.path / "sub" / NAME, "c", partial(np.multiply, factor))
        other.theta("commit", "-a", "-m", branch)
    other.theta("merge", "side", code=1)
    here = Repo(other.path / "sub")
    for stage, factor in ((1, 1), (2, 3), (3, 2)):
        assert here.theta("cat", f":{stage}:./{NAME}#c").stdout == f"{TENSORS['c'] * np.float32(factor)}\n"
    refused(here.theta("cat", f":./{NAME}#c", code=None), 13, "in conflict")


def test_names_in_python(repo: Repo) -> None:
    with theta.open(repo.path) as opened:
        assert (opened[f":0:sub/{NAME}"]["c"].numpy() == TENSORS["c"] * 2).all()
        assert (opened[f"HEAD:./sub/{NAME}"]["c"].numpy() == TENSORS["c"]).all()


@pytest.mark.parametrize("place", ["./", "../sub/"])
def test_completion_goes_on_from_here(repo: Repo, place: str) -> None:
    known = LineWords(plain(repo.path / "sub"))
    assert f"{place}{NAME}" in known.committed("HEAD", f"{place}m")
