"""``theta merge --dtype``: the configuration beside the merged model tells the dtype of its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.compat.inprocess import copied, theta
from tests.compat.test_merging_by_token import BASE, rows, write
from tests.support import Repo, make_model, read_model
from theta.merging.documents import result_texts

MODEL, CONFIG = "model.safetensors", "config.json"
BF16 = np.dtype(ml_dtypes.bfloat16)
SPELLED = """{
    "vision_config": {"torch_dtype": "float32", "depth" : 2},
  "torch_dtype" :  "float32", "rope_theta": 1e4,
  "name": "caf\\u00e9",

%s
  "vocab_size": 4
}"""
"""A configuration in a spelling that no program writes, with the key in a section of it too."""


def saved(repo: Repo, by: float, text: str, name: str) -> None:
    make_model(repo.path / MODEL, {"a.weight": np.full((4, 4), by, "<f4"), "b": np.full(4, by, "<f4")})
    repo.write(CONFIG, text)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", name)


def branches(repo: Repo, base: str, **sides: str) -> None:
    """Commit a model with the configuration ``base``, and one on each branch; ``main`` is the last."""
    theta(repo, "track", "*.safetensors")
    saved(repo, 0.0, base, "base")
    repo.git("tag", "base")
    for number, (name, text) in enumerate(sides.items(), 1):
        theta(repo, "switch", "-q", *(["main"] if name == "main" else ["-c", name, "base"]))
        saved(repo, float(number), text, name)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.create(tmp_path / "repo")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two branches off main that changed all values; one of them changed another line of the text."""
    repo = Repo.create(tmp_path_factory.mktemp("begun") / "repo")
    base = SPELLED % ""
    branches(repo, base, b=base, c=base.replace("1e4", "5e5"), main=base.replace('": 4', '": 5'))
    return repo


@pytest.fixture
def three(begun: Repo, tmp_path: Path) -> Repo:
    return copied(begun, tmp_path / "repo")


def told(repo: Repo) -> str:
    return (repo.path / CONFIG).read_text()


def assert_is(repo: Repo, text: str) -> None:
    """The result is in bf16 and says so in ``text``; index, worktree and replay agree."""
    assert {one.dtype for one in read_model(repo.path / MODEL).values()} == {BF16}
    assert told(repo) == text
    assert repo.git("show", f"HEAD:{CONFIG}") == text.rstrip("\n")
    assert repo.git("status", "--porcelain") == ""
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out
    theta(repo, "fsck")


BOTH = (
    (SPELLED % "")
    .replace('": 4', '": 5')
    .replace('"torch_dtype" :  "float32"', '"torch_dtype" :  "bfloat16"')
)


@pytest.mark.parametrize("words", [("-q",), ("--no-ff", "-m", "by git"), ("--squash",), ("--no-commit",)])
def test_the_value_changes_and_no_other_byte(three: Repo, words: tuple[str, ...]) -> None:
    """The text is that of git's merge: the spelling, a section with the same key, and both sides' lines."""
    theta(three, "merge", "b", "-X", "average", "--dtype", "bf16", *words)
    if "--squash" in words or "--no-commit" in words:
        theta(three, "commit", "-q", "--no-edit")
    assert_is(three, BOTH)


def test_it_is_undone_with_the_merge(three: Repo) -> None:
    before = told(three)
    theta(three, "merge", "-q", "b", "-X", "average", "--dtype", "bf16")
    theta(three, "undo")
    assert told(three) == before
    assert three.git("status", "--porcelain") == ""
    assert {one.dtype for one in read_model(three.path / MODEL).values()} == {np.dtype("f4")}


def test_several_branches_at_once(three: Repo) -> None:
    theta(three, "merge", "-q", "b", "c", "-X", "average", "--dtype", "bf16")
    assert_is(three, BOTH.replace("1e4", "5e5"))


@pytest.mark.parametrize("names", [("b",), ("b", "c")])
def test_a_rehearsal_tells_the_file_and_writes_nothing(three: Repo, names: tuple[str, ...]) -> None:
    before = told(three)
    words = ("merge", *names, "-X", "average", "--dry-run")
    assert f"to be written: {CONFIG}" in theta(three, *words, "--dtype", "bf16").out
    assert json.loads(theta(three, *words, "--dtype", "bf16", "--json").out)["theta.merge/v1"]["texts"] == [
        CONFIG
    ]
    assert "to be written" not in theta(three, *words).out
    assert "to be written" not in theta(three, *words, "--dtype", "f32").out
    assert told(three) == before


def test_conflicts_that_are_settled_later_tell_it_then(three: Repo) -> None:
    theta(three, "merge", "-q", "b", "--dtype", "bf16", "--no-prompt", code=1)
    theta(three, "merge", "--continue", "-X", "average")
    assert_is(three, BOTH)


def test_tensors_settled_one_by_one(three: Repo) -> None:
    theta(three, "merge", "-q", "b", "--dtype", "bf16", "--no-prompt", code=1)
    theta(three, "resolve", "-X", "theirs", MODEL)
    theta(three, "merge", "--continue")
    assert_is(three, BOTH)


def test_what_the_user_wrote_since_stays(three: Repo) -> None:
    theta(three, "merge", "-q", "b", "--dtype", "bf16", "--no-prompt", code=1)
    own = told(three).replace("float32", "auto")
    three.write(CONFIG, own)
    three.git("add", CONFIG)
    theta(three, "merge", "--continue", "-X", "average")
    assert told(three) == own
    assert f"{CONFIG}: settled by hand" in theta(three, "merge", "--replay", "HEAD").out


@pytest.mark.parametrize("words", [(), ("--no-commit",)])
def test_an_edited_configuration_is_not_written_over(three: Repo, words: tuple[str, ...]) -> None:
    three.write(CONFIG, own := told(three).replace("café", "mine").replace("1e4", "2e4"))
    head = three.git("rev-parse", "HEAD")
    theta(three, "merge", "c", "-X", "average", "--dtype", "bf16", *words, code=None)
    assert (told(three), three.git("rev-parse", "HEAD")) == (own, head)
    assert not (three.path / ".git/MERGE_HEAD").exists()


def with_dtype(name: str, more: str = "") -> str:
    return json.dumps({"dtype": name, "more": more}, indent=2) + "\n"


def test_versions_that_differ_in_nothing_else_are_no_conflict(repo: Repo) -> None:
    branches(repo, with_dtype("float32"), b=with_dtype("float16"), main=with_dtype("float64"))
    theta(repo, "merge", "-q", "b", "-X", "average", "--dtype", "bf16")
    assert_is(repo, with_dtype("bfloat16"))


def test_a_file_in_conflict_is_the_users_but_for_the_dtype(repo: Repo) -> None:
    branches(repo, with_dtype("float32"), b=with_dtype("float16", "b"), main=with_dtype("float32", "main"))
    theta(repo, "merge", "-q", "b", "-X", "average", "--dtype", "bf16", code=1)
    text = told(repo)
    assert text.count("bfloat16") == 1
    assert "float32" not in text
    assert "<<<<<<<" in text
    repo.write(CONFIG, with_dtype("bfloat16", "both"))
    theta(repo, "add", CONFIG)
    theta(repo, "merge", "--continue")
    assert_is(repo, with_dtype("bfloat16", "both"))


def cast(repo: Repo, dtype: Any, by: float, text: str, name: str) -> None:
    make_model(repo.path / MODEL, {"a.weight": np.full((4, 4), by, dtype), "b": np.full(4, by, dtype)})
    repo.write(CONFIG, text)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", name)


@pytest.mark.parametrize("own", ["float32", "float16"])
def test_sides_of_two_dtypes(repo: Repo, own: str) -> None:
    """The result has the dtype of ours; git takes the other one from the side that changed the text."""
    theta(repo, "track", "*.safetensors")
    cast(repo, "f4", 0, with_dtype("float32"), "base")
    cast(repo, own, 1, with_dtype(own), "main")
    theta(repo, "switch", "-q", "-c", "b", "HEAD~1")
    cast(repo, BF16, 2, with_dtype("bfloat16"), "b")
    theta(repo, "switch", "-q", "main")
    assert f"to be written: {CONFIG}" in theta(repo, "merge", "b", "-X", "average", "--dry-run").out
    theta(repo, "merge", "-q", "b", "-X", "average")
    assert {one.dtype for one in read_model(repo.path / MODEL).values()} == {np.dtype(own)}
    assert told(repo) == with_dtype(own)
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out


def test_a_side_that_cast_what_the_other_left_is_taken(repo: Repo) -> None:
    theta(repo, "track", "*.safetensors")
    cast(repo, "f4", 0, with_dtype("float32"), "base")
    theta(repo, "switch", "-q", "-c", "b")
    cast(repo, BF16, 2, with_dtype("bfloat16"), "b")
    theta(repo, "switch", "-q", "main")
    repo.write("README.md", "ours")
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "ours")
    theta(repo, "merge", "-q", "b", "-X", "average")
    assert_is(repo, with_dtype("bfloat16"))


@pytest.mark.parametrize("ours", [2, 3])
def test_a_model_in_shards(repo: Repo, ours: int) -> None:
    """Ours may be cut into other shards than base and theirs."""
    theta(repo, "track", "*.safetensors")
    for number, (name, count) in enumerate({"base": 2, "main": ours, "b": 2}.items()):
        if name == "b":
            theta(repo, "switch", "-q", "-c", "b", "HEAD~1")
        for old in repo.path.glob("*.safetensors"):
            old.unlink()
        for shard in range(1, count + 1):
            names = [f"{tensor}.weight" for tensor in range(6) if tensor % count == shard - 1]
            file = repo.path / f"model-{shard:05}-of-{count:05}.safetensors"
            make_model(file, {name: np.full(4, number, "f4") for name in names})
        repo.write(CONFIG, with_dtype("float32"))
        theta(repo, "add", "-A", ".")
        theta(repo, "commit", "-q", "-m", name)
    theta(repo, "switch", "-q", "main")
    words = ("merge", "b", "-X", "average", "--dtype", "bf16")
    assert f"to be written: {CONFIG}" in theta(repo, *words, "--dry-run").out
    theta(repo, *words, "-q")
    assert len([*repo.path.glob("*.safetensors")]) == ours
    assert told(repo) == with_dtype("bfloat16")
    assert "the same tree" in theta(repo, "merge", "--replay", "HEAD").out


@pytest.mark.parametrize("text", ["{}\n", '{"text_config": {"dtype": "float32"}}\n', "no JSON\n", "[]\n"])
def test_a_configuration_that_tells_none_stays(repo: Repo, text: str) -> None:
    branches(repo, text, b=text, main=text)
    theta(repo, "merge", "-q", "b", "-X", "average", "--dtype", "bf16")
    assert_is(repo, text)


def test_beside_tokens_that_follow(repo: Repo) -> None:
    """A merge by token writes the file too."""
    theta(repo, "track", "*.safetensors")
    for name, tokens, by in (("base", BASE, 0.0), ("main", (*BASE, "<x>"), 1.0), ("b", (*BASE, "<y>"), 2.0)):
        if name == "b":
            theta(repo, "switch", "-q", "-c", "b", "HEAD~1")
        write(repo, tokens, rows(tokens, by, by))
        config: dict[str, Any] = {"vocab_size": len(tokens), "torch_dtype": "float32"}
        repo.write(CONFIG, json.dumps(config, indent=2) + "\n")
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", name)
    theta(repo, "switch", "-q", "main")
    theta(repo, "merge", "-q", "b", "-X", "average", "--dtype", "bf16")
    assert_is(repo, json.dumps({"vocab_size": len(BASE) + 2, "torch_dtype": "bfloat16"}, indent=2) + "\n")


def test_an_adapter_has_no_dtype_of_its_own_there(repo: Repo) -> None:
    theta(repo, "track", "*.safetensors")
    base = with_dtype("float32")
    for number, name in enumerate(("base", "main", "b")):
        if name == "b":
            theta(repo, "switch", "-q", "-c", "b", "HEAD~1")
        factors = {"q.lora_A.weight": np.full((2, 4), number, "f4"), "q.lora_B.weight": np.ones((4, 2), "f4")}
        make_model(repo.path / "adapter_model.safetensors", factors)
        repo.write("adapter_config.json", json.dumps({"r": 2, "lora_alpha": 2, "peft_type": "LORA"}))
        repo.write(CONFIG, base)
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", name)
    theta(repo, "switch", "-q", "main")
    theta(repo, "merge", "-q", "b", "-X", "linear", "--dtype", "bf16")
    assert told(repo) == base


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"dtype": null}', '{"dtype": "bfloat16"}'),
        ('{"dtype": "f", "torch_dtype": ""}', '{"dtype": "bfloat16", "torch_dtype": "bfloat16"}'),
        ('{"dtype":"f","a":"\\"dtype\\": 1","x":NaN}', '{"dtype":"bfloat16","a":"\\"dtype\\": 1","x":NaN}'),
        ('{"dtype": "a", "dtype": "b"}', '{"dtype": "a", "dtype": "bfloat16"}'),
        ('{"dtyp\\u0065": "float32"}', '{\n  "dtype": "bfloat16"\n}\n'),
        ('{"dtype": ["float32"]}', '{\n  "dtype": "bfloat16"\n}\n'),
        (json.dumps({"a": [{"dtype": "x"}] * 100, "dtype": "x"}), None),
    ],
)
def test_places_of_the_value(text: str, wanted: str | None) -> None:
    found = result_texts.in_dtype(text.encode(), "bf16").decode()
    assert wanted is None or found == wanted
    assert {**json.loads(text), "dtype": "bfloat16"}.keys() == json.loads(found).keys()
    assert json.loads(found)["dtype"] == "bfloat16"
