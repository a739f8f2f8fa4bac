"""``theta merge --recipe`` with ``tokenizer_source`` and ``tokenizer``: rows are merged by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import copied, merge_recipe, theta
from tests.support import Repo, make_model, read_model

MODEL = "model.safetensors"
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
WIDTH = 4

A = ("a", "b", "ab", "<s>")
B = ("b", "a", "ba", "<s>", "<x>")
C = ("a", "b", "<x>", "<z>")
"""The tokens of three models by id; those in angle brackets are added and special."""


def tokenizer(tokens: tuple[str, ...]) -> dict[str, Any]:
    """The tokenizer.json of a BPE tokenizer."""
    words = [token for token in tokens if not token.startswith("<")]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [
        {"id": number, "content": token, **plain}
        for number, token in enumerate(tokens)
        if token.startswith("<")
    ]
    vocabulary = {word: tokens.index(word) for word in words}
    merges = [[word[0], word[1]] for word in words if len(word) == 2]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return {"version": "1.0", "added_tokens": added, "model": model}


def rows(seed: int, tokens: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The tensors of a model; the values of a row follow from the token and the model."""
    random = np.random.default_rng(seed)
    shape = (len(tokens), WIDTH)
    found = {name: random.standard_normal(shape) for name in (EMBEDDING, HEAD)}
    found[NORM] = random.standard_normal(WIDTH)
    return {name: value.astype(np.float32) for name, value in found.items()}


MODELS = {"main": (0, A), "b": (1, B), "c": (2, C)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches main, b and c, whose models have vocabularies of their own."""
    repo = Repo.create(tmp_path_factory.mktemp("models") / "repo")
    theta(repo, "track", "*.safetensors")
    for name, (seed, tokens) in MODELS.items():
        if name != "main":
            theta(repo, "switch", "-q", "-c", name, "main")
        make_model(repo.path / MODEL, rows(seed, tokens))
        repo.write("config.json", json.dumps({"vocab_size": len(tokens), "num_hidden_layers": 0}))
        repo.write("tokenizer.json", json.dumps(tokenizer(tokens)))
        repo.write("tokenizer_config.json", json.dumps({"of": name, "added_tokens_decoder": {}}))
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", name)
    theta(repo, "switch", "-q", "main")
    return repo


@pytest.fixture
def repo(models: Repo, tmp_path: Path) -> Repo:
    """A copy with main checked out."""
    return copied(models, tmp_path / "repo")


def merged(repo: Repo, keys: str, code: int = 0, base: str = "base_model: main\n") -> str:
    """Merge the three models by weights 1, 2 and 1."""
    recipe = (
        f"merge_method: linear\n{base}{keys}\nmodels:\n"
        "  - {model: main, parameters: {weight: 1}}\n"
        "  - {model: b, parameters: {weight: 2}}\n"
        "  - {model: c, parameters: {weight: 1}}\n"
    )
    return merge_recipe(repo, recipe, code=code)


def text(repo: Repo, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo.path / name).read_bytes())
    return found


def ids(repo: Repo) -> dict[str, int]:
    """Token -> id of the tokenizer in the worktree."""
    found = text(repo, "tokenizer.json")
    inner: dict[str, int] = found["model"]["vocab"]
    return inner | {one["content"]: one["id"] for one in found["added_tokens"]}


def row(model: str, token: str, name: str = EMBEDDING) -> NDArray[Any]:
    """The row of a token in a model."""
    seed, tokens = MODELS[model]
    found: NDArray[Any] = rows(seed, tokens)[name][tokens.index(token)]
    return found


def blend(*of: NDArray[Any]) -> NDArray[Any]:
    """The three rows with the weights of the recipe."""
    found: NDArray[Any] = (of[0] + 2 * of[1] + of[2]) / 4
    return found


def assert_row(repo: Repo, token: str, *of: tuple[str, str]) -> None:
    """The row of ``token`` is the blend of these rows of models, in embedding and head."""
    for name in (EMBEDDING, HEAD):
        found = read_model(repo.path / MODEL)[name][ids(repo)[token]]
        wanted = blend(*(row(model, other, name) for model, other in of))
        assert np.allclose(found, wanted, atol=1e-6), (token, name)


@pytest.mark.parametrize("key", ["tokenizer_source: union", "tokenizer: {source: union}"])
def test_a_union_has_all_tokens_and_each_row_is_that_of_its_token(repo: Repo, key: str) -> None:
    """c2, d_tokenizer: same ids of different tokens are never mixed; a missing row is that of the base."""
    merged(repo, key)
    assert ids(repo) == {**{token: n for n, token in enumerate(A)}, "ba": 4, "<x>": 5, "<z>": 6}
    assert_row(repo, "a", ("main", "a"), ("b", "a"), ("c", "a"))
    assert_row(repo, "ab", ("main", "ab"), ("main", "ab"), ("main", "ab"))
    assert_row(repo, "<s>", ("main", "<s>"), ("b", "<s>"), ("main", "<s>"))
    assert_row(repo, "<z>", ("c", "<z>"), ("c", "<z>"), ("c", "<z>"))
    for name in (EMBEDDING, HEAD):  # in b and c, and not in the base: the mean for main
        found = read_model(repo.path / MODEL)[name][ids(repo)["<x>"]]
        other, third = row("b", "<x>", name), row("c", "<x>", name)
        assert np.allclose(found, blend((other + third) / 2, other, third), atol=1e-6)
    assert text(repo, "config.json")["vocab_size"] == 7
    added = text(repo, "tokenizer_config.json")["added_tokens_decoder"]
    assert (added["5"]["content"], added["5"]["special"], added["4"]["special"]) == ("<x>", True, False)
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert repo.git("status", "--porcelain") == ""


def test_the_tokenizer_of_one_model(repo: Repo) -> None:
    """d_tokenizer: base is that of the base, and the name of a model is that of the model."""
    merged(repo, "tokenizer_source: base")
    assert list(ids(repo)) == list(A)
    assert read_model(repo.path / MODEL)[EMBEDDING].shape == (len(A), WIDTH)
    repo.git("reset", "-q", "--hard", "HEAD~1")
    merged(repo, "tokenizer: {source: b, pad_to_multiple_of: 4}", base="")
    assert (list(ids(repo)), text(repo, "tokenizer_config.json")["of"]) == (
        ["b", "a", "ba", "<s>", "<x>"],
        "b",
    )
    found = read_model(repo.path / MODEL)[EMBEDDING]
    assert text(repo, "config.json")["vocab_size"] == len(found) == 8
    assert np.allclose(found[5:], found[:5].mean(0), atol=1e-6)
    assert_row(repo, "ba", ("b", "ba"), ("b", "ba"), ("b", "ba"))


def test_rows_of_single_tokens_are_chosen(repo: Repo) -> None:
    """d_tokenizer: ``tokens`` says where the row of a token comes from, for models with it by force."""
    merged(
        repo,
        """tokenizer:
  source: union
  tokens:
    "<x>": {source: c}
    "<s>": {source: b, force: true}
    "<new>": {source: {kind: model_token, model: b, token: ba}}
    "<no>": {source: {kind: zero}}""",
    )
    assert_row(repo, "<x>", ("c", "<x>"), ("b", "<x>"), ("c", "<x>"))
    assert_row(repo, "<s>", ("b", "<s>"), ("b", "<s>"), ("b", "<s>"))
    assert_row(repo, "<new>", ("b", "ba"), ("b", "ba"), ("b", "ba"))
    assert not read_model(repo.path / MODEL)[HEAD][ids(repo)["<no>"]].any()


def test_a_chat_template_is_that_of_most_models_or_a_text(repo: Repo) -> None:
    """d_chat_template: it becomes a file of its own."""
    for name, template in (("b", "{{ b }}"), ("c", "{{ b }}\n"), ("main", "{{ main }}")):
        theta(repo, "switch", "-q", name)
        repo.write("tokenizer_config.json", json.dumps({"of": name, "chat_template": template}))
        repo.git("commit", "-q", "-am", "template")
    merged(repo, "chat_template: auto")
    assert (repo.path / "chat_template.jinja").read_text() == "{{ b }}"
    assert text(repo, "tokenizer_config.json") == {"of": "main"}
    repo.git("reset", "-q", "--hard", "HEAD~1")
    merged(repo, 'chat_template: "{{ mine }}"\ntokenizer_source: union')
    assert (repo.path / "chat_template.jinja").read_text() == "{{ mine }}"
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    assert "knows none by name" in merged(repo, "chat_template: chatml", code=2)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("tokenizer_source: union\ntokenizer: {source: base}", "not both"),
        ("tokenizer: {source: union, size: 3}", "'pad_to_multiple_of'"),
        ("tokenizer: {source: union, pad_to_multiple_of: 0.5}", "a whole number"),
        ("tokenizer: {tokens: {a: {source: {kind: mean}}}}", "source is a model"),
        ("tokenizer: {tokens: {'<q>': {source: b}}}", "b has no row for '<q>'"),
    ],
)
def test_tokens_that_are_nowhere_are_told(repo: Repo, key: str, told: str) -> None:
    before = repo.git("rev-parse", "HEAD")
    assert told in merged(repo, key, code=2)
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == (before, "")


def test_a_tokenizer_that_is_none_is_told(repo: Repo) -> None:
    """A hostile tokenizer.json: no vocabulary, ids that are none, no JSON."""
    for content, told in (
        ("{}", "has no vocabulary"),
        ('{"model": {"vocab": {"a": -1}}}', "ids that are none"),
        (
            '{"added_tokens": [{"content": [1], "id": 1}], "model": {"vocab": {}}}',
            "tokens or ids that are none",
        ),
        ("[" * 100_000, "is no JSON"),
        ('{"model": {"vocab": {"a": 0}, "merges": 5}}', "merges that are no pairs"),
        ('{"model": {"vocab": {"a": 0, "b": 0}}}', "two tokens one id: 'a' and 'b' have 0"),
        ('{"model": {"vocab": {"a": 0}}, "added_tokens": 5}', "added_tokens that are no list"),
    ):
        repo.write("tokenizer.json", content)
        repo.git("commit", "-q", "-am", "another tokenizer")
        assert told in merged(repo, "tokenizer_source: union", code=2)


def test_rows_that_a_model_lacks_may_be_combinations_of_its_own(repo: Repo) -> None:
    """Orthogonal matching pursuit over the tokens that both models have, each model's rows by its own."""
    place = repo.path.parent / "omp.yml"
    place.write_text(
        "merge_method: linear\nmodels:\n"
        "  - {model: main, parameters: {weight: 1}}\n  - {model: b, parameters: {weight: 1}}\n"
        "tokenizer: {source: union, approximation_method: omp, k: 2}\n"
    )
    theta(repo, "merge", "--recipe", str(place))
    common = ("a", "b", "<s>")
    for token, has, lacks in (("<x>", "b", "main"), ("ba", "b", "main"), ("ab", "main", "b")):
        for name in (EMBEDDING, HEAD):
            target = row(has, token, name).astype(np.float64)
            shared = np.stack([row(has, one, name) for one in common]).astype(np.float64)
            first = int(np.abs(shared @ target).argmax())
            weight = shared[first] @ target / (shared[first] @ shared[first])
            scores = np.abs(shared @ (target - weight * shared[first]))
            scores[first] = -1
            chosen = [first, int(scores.argmax())]
            weights = np.linalg.lstsq(shared[chosen].T, target, rcond=None)[0]
            made = weights @ np.stack([row(lacks, common[one], name) for one in chosen])
            found = read_model(repo.path / MODEL)[name][ids(repo)[token]]
            assert np.allclose(found, (row(has, token, name) + made) / 2, atol=1e-6), (token, name)
    theta(repo, "merge", "--replay", "HEAD")
