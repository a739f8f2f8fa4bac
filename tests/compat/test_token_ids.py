"""Files that name tokens by their ids follow where a merge by token gives tokens other ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compat.inprocess import copied, theta
from tests.compat.test_merging_by_token import (
    BASE,
    EMBEDDING,
    HEAD,
    MODEL,
    NORM,
    WIDTH,
    commit,
    row,
    rows,
    write,
)
from tests.compat.test_recipes_of_tokens import ids, text
from tests.support import Repo, make_model, read_model
from theta.errors import ExitCode
from theta.porcelain.merge import versions

OURS, THEIRS = (*BASE, "<x>"), (*BASE, "<y>")
Change = Callable[[Mapping[str, int]], Mapping[str, Any]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("started") / "repo")
    theta(repo, "track", "*.safetensors")
    side(repo, BASE, 0.0, {"eos_token_id": 3})
    commit(repo, "base")
    return repo


def side(repo: Repo, tokens: tuple[str, ...], by: float, config: Mapping[str, Any]) -> None:
    write(repo, tokens, rows(tokens, by, by))
    repo.write("config.json", json.dumps({"vocab_size": len(tokens), **config}, indent=2))


def branch(repo: Repo, name: str, tokens: tuple[str, ...], by: float, config: Mapping[str, Any]) -> None:
    theta(repo, "switch", "-q", "-c", name, "main")
    side(repo, tokens, by, config)
    commit(repo, name)


@pytest.fixture
def repo(started: Repo, tmp_path: Path) -> Repo:
    return copied(started, tmp_path / "repo")


def merge(repo: Repo, *words: str, code: int | None = 0) -> Any:
    return theta(repo, "merge", *words, "-X", "average", "--no-prompt", code=code)


def test_an_id_that_theirs_chose_is_that_of_its_token(repo: Repo) -> None:
    """Ours have another token under that id."""
    branch(repo, "theirs", THEIRS, 4, {"eos_token_id": [3, 4], "text_config": {"image_token_index": 4}})
    branch(repo, "ours", OURS, 2, {"eos_token_id": 3})
    assert merge(repo, "theirs", "--dry-run", code=None).code == 0
    merge(repo, "theirs", "-q")
    new = ids(repo)["<y>"]
    assert new == 5
    assert text(repo, "config.json") == {
        "vocab_size": 6,
        "eos_token_id": [3, new],
        "text_config": {"image_token_index": new},
    }
    theta(repo, "merge", "--replay", "HEAD")


def test_one_number_of_two_tokens_is_a_conflict(repo: Repo) -> None:
    """Git takes it for one change.  The conflict has the ids that the tokens have in the result."""
    branch(repo, "theirs", THEIRS, 4, {"eos_token_id": 4})
    branch(repo, "ours", OURS, 2, {"eos_token_id": 4})
    assert merge(repo, "theirs", "--dry-run", code=1).out
    done = merge(repo, "theirs", code=1)
    assert "config.json" in done.out
    assert repo.git("diff", "--name-only", "--diff-filter=U") == "config.json"
    left = (repo.path / "config.json").read_text()
    assert "<<<<<<<" in left
    assert '"eos_token_id": 4' in left
    assert '"eos_token_id": 5' in left
    theta(repo, "resolve", "-X", "average", "--no-prompt", code=None)
    assert (repo.path / "config.json").read_text() == left
    repo.write("config.json", json.dumps({"vocab_size": 6, "eos_token_id": 4}, indent=2))
    theta(repo, "add", "config.json")
    theta(repo, "merge", "--continue")
    assert text(repo, "config.json")["eos_token_id"] == 4
    assert np.array_equal(row(repo, "<y>")[:1], rows(("<y>",), 4, 4)[EMBEDDING][0][:1])
    theta(repo, "merge", "--replay", "HEAD")


def test_a_side_that_renumbered_gives_the_ids_of_what_the_other_chose(repo: Repo) -> None:
    turned = ("<s>", "b", "a", "ab")
    branch(repo, "theirs", turned, 0, {"eos_token_id": 0})
    theta(repo, "switch", "-q", "-c", "ours", "main")
    repo.write(
        "generation_config.json", json.dumps({"bad_words_ids": [[0, 1]], "forced_decoder_ids": [[1, 2]]})
    )
    commit(repo, "ours")
    merge(repo, "theirs", "-q")
    assert text(repo, "config.json")["eos_token_id"] == ids(repo)["<s>"] == 0
    found = ids(repo)
    assert text(repo, "generation_config.json") == {
        "bad_words_ids": [[found["a"], found["b"]]],
        "forced_decoder_ids": [[1, found["ab"]]],
    }
    theta(repo, "merge", "--replay", "HEAD")


def test_a_named_token_that_the_result_lacks_is_a_conflict(repo: Repo) -> None:
    branch(repo, "theirs", BASE[:-1], 4, {"eos_token_id": 0})
    theta(repo, "switch", "-q", "-c", "ours", "main")
    make_model(repo.path / MODEL, rows(BASE, 2))
    repo.write("generation_config.json", json.dumps({"pad_token_id": 3}))
    commit(repo, "ours")
    assert merge(repo, "theirs", code=None).code in (0, 1)
    if repo.git("diff", "--name-only", "--diff-filter=U"):
        assert "generation_config.json" in repo.git("diff", "--name-only", "--diff-filter=U")


def test_what_only_one_side_trained_is_matched_too(repo: Repo) -> None:
    """Both gave the padding a meaning, and only theirs trained: git takes the file of theirs as it is."""
    theta(repo, "switch", "-q", "-c", "padded", "main")
    make_model(repo.path / MODEL, padded(BASE, 0))
    commit(repo, "padded")
    for name, tokens in (("ours", OURS), ("theirs", THEIRS)):
        theta(repo, "switch", "-q", "-c", name, "padded")
        write(repo, tokens, padded(tokens, 4) if name == "theirs" else padded(BASE, 0), rows=8)
        commit(repo, name)
    theta(repo, "switch", "-q", "ours")
    before = copied(repo, repo.path.parent / "picked")
    merge(repo, "theirs", "-q")
    assert np.array_equal(row(repo, "<y>"), rows(("<y>",), 4, 4)[EMBEDDING][0])
    theta(repo, "merge", "--replay", "HEAD")
    theta(before, "cherry-pick", "theirs", "-X", "average")
    assert np.array_equal(row(before, "<y>"), rows(("<y>",), 4, 4)[EMBEDDING][0])
    theta(before, "merge", "--replay", "HEAD")


@pytest.mark.parametrize(
    ("name", "how", "is_by_token"),
    [
        ("emb.exp_avg", lambda table: table, True),
        ("lm_head.lora_embedding_A", lambda table: table.T, False),
        ("final_logits_bias", lambda table: table[:, :1].T, False),
    ],
)
def test_no_tensor_of_tokens_is_merged_by_number(
    repo: Repo, name: str, how: Callable[[Any], Any], is_by_token: bool
) -> None:
    """Its name says nothing, and an axis of it is as long as the vocabulary."""
    for own, tokens, by in (("ours", ("<s>", "ab", "b", "a", "new"), 2.0), ("theirs", BASE, 4.0)):
        theta(repo, "switch", "-q", "-c", own, "main")
        found = rows(tokens, by)
        write(repo, tokens, {**found, name: np.ascontiguousarray(how(found[EMBEDDING]))})
        commit(repo, own)
    theta(repo, "switch", "-q", "ours")
    done = merge(repo, "theirs", code=None)
    assert done.code == (0 if is_by_token else 1), done
    if is_by_token:
        found = read_model(repo.path / MODEL)
        assert np.array_equal(found[name], found[EMBEDDING])
    else:
        assert f"{name}: average does not apply" in done.out
        assert "not merged row by row" in done.out


def test_a_large_tokenizer_is_not_read(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    branch(repo, "theirs", THEIRS, 4, {})
    branch(repo, "ours", OURS, 2, {})
    monkeypatch.setattr(versions, "MOST_TEXT", 100)
    done = merge(repo, "theirs", code=1)
    assert "tokenizer.json has" in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["cherry-pick", "rebase"])
def test_an_edited_file_is_refused_before_git_starts(repo: Repo, command: str) -> None:
    """Both sides have one text of config.json, so that git would leave it alone."""
    branch(repo, "theirs", THEIRS, 4, {"eos_token_id": 3, "of": "both"})
    branch(repo, "ours", OURS, 2, {"eos_token_id": 3, "of": "both"})
    repo.write("config.json", mine := json.dumps({"mine": "work"}))
    before = repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")
    done = theta(repo, command, "theirs", "-X", "average", code=None)
    assert done.code
    if command == "cherry-pick":
        assert done.code == ExitCode.WOULD_OVERWRITE
        assert "config.json" in done.err
    assert (repo.path / "config.json").read_text() == mine
    assert before == (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain"))


def test_a_pick_that_git_would_not_stop_at_is_refused_if_ids_would_be_stale(repo: Repo) -> None:
    turned = ("<s>", "b", "a", "ab")
    branch(repo, "ours", turned, 2, {"eos_token_id": 0})
    theta(repo, "switch", "-q", "-c", "theirs", "main")
    repo.write("generation_config.json", json.dumps({"pad_token_id": 3}))
    commit(repo, "pads")
    theta(repo, "switch", "-q", "ours")
    before = repo.git("rev-parse", "HEAD")
    done = theta(repo, "cherry-pick", "theirs", code=None)
    assert done.code == ExitCode.USAGE
    assert "generation_config.json names tokens by their ids" in done.err
    assert repo.git("rev-parse", "HEAD") == before
    repo.git("config", "theta.merge.byToken", "false")
    theta(repo, "cherry-pick", "theirs")


def padded(tokens: tuple[str, ...], by: float = 0.0) -> dict[str, Any]:
    """A model with 8 rows."""
    found = rows(tokens, by, by)
    more = np.full((8 - len(tokens), WIDTH), 0, "<f4")
    return {**found, **{name: np.concatenate([found[name], more]) for name in (EMBEDDING, HEAD)}}


@pytest.mark.parametrize("picked", [("main..theirs",), ("theirs~1", "theirs")])
def test_a_pick_finds_the_tokens_of_the_picks_before_it(repo: Repo, picked: tuple[str, ...]) -> None:
    """The first adds a token in the place of padding, the second one names it."""
    write(repo, BASE, padded(BASE), rows=8)
    commit(repo, "padded")
    theta(repo, "switch", "-q", "-c", "theirs")
    write(repo, (*BASE, "<pad>"), padded((*BASE, "<pad>"), 4), rows=8)
    commit(repo, "adds")
    repo.write("generation_config.json", json.dumps({"pad_token_id": 4}))
    commit(repo, "names")
    theta(repo, "switch", "-q", "main")
    repo.write("more", "of ours")
    commit(repo, "more")
    theta(repo, "cherry-pick", *picked)
    assert text(repo, "generation_config.json") == {"pad_token_id": ids(repo)["<pad>"]}
    theta(repo, "revert", "--no-edit", "HEAD~2..HEAD")
    assert [*ids(repo)] == [*BASE]


@pytest.fixture
def pads(repo: Repo) -> Repo:
    """Branch turned renumbered, and branch pads, which is checked out, names a token."""
    branch(repo, "turned", ("<s>", "b", "a", "ab"), 2, {"eos_token_id": 0})
    theta(repo, "switch", "-q", "-c", "pads", "main")
    repo.write("generation_config.json", json.dumps({"pad_token_id": 3}))
    commit(repo, "pads")
    return repo


@pytest.mark.parametrize("picked", [("turned", "pads"), ("pads", "turned")])
def test_a_pick_after_another_is_refused_if_ids_would_be_stale(pads: Repo, picked: tuple[str, ...]) -> None:
    """Each of them is taken if it comes first."""
    theta(pads, "switch", "-q", "main")
    before = pads.git("rev-parse", "HEAD")
    done = theta(pads, "cherry-pick", *picked, code=ExitCode.USAGE)
    assert f"and {pads.git('rev-parse', picked[1])[:12]} has others" in done.err
    assert pads.git("rev-parse", "HEAD") == before
    theta(pads, "cherry-pick", picked[0])


def test_a_picked_merge_is_compared_with_the_parent_that_is_given(pads: Repo) -> None:
    theta(pads, "switch", "-q", "-c", "more", "main")
    pads.write("more", "")
    commit(pads, "more")
    theta(pads, "switch", "-q", "turned")
    theta(pads, "merge", "-q", "more", "--no-prompt")
    theta(pads, "switch", "-q", "pads")
    theta(pads, "cherry-pick", "-m", "2", "turned", code=ExitCode.USAGE)
    theta(pads, "cherry-pick", "-m", "1", "turned")
    assert (pads.path / "more").exists()


def test_the_first_commit_of_a_shallow_history_is_left_to_git(pads: Repo, tmp_path: Path) -> None:
    """Its parent is not in the clone, and git takes it for one that adds all of its files."""
    place, source = tmp_path / "shallow", f"file://{pads.path}"
    pads.git("clone", "-q", "--depth=1", "--branch=turned", source, str(place))
    clone = Repo(place)
    clone.git("fetch", "-q", "--depth=1", "origin", "pads")
    done = theta(clone, "cherry-pick", "FETCH_HEAD", code=None)
    assert done.code in (0, 1), done.err
    assert "CONFLICT (add/add)" in done.out
    theta(clone, "cherry-pick", "--abort")
    assert clone.git("status", "--porcelain") == ""


def test_momentum_and_alignment_are_refused(repo: Repo) -> None:
    branch(repo, "theirs", THEIRS, 4, {})
    branch(repo, "ours", OURS, 2, {})
    for words in (("-X", "outer:lr=0.7,momentum=0.9"), ("-X", "average", "--align", "weights")):
        done = theta(repo, "merge", "theirs", *words, "--no-prompt", code=None)
        assert done.code == ExitCode.USAGE, done
        assert "tokens have other ids on the sides" in done.err
        assert repo.git("status", "--porcelain") == ""
    assert NORM in read_model(repo.path / MODEL)
