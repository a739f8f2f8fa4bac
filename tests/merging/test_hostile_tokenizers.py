"""Tokenizers of strangers: each malformed one is an error in one line, and none costs more than it holds."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from theta.errors import UsageError
from theta.merging.documents import joint_tokenizers, vocabularies
from theta.merging.documents.model_files import ModelFiles
from theta.merging.documents.tokenizer_files import TokenizerFile
from theta.merging.documents.tokenizer_keys import TokenizerKey
from theta.store.format.manifest import Line, Manifest

GOOD: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {"id": 3, "content": "<s>", "special": True, "lstrip": False, "normalized": False},
        {"id": 4, "content": "<x>", "special": False, "rstrip": True, "single_word": False},
    ],
    "model": {
        "type": "BPE",
        "vocab": {"a": 0, "b": 1, "ab": 2, "far": 90},
        "merges": [["a", "b"], "f ar"],
    },
}
OTHER: dict[str, Any] = {
    "added_tokens": [{"id": 0, "content": "<pad>"}],
    "model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["b", -1.0], ["c", -2.5]]},
}
BESIDE = {
    "tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": "<s>"}}, "chat_template": "{{ x }}"},
    "added_tokens.json": {"<s>": 3},
    "config.json": {"vocab_size": 6, "text_config": {"vocab_size": 6}},
}
ROWS = 6


def model(tokenizer: Any, label: str = "one", rows: int | None = ROWS, **beside: Any) -> ModelFiles:
    """A model with these files beside it, and an embedding of so many rows."""
    files = {"tokenizer.json": tokenizer, **{f"{name}.json": found for name, found in beside.items()}}
    texts = {
        name: found if isinstance(found, bytes) else json.dumps(found).encode()
        for name, found in files.items()
    }
    lines = () if rows is None else (Line("model.embed_tokens.weight", "f32", (rows, 2), "0" * 64, "0" * 40),)
    return ModelFiles(label, "", {"model.safetensors": Manifest("safetensors", "s", "", lines)}, texts)


@pytest.mark.parametrize("name", ["layers.0.attn.output.weight", "h.3.head", "blocks.1.mlp.output.weight"])
def test_a_matrix_of_a_layer_has_no_rows_for_tokens(name: str) -> None:
    """A head is called so too, and would tell how many tokens there are."""
    found = model({"model": {"vocab": {"a": 0}}})
    (manifest,) = found.manifests.values()
    more = Line(name, "f32", (9_000, 2), "0" * 64, "0" * 40)
    wide = replace(found, manifests={"model.safetensors": replace(manifest, lines=(*manifest.lines, more))})
    assert TokenizerFile(wide).rows == ROWS
    assert found.line(name) is None


def united(*models: ModelFiles, source: str = "union") -> vocabularies.Vocabulary:
    """The vocabulary of a recipe over these models."""
    named = {one.label: one for one in models}
    return vocabularies.build(TokenizerKey(source), named, models[0].label)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good tokenizer with another value at ``path``."""
    found = copy.deepcopy(GOOD)
    place: Any = found
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in keys:
        place = place[key]
    place[last] = value
    return found


MALFORMED: list[tuple[Any, str]] = [
    (b"[" * 100_000, "is no JSON"),
    (b"[]", "is no JSON object"),
    (b'{"model": ' + b"[" * 500 + b"]" * 500 + b"}", "nested more than 64 deep"),
    ({}, "has no vocabulary"),
    ({"model": None}, "has no vocabulary"),
    ({"model": []}, "has no vocabulary"),
    (changed("model/vocab", "abc"), "has no vocabulary"),
    (changed("model/vocab", ["ab", "c"]), "tokens or ids that are none"),
    (changed("model/vocab", [[]]), "tokens or ids that are none"),
    (changed("model/vocab", [[7, 0.0]]), "tokens or ids that are none"),
    (changed("model/vocab/a", -1), "tokens or ids that are none"),
    (changed("model/vocab/a", True), "tokens or ids that are none"),
    (changed("model/vocab/a", 1.5), "tokens or ids that are none"),
    (changed("model/vocab/a", [0]), "tokens or ids that are none"),
    (changed("model/merges", 5), "merges that are no pairs"),
    (changed("model/merges", [5]), "merges that are no pairs"),
    (changed("model/merges", [["a", 5]]), "merges that are no pairs"),
    (changed("model/type", ["BPE"]), "its tokenizer is ['BPE'], not BPE"),
    (changed("added_tokens", 5), "added_tokens that are no list"),
    (changed("added_tokens", {"a": 1}), "added_tokens that are no list"),
    (changed("added_tokens/0", "x"), "among its added_tokens"),
    (changed("added_tokens/0/content", [1]), "among its added_tokens"),
    (changed("added_tokens/0/id", "3"), "among its added_tokens"),
    (changed("added_tokens/0/id", None), "among its added_tokens"),
    (changed("added_tokens/0/id", 1), "gives two tokens one id: 'b' and '<s>' have 1"),
    (changed("model/vocab/ab", 0), "gives two tokens one id: 'a' and 'ab' have 0"),
]


@pytest.mark.parametrize(("tokenizer", "told"), MALFORMED)
@pytest.mark.parametrize("source", ["union", "base", "one"])
def test_a_malformed_tokenizer_is_one_clear_line(tokenizer: Any, told: str, source: str) -> None:
    if source == "one" and "not BPE" in told:  # its own tokens stay as they are
        tokenizer = changed("model/type", "BPE") | {"model": 5}
        told = "has no vocabulary"
    with pytest.raises(UsageError) as caught:
        united(model(tokenizer), source=source)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, []])
def test_no_added_tokens_are_none(value: Any) -> None:
    """``added_tokens: null`` is what some tools write; new tokens are added all the same."""
    found = united(model(changed("added_tokens", value)), model(OTHER, "two", 3))
    assert {"a", "b", "ab", "<pad>", "c"} == set(found.ids)
    assert [one["content"] for one in json.loads(found.texts["tokenizer.json"])["added_tokens"]] == [
        "c",
        "<pad>",
    ]


@pytest.mark.parametrize("rows", [ROWS, None])
def test_an_id_far_beyond_all_rows_allocates_nothing(rows: int | None) -> None:
    """d_hostile: the rows of the models bound the ids that are made room for."""
    far = changed("model/vocab/far", (1 << 24) - 1)
    if rows is not None:
        assert max(united(model(far, rows=rows)).ids.values()) < ROWS
    with pytest.raises(UsageError, match="the id 16777215"):
        united(model(far, rows=rows), source="one")
    huge = changed("model/vocab/far", 10**4000)
    with pytest.raises(UsageError, match=r"the id 1000000000"):
        united(model(huge, rows=rows), source="one")


def test_a_configuration_with_more_rows_than_there_are_is_told() -> None:
    """d_hostile: nor is a number in ``config.json`` believed that the embedding does not bear out."""
    with pytest.raises(UsageError, match="vocab_size 16777216, and the model 6 rows"):
        united(model(GOOD, config={"vocab_size": 1 << 24}))
    configs: list[Any] = [{"vocab_size": "6"}, {"text_config": [6]}, {"vocab_size": -6}, {"text_config": {}}]
    assert {united(model(GOOD, config=config)).count for config in configs} == {5}


@pytest.mark.parametrize("name", ["tokenizer_config", "added_tokens", "config"])
@pytest.mark.parametrize("value", [5, [], {"added_tokens_decoder": 5}, {"added_tokens_decoder": {"3": None}}])
def test_other_files_beside_it(name: str, value: Any) -> None:
    """Each is an error in one line, or of no account."""
    one, two = model(GOOD, **{name: value}), model(OTHER, "two", 3)
    if isinstance(value, dict):
        assert united(one, two).count > 5
    elif name == "config" or name in ("tokenizer_config", "added_tokens"):
        with pytest.raises(UsageError, match=f"{name}.json of one is no JSON object"):
            united(one, two)


def large(count: int, first: str) -> ModelFiles:
    """A model with so many tokens of its own."""
    vocab = {f"{first}{number}": number for number in range(count)}
    added = [{"id": count + number, "content": f"<{first}{number}>"} for number in range(count)]
    found = {"added_tokens": added, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    return model(found, first, 2 * count)


def test_the_work_of_a_union_grows_with_its_tokens_and_not_their_square() -> None:
    """d_hostile: sixteen times the tokens are about sixteen times the work; the square would be 256 times."""

    def cost(count: int) -> float:
        models = large(count, "p"), large(count, "q")
        start = time.process_time()
        found = united(*models)
        assert len(found.ids) == 4 * count
        return time.process_time() - start

    cost(100)
    few, many = (min(cost(count) for _ in range(3)) for count in (1000, 16_000))
    assert many < 70 * few


# -- any change ------------------------------------------------------------------------------


PLAIN = [None, True, 0, -1, 5, 1 << 24, 1.5, float("nan"), "", "a", "\ud800", "\x1b[2J", "<s>"]
NESTED: list[Any] = [[], [[]], {}, {"a": {}}, [None], ["a", "b"]]
JUNK: st.SearchStrategy[Any] = st.sampled_from(PLAIN + NESTED) | st.integers() | st.text(max_size=3)
HOW = st.sampled_from(["other", "gone", "doubled", "renamed"])


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON."""
    yield path
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def mutated(found: Any, path: tuple[Any, ...], value: Any, how: str) -> Any:
    """A JSON in which what is at ``path`` is another value, gone, doubled or renamed."""
    if not path:
        return value
    found = copy.deepcopy(found)
    place = found
    for key in path[:-1]:
        place = place[key]
    if how == "gone":
        del place[path[-1]]
    elif how == "doubled" and isinstance(place, list):
        place.append(place[path[-1]])
    elif how == "renamed" and isinstance(place, dict):
        place[str(value)] = place.pop(path[-1])
    else:
        place[path[-1]] = value
    return found


@st.composite
def mutations(draw: st.DrawFn, good: Any) -> Any:
    """A JSON with up to three changes."""
    found = good
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(found))))
        found = mutated(
            found, path, draw(JUNK), draw(st.sampled_from(["other", "gone", "doubled", "renamed"]))
        )
        if not isinstance(found, dict | list):
            break
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([GOOD, OTHER]).flatmap(mutations),
    st.none()
    | st.sampled_from(sorted(BESIDE)).flatmap(lambda n: st.tuples(st.just(n), mutations(BESIDE[n]))),
    st.sampled_from(["union", "base", "one", "two"]),
    st.booleans(),
)
@example(changed("added_tokens", None), None, "union", True)
def test_any_change_of_a_tokenizer_is_one_line_or_a_tokenizer(
    tokenizer: Any, beside: Any, source: str, first: bool
) -> None:
    """d_hostile: no traceback, and never more ids than there are rows in all models."""
    known = {**BESIDE, **(beside if isinstance(beside, dict) else {})}
    files: dict[str, Any] = {
        name.removesuffix(".json"): found for name, found in known.items() if "." in name
    }
    files = {name: found for name, found in files.items() if name.isidentifier() and name != "rows"}
    one, two = model(tokenizer, **files), model(GOOD, "two")
    pair = (one, two) if first else (two, one)
    try:
        found = united(*pair, source=source)
    except UsageError as error:
        assert "\n" not in str(error)
        assert "\x1b" not in str(error)
        return
    assert found.count <= 2 * ROWS
    assert len(set(found.ids.values())) == len(found.ids)
    assert TokenizerFile(ModelFiles("new", "", {}, found.texts)).ids == dict(found.ids)


@settings(max_examples=150, deadline=None)
@given(mutations(GOOD), mutations(GOOD), st.booleans())
def test_any_change_in_a_merge_of_branches_is_one_line_or_a_tokenizer(
    ours: Any, theirs: Any, with_base: bool
) -> None:
    """d_hostile, c2: the same of the tokenizers of two branches."""
    try:
        ids, texts = joint_tokenizers.joined(
            model(GOOD, "base") if with_base else None, model(ours, "ours"), model(theirs, "theirs")
        )
    except UsageError:
        return
    assert TokenizerFile(ModelFiles("new", "", {}, texts)).ids == dict(ids)
