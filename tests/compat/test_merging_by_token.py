"""``theta merge`` of models whose vocabularies differ: rows of embeddings and heads are matched by token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import copied, theta
from tests.compat.test_recipes_of_tokens import ids, text, tokenizer
from tests.support import Repo, make_model, read_model
from theta.errors import ExitCode
from theta.porcelain.merge import made_texts

Array = NDArray[Any]
MODEL, EMBEDDING, HEAD, NORM = "model.safetensors", "model.embed_tokens.weight", "lm_head.weight", "norm"
WIDTH = 3
BASE = ("a", "b", "ab", "<s>")
OURS, THEIRS = (*BASE, "<x>", "<both>"), (*BASE, "<both>", "<y>", "<z>")


def rows(tokens: tuple[str, ...], by: float, own: float = 0.0) -> dict[str, Array]:
    """A model whose row of a token is known by the token; ``by`` is added to the old ones, ``own`` to new."""
    table = np.array([[len(token) * 100 + ord(token[0]), ord(token[-2:][0]), 1] for token in tokens], "<f4")
    table += np.array([[by if token in BASE else own] for token in tokens], "<f4")
    return {EMBEDDING: table, HEAD: -table, NORM: np.full(WIDTH, by, "<f4")}


def write(
    repo: Repo,
    tokens: tuple[str, ...],
    model: Mapping[str, Array],
    extra: Mapping[str, Any] | None = None,
    rows: int | None = None,
) -> None:
    make_model(repo.path / MODEL, dict(model))
    repo.write("tokenizer.json", json.dumps({**tokenizer(tokens), **(extra or {})}, indent=2))
    count = rows or len(tokens)
    repo.write("config.json", json.dumps({"num_hidden_layers": 0, "vocab_size": count}, indent=2))
    decoder = {str(n): {"content": t} for n, t in enumerate(tokens) if t[0] == "<"}
    repo.write("tokenizer_config.json", json.dumps({"added_tokens_decoder": decoder}, indent=2))


def commit(repo: Repo, subject: str) -> str:
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", subject)
    return repo.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Both sides trained the model and added tokens, of which they share one under two ids."""
    repo = Repo.create(tmp_path_factory.mktemp("begun") / "repo")
    theta(repo, "track", "*.safetensors")
    write(repo, BASE, rows(BASE, 0))
    commit(repo, "base")
    for name, tokens, by in (("main", OURS, 2.0), ("other", THEIRS, 4.0)):
        if name != "main":
            theta(repo, "switch", "-q", "-c", name, "HEAD~1")
        write(repo, tokens, rows(tokens, by, by))
        commit(repo, name)
    theta(repo, "switch", "-q", "main")
    return repo


@pytest.fixture
def repo(begun: Repo, tmp_path: Path) -> Repo:
    return copied(begun, tmp_path / "repo")


def row(repo: Repo, token: str, name: str = EMBEDDING) -> Array:
    found: Array = read_model(repo.path / MODEL)[name][ids(repo)[token]]
    return found


def plain(token: str, by: float = 0.0) -> Array:
    found: Array = rows((token,), by, by)[EMBEDDING][0]
    return found


def test_rows_that_both_have_are_merged_and_those_of_one_side_are_taken(repo: Repo) -> None:
    theta(repo, "merge", "-q", "other", "-X", "average")
    found = ids(repo)
    assert found == {token: number for number, token in enumerate([*OURS, "<y>", "<z>"])}
    for name, sign in ((EMBEDDING, 1), (HEAD, -1)):
        assert read_model(repo.path / MODEL)[name].shape == (len(found), WIDTH)
        for token in (*BASE, "<both>"):
            assert np.array_equal(row(repo, token, name), sign * plain(token, 3)), token
        for token, by in (("<x>", 2), ("<y>", 4), ("<z>", 4)):
            assert np.array_equal(row(repo, token, name), sign * plain(token, by)), token
    assert text(repo, "config.json") == {"num_hidden_layers": 0, "vocab_size": len(found)}
    decoder = text(repo, "tokenizer_config.json")["added_tokens_decoder"]
    assert {one["content"] for one in decoder.values()} == {token for token in found if token[0] == "<"}
    assert repo.git("status", "--porcelain") == ""


def test_the_trailer_has_it_and_a_replay_gives_the_same_tree(repo: Repo) -> None:
    theta(repo, "merge", "-q", "other", "-X", "ties:density=0.5")
    line = repo.git("show", "-s", "--format=%(trailers:key=Theta-Merge,valueonly)").strip()
    assert f"--by-token {repo.git('rev-parse', 'HEAD:tokenizer.json')}" in line
    theta(repo, "merge", "--replay", "HEAD")


def rehearsed(repo: Repo, *args: str) -> dict[str, Any]:
    told = json.loads(theta(repo, "merge", *args, "--dry-run", "--json").out)
    return {one["name"]: one for one in told["theta.merge/v1"]["checkpoints"][MODEL]}


def test_a_dry_run_says_it_and_changes_nothing(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")
    found = rehearsed(repo, "other", "-X", "average")
    assert {found[name]["strategy"] for name in (EMBEDDING, HEAD)} == {"average by token"}
    assert found[NORM]["strategy"] == "average"
    assert before == (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain"))


def test_without_a_strategy_the_tokens_are_settled_and_the_values_asked_for(repo: Repo) -> None:
    theta(repo, "merge", "other", "--no-prompt", code=1)
    assert repo.git("diff", "--name-only", "--diff-filter=U") == MODEL
    theta(repo, "resolve", "-X", "average", "--no-prompt")
    theta(repo, "merge", "--continue")
    assert np.array_equal(row(repo, "<both>"), plain("<both>", 3))
    assert np.array_equal(row(repo, "<z>"), plain("<z>", 4))
    theta(repo, "merge", "--replay", "HEAD")


@pytest.mark.parametrize(("how", "by"), [("ours", 2), ("theirs", 4), ("base", 0)])
def test_a_side_is_that_of_the_rows_that_it_has(repo: Repo, how: str, by: float) -> None:
    theta(repo, "merge", "-q", "other", "--rule", f"*={how}")
    for token in BASE:
        assert np.array_equal(row(repo, token), plain(token, by)), token
    for token, own in (("<x>", 2), ("<y>", 4), ("<z>", 4)):
        assert np.array_equal(row(repo, token), plain(token, own)), token


def test_new_tokens_alone_need_no_strategy(repo: Repo) -> None:
    """Theirs trained no old row and no other tensor: all is settled as git would."""
    theta(repo, "switch", "-q", "-c", "grown", "main~1")
    write(repo, THEIRS, {**rows(THEIRS, 0, 4), NORM: np.zeros(WIDTH, "<f4")})
    commit(repo, "grown")
    theta(repo, "switch", "-q", "main")
    assert {rehearsed(repo, "grown")[name]["strategy"] for name in (EMBEDDING, HEAD)} == {"rows by token"}
    theta(repo, "merge", "-q", "grown", "--no-prompt")
    assert "--by-token" in repo.git("log", "-1", "--format=%B")
    theta(repo, "merge", "--replay", "HEAD")
    assert set(ids(repo)) == {*OURS, *THEIRS}
    assert np.array_equal(row(repo, "ab"), plain("ab", 2))
    assert np.array_equal(row(repo, "<z>"), plain("<z>", 4))


def test_a_side_that_renumbered_its_tokens_gives_the_order(repo: Repo) -> None:
    """Only theirs changed the tokenizer, to another order of the same tokens: git takes their file."""
    turned = ("<s>", "b", "a", "ab")
    theta(repo, "switch", "-q", "-c", "turned", "main~1")
    write(repo, turned, rows(turned, 4))
    commit(repo, "turned")
    theta(repo, "switch", "-q", "-c", "tuned", "main~1")
    write(repo, BASE, rows(BASE, 2))
    commit(repo, "tuned")
    theta(repo, "merge", "-q", "turned", "-X", "task_arithmetic")
    assert ids(repo) == {token: number for number, token in enumerate(turned)}
    for token in BASE:
        assert np.array_equal(row(repo, token), plain(token, 6)), token
    theta(repo, "merge", "--replay", "HEAD")


@pytest.mark.parametrize("mover", ["ours", "theirs"])
@pytest.mark.parametrize("how", [("merge", "-q"), ("merge", "-q", "--no-ff", "-m", "said"), ("cherry-pick",)])
def test_a_model_that_one_side_moved_has_its_tokens_beside_it(
    repo: Repo, mover: str, how: tuple[str, ...]
) -> None:
    """Git follows the files into their new folder.  The other side has other ids, beside its model."""
    turned, more = ("<s>", "b", "a", "ab"), {f"layers.{n}.w": np.full(WIDTH, n, "<f4") for n in range(9)}
    for name, tokens, by in (("based", BASE, 0.0), ("moved", BASE, 2.0), ("turned", turned, 4.0)):
        theta(repo, "switch", "-q", "-c", name, "main~1" if name == "based" else "based")
        write(repo, tokens, {**rows(tokens, by), NORM: np.zeros(WIDTH, "<f4"), **more})
        if name == "moved":
            (repo.path / "new").mkdir()
            repo.git("mv", MODEL, "tokenizer.json", "config.json", "tokenizer_config.json", "new")
        commit(repo, name)
    ours, theirs = ("moved", "turned") if mover == "ours" else ("turned", "moved")
    theta(repo, "switch", "-q", ours)
    theta(repo, *how, theirs, "-X", "average")
    assert json.loads((repo.path / "new/tokenizer.json").read_bytes()) == tokenizer(turned)
    assert np.array_equal(read_model(repo.path / "new" / MODEL)[EMBEDDING], rows(turned, 3)[EMBEDDING])
    assert not (repo.path / MODEL).exists()
    assert repo.git("status", "--porcelain") == ""
    theta(repo, "merge", "--replay", "HEAD")


def test_tokenizers_that_differ_in_more_are_settled_first(repo: Repo) -> None:
    for name, tokens, by in (("one", OURS, 2.0), ("two", THEIRS, 4.0)):
        theta(repo, "switch", "-q", "-c", name, "main~1")
        write(repo, tokens, rows(tokens, by, by), {"normalizer": {"type": name}})
        commit(repo, name)
    done = theta(repo, "merge", "one", "-X", "average", "--no-prompt", code=1)
    assert "both sides changed normalizer of tokenizer.json" in done.out
    assert EMBEDDING in done.out
    both = {token: number for number, token in enumerate([*THEIRS, "<x>"])}
    repo.write("tokenizer.json", json.dumps(tokenizer(tuple(both))))
    repo.write("config.json", json.dumps({"vocab_size": len(both)}))
    repo.write("tokenizer_config.json", "{}")
    theta(repo, "add", "tokenizer.json", "config.json", "tokenizer_config.json")
    theta(repo, "resolve", "-X", "average", "--no-prompt")
    theta(repo, "merge", "--continue")
    assert ids(repo) == both
    assert np.array_equal(row(repo, "<x>"), plain("<x>", 2))
    assert np.array_equal(row(repo, "<both>"), plain("<both>", 3))
    theta(repo, "merge", "--replay", "HEAD")


def test_rows_are_matched_by_number_if_that_is_wanted(repo: Repo) -> None:
    repo.git("config", "theta.merge.byToken", "false")
    theta(repo, "merge", "other", "-X", "average", "--no-prompt", code=1)
    assert "tokenizer.json" in repo.git("diff", "--name-only", "--diff-filter=U")
    assert repo.git("diff", "--name-only", "--diff-filter=U").count(MODEL) == 0
    assert read_model(repo.path / MODEL)[EMBEDDING].shape[0] == len(THEIRS)


def test_appended_tokens_that_the_other_side_has_too_need_no_matching(repo: Repo) -> None:
    """The trailer says nothing of tokens if rows of one number are of one token."""
    theta(repo, "switch", "-q", "-c", "longer", "main")
    write(repo, (*OURS, "<more>"), rows((*OURS, "<more>"), 4, 4))
    commit(repo, "longer")
    theta(repo, "switch", "-q", "main")
    make_model(repo.path / MODEL, rows(OURS, 6, 6))
    commit(repo, "trained")
    theta(repo, "merge", "longer", "-X", "average", "--no-prompt")
    trailer = repo.git("log", "-1", "--format=%(trailers:key=Theta-Merge,valueonly)")
    assert "average" in trailer
    assert "--by-token" not in trailer


def test_padding_is_merged_by_number_and_filled_with_new_tokens(repo: Repo) -> None:
    def padded(tokens: tuple[str, ...], by: float) -> dict[str, Array]:
        found = rows(tokens, by, by)
        more = np.full((8 - len(tokens), WIDTH), by, "<f4")
        return {**found, **{name: np.concatenate([found[name], more]) for name in (EMBEDDING, HEAD)}}

    for name, tokens, by in (("one", (*BASE, "<x>"), 2.0), ("two", (*BASE, "<y>"), 4.0)):
        theta(repo, "switch", "-q", "-c", name, "main~1")
        write(repo, tokens, padded(tokens, by), rows=8)
        commit(repo, name)
    theta(repo, "merge", "-q", "one", "-X", "average")
    table = read_model(repo.path / MODEL)[EMBEDDING]
    assert table.shape == (8, WIDTH)
    assert np.array_equal(row(repo, "<y>"), plain("<y>", 4))
    assert np.array_equal(row(repo, "<x>"), plain("<x>", 2))
    assert np.array_equal(table[6:], np.full((2, WIDTH), 3, "<f4"))
    assert text(repo, "config.json")["vocab_size"] == 8


def test_a_cherry_pick_matches_tokens_too(repo: Repo) -> None:
    theta(repo, "cherry-pick", "other", "-X", "average")
    assert np.array_equal(row(repo, "<both>"), plain("<both>", 3))
    assert np.array_equal(row(repo, "<z>"), plain("<z>", 4))
    theta(repo, "merge", "--replay", "HEAD")


def test_a_vocabulary_of_lines_is_read_too(repo: Repo) -> None:
    """BERT's ``vocab.txt``, whose tokens theirs put in another order."""
    turned = ("ab", "<s>", "b", "a")
    repo.git("checkout", "-q", "--orphan", "bert")
    repo.git("rm", "-q", "--cached", "tokenizer.json", "tokenizer_config.json", "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (repo.path / name).unlink()
    for name, tokens, by in (("bert", BASE, 0.0), ("ours", BASE, 2.0), ("theirs", turned, 4.0)):
        if name != "bert":
            theta(repo, "switch", "-q", "-c", name, "bert")
        make_model(repo.path / MODEL, rows(tokens, by, by))
        repo.write("vocab.txt", "".join(f"{token}\n" for token in tokens))
        commit(repo, name)
    theta(repo, "switch", "-q", "ours")
    theta(repo, "merge", "-q", "theirs", "-X", "average")
    table = read_model(repo.path / MODEL)[EMBEDDING]
    assert np.array_equal(table, rows(turned, 3)[EMBEDDING])


@pytest.mark.parametrize("text", ["[]", "{", '{"model": {"vocab": {"a": "b"}}}', '{"model": 5}'])
def test_a_tokenizer_that_cannot_be_read_leaves_the_rows_in_conflict(repo: Repo, text: str) -> None:
    theta(repo, "switch", "-q", "other")
    repo.write("tokenizer.json", text)
    commit(repo, "broken")
    theta(repo, "switch", "-q", "main")
    done = theta(repo, "merge", "other", "-X", "average", "--no-prompt", code=1)
    assert f"{EMBEDDING}: average does not apply" in done.out
    assert "Traceback" not in done.err


def test_several_branches_at_once_are_refused(repo: Repo) -> None:
    """Only one of them has another order of tokens, so that git merges the tokenizer by itself."""
    for name, tokens in (("one", ("<s>", "b", "a", "ab")), ("two", BASE), ("three", BASE)):
        theta(repo, "switch", "-q", "-c", name, "main~1")
        write(repo, tokens, rows(tokens, len(name)))
        commit(repo, name)
    done = theta(repo, "merge", "one", "two", "-X", "average", code=None)
    assert done.code not in (0, 1)
    assert "one branch after the other" in done.err


@pytest.mark.parametrize("told", [len(BASE), len(BASE) + 1])
def test_rows_are_told_where_the_configuration_told_them(repo: Repo, told: int) -> None:
    """A model with a picture tower has them in the part of its language model.

    Nobody may have brought it up to date when tokens were added.
    """
    nested = json.dumps({"text_config": {"vocab_size": told}})
    theta(repo, "switch", "-q", "-c", "nested", "main~1")
    repo.write("config.json", nested)
    commit(repo, "nested")
    for name, tokens in (("one", (*BASE, "<x>")), ("two", (*BASE, "<y>"))):
        theta(repo, "switch", "-q", "-c", name, "nested")
        write(repo, tokens, rows(tokens, len(name), 1))
        repo.write("config.json", nested)
        commit(repo, name)
    theta(repo, "merge", "one", "-X", "average", "--no-prompt")
    assert text(repo, "config.json") == {"text_config": {"vocab_size": 6}}


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_tokenizer_that_is_no_file_tells_no_tokens(repo: Repo, as_folder: bool) -> None:
    theta(repo, "switch", "-q", "-c", "odd", "main~1")
    place = repo.path / "tokenizer.json"
    place.unlink()
    if as_folder:
        place.mkdir()
        repo.write("tokenizer.json/file", "{}")
    else:
        place.symlink_to("config.json")
    make_model(repo.path / MODEL, rows(BASE, 4))
    commit(repo, "odd")
    theta(repo, "switch", "-q", "-c", "plain", "main~1")
    make_model(repo.path / MODEL, rows(BASE, 6))
    commit(repo, "plain")
    theta(repo, "merge", "odd", "-X", "average", "--no-prompt")
    assert "--by-token" not in repo.git("log", "-1", "--format=%B")


def test_a_merge_by_number_reads_no_tokenizer(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have 30 MB, and nothing is made of it."""
    repo.git("config", "theta.merge.byToken", "false")
    monkeypatch.setattr(made_texts, "edited", lambda *_: pytest.fail("a file was read"))
    theta(repo, "merge", "other", "-X", "average", "--no-prompt", code=1)


# -- work of the user ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-m", "said"), ("--no-commit",), ("-Xignore-all-space",)])
def test_files_that_the_user_edits_are_not_written_over(repo: Repo, options: tuple[str, ...]) -> None:
    """Both sides have one text of config.json, so that git would leave it alone."""
    for name, tokens in (("one", (*BASE, "<x>")), ("two", (*BASE, "<y>"))):
        theta(repo, "switch", "-q", "-c", name, "main~1")
        write(repo, tokens, rows(tokens, len(name), 1))
        commit(repo, name)
    repo.write("config.json", mine := json.dumps({"vocab_size": 5, "mine": "work"}))
    before = repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")
    done = theta(repo, "merge", "one", "-X", "average", "--no-prompt", *options, code=None)
    assert done.code == ExitCode.WOULD_OVERWRITE
    assert "config.json" in done.err
    assert (repo.path / "config.json").read_text() == mine
    assert before == (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain"))
    theta(repo, "restore", "config.json")
    theta(repo, "merge", "one", "-X", "average", "--no-prompt", *options)
    assert text(repo, "config.json")["vocab_size"] == 6


def test_an_untracked_file_is_not_written_over(repo: Repo) -> None:
    theta(repo, "switch", "-q", "-c", "more", "other")
    repo.write("added_tokens.json", json.dumps({"<y>": 5}))
    commit(repo, "added")
    theta(repo, "switch", "-q", "main")
    repo.write("added_tokens.json", "mine")
    done = theta(repo, "merge", "more", "-X", "average", "--no-prompt", code=None)
    assert done.code != 0
    assert (repo.path / "added_tokens.json").read_text() == "mine"


def test_what_the_user_settled_is_not_written_over_by_resolve(repo: Repo) -> None:
    assert repo.try_git("merge", "other").returncode == 1
    repo.write("config.json", staged := json.dumps({"vocab_size": 7, "by": "hand"}))
    repo.git("add", "config.json")
    left = (repo.path / "tokenizer.json").read_text()
    assert "<<<<<<<" in left
    mine = json.dumps({**tokenizer(OURS), "by": "hand"})
    repo.write("tokenizer.json", mine)
    done = theta(repo, "resolve", "-X", "average", "--no-prompt", code=None)
    assert done.code == ExitCode.WOULD_OVERWRITE
    assert "tokenizer.json" in done.err
    assert (repo.path / "tokenizer.json").read_text() == mine
    repo.write("tokenizer.json", left)
    theta(repo, "resolve", "-X", "average", "--no-prompt")
    assert (repo.path / "config.json").read_text() == staged
    assert set(ids(repo)) == {*OURS, *THEIRS}


def test_resolve_renews_what_git_left(repo: Repo) -> None:
    assert repo.try_git("merge", "other").returncode == 1
    theta(repo, "resolve", "-X", "average", "--no-prompt")
    assert text(repo, "config.json")["vocab_size"] == len({*OURS, *THEIRS})
    assert repo.git("diff", "--name-only") == ""


def test_files_that_nobody_changed_are_not_written_anew(repo: Repo) -> None:
    odd, config = '{"a":   1}', '{\n    "rope_theta": 1E4, "eps": 1e-5\n}'
    theta(repo, "switch", "-q", "-c", "odd", "main~1")
    repo.write("tokenizer_config.json", odd)
    repo.write("config.json", config)
    commit(repo, "odd")
    for name, tokens in (("one", (*BASE, "<x>")), ("two", (*BASE, "<y>"))):
        theta(repo, "switch", "-q", "-c", name, "odd")
        make_model(repo.path / MODEL, rows(tokens, len(name), 1))
        repo.write("tokenizer.json", json.dumps(tokenizer(tokens), indent=2))
        commit(repo, name)
    theta(repo, "merge", "-q", "one", "-X", "average")
    assert (repo.path / "tokenizer_config.json").read_text() == odd
    assert (repo.path / "config.json").read_text() == config
    assert set(ids(repo)) == {*BASE, "<x>", "<y>"}


def test_a_lazy_clone_fetches_the_tokenizers_that_it_lacks(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    place = tmp_path / "lazy"
    theta(repo, "clone", "-q", "--filter=blob:none", f"file://{repo.path}", str(place))
    clone = Repo(place)
    theta(clone, "merge", "-q", "origin/other", "-X", "average")
    theta(repo, "merge", "-q", "other", "-X", "average")
    assert clone.git("rev-parse", "HEAD^{tree}") == repo.git("rev-parse", "HEAD^{tree}")
