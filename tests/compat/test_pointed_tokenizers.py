"""Rows are matched by token too where Git LFS keeps the tokenizers of a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import copied, merge_recipe, theta
from tests.compat.test_merging_by_token import (
    BASE,
    EMBEDDING,
    MODEL,
    OURS,
    THEIRS,
    commit,
    plain,
    row,
    rows,
    write,
)
from tests.compat.test_recipes_of_tokens import ids, tokenizer
from tests.support import Repo, read_model
from theta.errors import ExitCode
from theta.git import lfs

TURNED = ("<s>", "b", "a", "ab")
NAME = "tokenizer.json"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branch turned has other ids; main trained, and so did other, which added tokens."""
    repo = Repo.create(tmp_path_factory.mktemp("begun") / "repo")
    for key, words in (("clean", "clean -- %f"), ("smudge", "smudge -- %f")):
        repo.git("config", f"filter.lfs.{key}", f"git-lfs {words}")
    theta(repo, "track", "*.safetensors")
    with (repo.path / ".gitattributes").open("a") as file:
        file.write(f"{NAME} filter=lfs diff=lfs merge=lfs -text\n")
    write(repo, BASE, rows(BASE, 0))
    commit(repo, "base")
    for name, tokens, by in (("turned", TURNED, 4.0), ("other", THEIRS, 4.0), ("main", BASE, 2.0)):
        theta(repo, "switch", "-q", *([] if name == "main" else ["-c"]), name, *(["main"] * (name != "main")))
        write(repo, tokens, rows(tokens, by, by))
        commit(repo, name)
    return repo


@pytest.fixture
def repo(begun: Repo, tmp_path: Path) -> Repo:
    return copied(begun, tmp_path / "repo")


def stored(repo: Repo, revision: str) -> Path:
    """Return the place in which Git LFS keeps the tokenizer of a revision."""
    pointer = lfs.parse(repo.git("cat-file", "blob", f"{revision}:{NAME}").encode() + b"\n")
    assert pointer is not None
    return repo.path / ".git/lfs/objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid


@pytest.mark.parametrize("name", ["turned", "other"])
def test_rows_are_those_of_the_tokens_that_a_side_has_in_git_lfs(repo: Repo, name: str) -> None:
    theta(repo, "merge", "-q", name, "-X", "average")
    assert repo.git("rev-parse", f"HEAD:{NAME}") == repo.git("rev-parse", f"{name}:{NAME}")
    tokens = {"turned": TURNED, "other": THEIRS}[name]
    assert ids(repo) == {token: number for number, token in enumerate(tokens)}
    for token in BASE:
        assert np.array_equal(row(repo, token), plain(token, 3)), token
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "merge", "--replay", "HEAD")


def test_a_file_that_was_not_fetched_is_told_before_anything_is_changed(repo: Repo) -> None:
    place = stored(repo, "turned")
    kept = shutil.move(place, repo.path.parent / "kept")
    before = repo.git("rev-parse", "HEAD")
    for words in (["merge", "turned", "-X", "average"], ["cherry-pick", "turned"], ["rebase", "turned"]):
        done = theta(repo, *words, code=ExitCode.FAILED)
        assert f"{NAME} is a Git LFS pointer, and its file is not here" in done.err, words
        assert "git lfs fetch --all" in done.err
        assert repo.git("rev-parse", "HEAD") == before
        assert repo.git("status", "--porcelain") == "", words
        assert not (repo.path / ".git/MERGE_HEAD").exists()
    shutil.move(kept, place)
    theta(repo, "merge", "turned", "-X", "average", "-q")
    assert np.array_equal(row(repo, "ab"), plain("ab", 3))


def test_a_file_with_other_bytes_is_told(repo: Repo) -> None:
    place = stored(repo, "turned")
    place.chmod(0o644)
    place.write_bytes(place.read_bytes().replace(b"ab", b"ba"))
    done = theta(repo, "merge", "turned", "-X", "average", code=ExitCode.CORRUPT)
    assert "other bytes in Git LFS than its pointer says" in done.err


def test_where_both_sides_changed_it_the_user_settles_it_first(repo: Repo) -> None:
    write(repo, OURS, rows(OURS, 2, 2))
    commit(repo, "ours")
    done = theta(repo, "merge", "other", "-X", "average", "--no-prompt", code=1)
    assert f"both sides changed {NAME}" in done.out + done.err
    tokens = (*OURS, "<y>", "<z>")
    repo.write(NAME, json.dumps(tokenizer(tokens), indent=2))
    theta(repo, "add", NAME)
    theta(repo, "resolve", "-X", "average", "--no-prompt", code=None)
    assert read_model(repo.path / MODEL)[EMBEDDING].shape[0] == len(tokens)
    for token in (*BASE, "<both>"):
        assert np.array_equal(row(repo, token), plain(token, 3)), token
    assert np.array_equal(row(repo, "<y>"), plain("<y>", 4))


def test_a_recipe_that_joins_tokenizers_says_what_it_lacks(repo: Repo) -> None:
    models = "models: [{model: main}, {model: turned}]\n"
    told = merge_recipe(
        repo, f"merge_method: linear\n{models}tokenizer_source: union\n", code=ExitCode.FAILED
    )
    assert f"{NAME} of main is a Git LFS pointer" in told
    merge_recipe(repo, f"merge_method: linear\n{models}")
