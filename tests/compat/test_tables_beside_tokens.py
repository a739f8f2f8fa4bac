"""A merge by token leaves alone what is not of tokens, and loses no row that has none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import copied, theta
from tests.compat.test_merging_by_token import BASE, EMBEDDING, HEAD, MODEL, WIDTH, commit, rows, write
from tests.compat.test_recipes_of_tokens import text
from tests.support import Repo, make_model, read_model

Array = NDArray[Any]
CODES = "vqmodel.quantize.embedding.weight"
TURNED, NAMED = ("b", "a", "ab", "<s>"), (*BASE[:2], "<n>", "<s>")
OURS, THEIRS = (*BASE, "<x>"), (*BASE, "<y>")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("empty") / "repo")
    theta(repo, "track", "*.safetensors")
    commit(repo, "first")
    return repo


@pytest.fixture
def repo(empty: Repo, tmp_path: Path) -> Repo:
    return copied(empty, tmp_path / "repo")


def side(
    repo: Repo,
    name: str,
    tokens: tuple[str, ...],
    by: float = 0,
    codes: Array | None = None,
    padding: int = 0,
    files: Mapping[str, str] | None = None,
) -> None:
    """Commit a version on a new branch, which starts at ``base``."""
    theta(repo, "switch", "-q", "-c", name, "HEAD" if name == "base" else "base")
    model = rows(tokens, by, by)
    more = np.full((padding, WIDTH), by, "<f4")
    model |= {one: np.concatenate([model[one], more]) for one in (EMBEDDING, HEAD)}
    write(repo, tokens, model | ({} if codes is None else {CODES: codes}), rows=len(tokens) + padding)
    for path, found in (files or {}).items():
        repo.write(path, found)
    commit(repo, name)


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize(("ours", "theirs"), [(TURNED, BASE), (OURS, THEIRS)])
def test_a_table_of_codes_is_no_embedding_of_tokens(
    repo: Repo, count: int, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    """As in models of images: Chameleon, Emu3 and Janus call their codes an embedding."""
    codes = np.arange(count * WIDTH, dtype="<f4").reshape(count, WIDTH)
    side(repo, "base", BASE, 0, codes)
    side(repo, "theirs", theirs, 4, codes + 5)
    side(repo, "ours", ours, 0, codes)
    theta(repo, "merge", "theirs", "-X", "average", "--no-prompt", "-q")
    assert np.array_equal(read_model(repo.path / MODEL)[CODES], codes + 5)


@pytest.mark.parametrize("longer", ["ours", "theirs"])
def test_rows_without_a_token_stay(repo: Repo, longer: str) -> None:
    """One side gave a reserved token a name, the other padded its embedding."""
    side(repo, "base", BASE)
    side(repo, "theirs", *((BASE, 2, None, 3) if longer == "theirs" else (NAMED, 0)))
    side(repo, "ours", *((BASE, 2, None, 3) if longer == "ours" else (NAMED, 0)))
    theta(repo, "merge", "theirs", "-X", "average", "--no-prompt", "-q")
    assert np.array_equal(read_model(repo.path / MODEL)[EMBEDDING][4:], np.full((3, WIDTH), 2, "<f4"))
    assert text(repo, "config.json")["vocab_size"] == 7


def test_each_section_that_told_the_number_of_rows_tells_the_new_one(repo: Repo) -> None:
    def config(count: int) -> dict[str, str]:
        inner = {"text_config": {"vocab_size": count}, "vision_config": {"vocab_size": 1}}
        return {"config.json": json.dumps({"vocab_size": count, **inner})}

    side(repo, "base", BASE, files=config(4))
    side(repo, "theirs", THEIRS, files=config(5))
    side(repo, "ours", OURS, files=config(5))
    theta(repo, "merge", "theirs", "--no-prompt", "-q")
    found = text(repo, "config.json")
    assert (found["vocab_size"], found["text_config"]["vocab_size"]) == (6, 6)
    assert found["vision_config"]["vocab_size"] == 1


@pytest.mark.parametrize("strange", ['// a comment\n{"a": 1}\n', "[1]\n"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_no_json_of_a_model_is_left_to_git(repo: Repo, name: str, strange: str) -> None:
    side(repo, "base", BASE, files={name: strange})
    side(repo, "theirs", BASE, 4, files={name: strange})
    side(repo, "ours", TURNED, 0, files={name: strange})
    theta(repo, "merge", "theirs", "--no-prompt", "-q")
    assert (repo.path / name).read_text() == strange


def test_histories_that_cross_have_the_tokens_that_all_bases_have(repo: Repo) -> None:
    """Only theirs trained since, so that there is nothing to decide."""
    side(repo, "base", BASE)
    for name, path in (("left", "l"), ("right", "r")):
        theta(repo, "switch", "-q", "-c", name, "base")
        repo.write(path, path)
        commit(repo, name)
    theta(repo, "branch", "other", "left")
    theta(repo, "merge", "-q", "other", "--no-prompt")
    theta(repo, "switch", "-q", "left")
    repo.git("merge", "-q", "--no-edit", "right~1")
    trained = rows(BASE, 2)
    make_model(repo.path / MODEL, trained)
    commit(repo, "trained")
    theta(repo, "switch", "-q", "right")
    write(repo, TURNED, rows(TURNED, 0))
    commit(repo, "turned")
    theta(repo, "merge", "left", "--no-prompt", "-q")
    assert np.array_equal(read_model(repo.path / MODEL)[EMBEDDING], rows(TURNED, 2)[EMBEDDING])
