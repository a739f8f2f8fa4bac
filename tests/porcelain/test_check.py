"""``theta check``: each planted fault is found by the rule meant for it, and nothing in a sound model."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.cli.checks import refused
from tests.support import Repo, make_model, random_tensors
from theta.dtypes import name_of
from theta.formats.values import Value
from theta.porcelain.check import gate
from theta.porcelain.check.check_rules import CheckRules
from theta.porcelain.check.findings import RULES
from theta.porcelain.check.gate import CheckRequest
from theta.porcelain.check.zero_rows import ZeroRows
from theta.porcelain.workspace.session import Session

MODEL = "model.safetensors"
Tensors = dict[str, Any]
SHAPES = {
    "model.embed_tokens.weight": (12, 8),
    **{
        f"model.layers.{k}.{name}": shape
        for k in range(3)
        for name, shape in {
            "self_attn.q_proj.weight": (8, 8),
            "self_attn.k_proj.weight": (4, 8),
            "mlp.up_proj.weight": (16, 8),
            "mlp.down_proj.weight": (8, 16),
            "input_layernorm.weight": (8,),
        }.items()
    },
    "lm_head.weight": (12, 8),
}
CONFIG = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 12,
    "tie_word_embeddings": True,
}
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {f"t{k}": k for k in range(11)}},
    "added_tokens": [{"id": 11, "content": "<pad>"}],
}
FROZEN = CheckRules(frozen=("*embed_tokens*", "lm_head*"), budgets={"*q_proj*": 0.01})


def sound() -> Tensors:
    tensors = random_tensors(SHAPES, 1)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    return tensors


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A committed model with all that may stand beside one."""
    repo = Repo.create(tmp_path_factory.mktemp("check") / "repo")
    repo.theta("track", "*.safetensors", "*.bin")
    make_model(repo.path / MODEL, sound(), metadata={"format": "pt", "author": "x"})
    repo.write("config.json", json.dumps(CONFIG))
    repo.write("tokenizer.json", json.dumps(TOKENIZER))
    repo.write("LICENSE", "Apache")
    repo.write("README.md", "---\nlicense: apache-2.0\n---\n# A model\n")
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    return repo.path


@pytest.fixture
def model(template: Path, tmp_path: Path) -> Repo:
    """A copy of the committed model."""
    return Repo(shutil.copytree(template, tmp_path / "model"))


def write(repo: Repo, tensors: Tensors, **metadata: str) -> None:
    make_model(repo.path / MODEL, tensors, metadata=metadata or {"format": "pt", "author": "x"})


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Repo], None]:
    """A fault in one tensor."""

    def plant(repo: Repo) -> None:
        tensors = sound()
        tensors[name] = change(tensors[name])
        write(repo, tensors)

    return plant


def element(value: float) -> Callable[[Any], Any]:
    def change(old: Any) -> Any:
        new = old.copy()
        new.flat[-1] = value
        return new

    return change


def configured(**changes: object) -> Callable[[Repo], None]:
    return lambda repo: void(repo.write("config.json", json.dumps(CONFIG | changes)))


def void(*_: object) -> None:
    pass


def without(name: str) -> Callable[[Repo], None]:
    return lambda repo: (repo.path / name).unlink()


def token(repo: Repo) -> None:
    more = {"id": 12, "content": "<new>"}
    repo.write("tokenizer.json", json.dumps(TOKENIZER | {"added_tokens": [more]}))


def unigram(repo: Repo) -> None:
    repo.write("tokenizer.json", json.dumps({"model": {"vocab": [[f"t{k}", 0.0] for k in range(13)]}}))


def words(count: int) -> Callable[[Repo], None]:
    """A vocabulary of ``count`` tokens, a line each."""
    return lambda repo: void(repo.write("vocab.txt", "".join(f"t{k}\n" for k in range(count))))


def ids(file: str, last: int) -> Callable[[Repo], None]:
    return lambda repo: void(repo.write(file, json.dumps({"t0": 0, "t1": last})))


def emptied(old: Any) -> Any:
    return np.where(np.arange(len(old))[:, None] % 2, old, -np.zeros_like(old))


class Calls:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def dangerous(repo: Repo) -> None:
    repo.write("bad.bin", pickle.dumps({"a": Calls()}))
    repo.theta("add", "bad.bin")


def dangerous_elsewhere(repo: Repo) -> None:
    repo.write("training/state/optimizer.pt", pickle.dumps({"a": Calls()}))
    repo.git("add", "training")


def lost_shard(repo: Repo) -> None:
    for k in (1, 3):
        make_model(repo.path / f"other-0000{k}-of-00003.safetensors", random_tensors({f"a{k}": (2, 2)}, k))
    repo.theta("add", ".")


def lost_by_index(repo: Repo) -> None:
    for k in (1, 2):
        make_model(repo.path / f"other-0000{k}-of-00002.safetensors", random_tensors({f"a{k}": (2, 2)}, k))
    names = {"a1": "other-00001-of-00002.safetensors", "gone": "other-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": names}
    repo.write("other.safetensors.index.json", json.dumps(index))
    repo.theta("add", ".")


Q = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.2.mlp.up_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
EMBED = "model.embed_tokens.weight"
FAULTS: dict[str, tuple[str, Callable[[Repo], None]]] = {
    "one nan": ("nan", put(UP, element(np.nan))),
    "one infinity": ("inf", put(UP, element(np.inf))),
    "minus infinity": ("inf", put(UP, element(-np.inf))),
    "zeros": ("zero", put(UP, np.zeros_like)),
    "minus zeros": ("zero", put(UP, lambda old: -np.zeros_like(old))),
    "rows of zeros": ("zero", put(UP, emptied)),
    "ones": ("constant", put(UP, np.ones_like)),
    "bf16 for f32": ("dtype", put(UP, lambda old: old.astype(ml_dtypes.bfloat16))),
    "columns": ("shape", put(UP, lambda old: old[:, :7])),
    "rows": ("shape", put(UP, lambda old: old[:15])),
    "intermediate": ("shape", put(DOWN, lambda old: old[:, :15])),
    "a tensor lost": ("missing", lambda repo: write(repo, {k: v for k, v in sound().items() if k != UP})),
    "a frozen row": ("frozen", put(EMBED, element(0.5))),
    "a frozen head": ("frozen", put("lm_head.weight", element(0.5))),
    "a frozen dtype": ("frozen", put(EMBED, lambda old: old.astype(np.float16))),
    "a large change": ("change", put(Q, lambda old: old * 1.02)),
    "heads of keys": ("shape", configured(num_attention_heads=2, num_key_value_heads=3)),
    "zeros of both signs": (
        "zero",
        put(UP, lambda old: np.where(old > 0, np.zeros_like(old), -np.zeros_like(old))),
    ),
    "hidden size": ("shape", configured(hidden_size=9)),
    "layers": ("shape", configured(num_hidden_layers=4)),
    "vocabulary size": ("shape", configured(vocab_size=13)),
    "a token without a row": ("vocabulary", token),
    "a token of a list": ("vocabulary", unigram),
    "a line without a row": ("vocabulary", words(13)),
    "an id without a row": ("vocabulary", ids("vocab.json", 12)),
    "an added id without a row": ("vocabulary", ids("added_tokens.json", 12)),
    "an untied head": ("tie", put("lm_head.weight", lambda old: old + 1)),
    "a pickle": ("pickle", dangerous),
    "a pickle that is no checkpoint": ("pickle", dangerous_elsewhere),
    "a licence file": ("licence", without("LICENSE")),
    "a card's licence": ("licence", lambda repo: void(repo.write("README.md", "# A model\n"))),
    "metadata": ("metadata", lambda repo: write(repo, sound(), format="pt")),
    "a shard": ("shards", lost_shard),
    "an index": ("unreadable", lost_by_index),
    "half a file": ("unreadable", lambda repo: os.truncate(repo.path / MODEL, 200)),
}


def check(repo: Repo, *names: str, rules: CheckRules = FROZEN) -> gate.CheckResult:
    return gate.check(Session.here(repo.path), CheckRequest(names, None, rules), repo.path)


def test_there_are_at_least_25_faults_and_every_rule_has_one() -> None:
    assert len(FAULTS) >= 25
    assert {rule for rule, _ in FAULTS.values()} | {"size"} == RULES.keys()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(model: Repo, fault: str) -> None:
    rule, plant = FAULTS[fault]
    plant(model)
    assert rule in {finding.rule for finding in check(model).findings}


def test_a_sound_model_has_no_findings(model: Repo) -> None:
    found = check(model)
    assert (found.findings, found.paths, found.tensors) == ((), (MODEL,), len(SHAPES))
    small = put(Q, lambda old: old * 1.001)
    small(model)
    assert check(model).findings == ()


@pytest.mark.parametrize(
    "more",
    [
        {"vision.encoder.layers.0.self_attn.q_proj.weight": (5, 5)},
        {"adapter.layers.0.q_proj.lora_B.weight": None},
        {"model.layers.0.mlp.experts.0.down_proj.weight": (8, 4)},
        {"model.layers.3.mlp.up_proj.weight": (16, 8)},
    ],
    ids=["another stack", "an adapter that was not trained", "experts", "layers that predict tokens"],
)
def test_what_models_have_is_no_fault(model: Repo, more: dict[str, tuple[int, ...] | None]) -> None:
    added = {
        n: np.zeros((4, 2), np.float32) if s is None else random_tensors({n: s}, 3)[n]
        for n, s in more.items()
    }
    write(model, {**sound(), **added})
    model.write("config.json", json.dumps(CONFIG | {"num_nextn_predict_layers": 1}))
    assert check(model).findings == ()


def test_lists_of_tokens_that_fit_are_no_fault(model: Repo) -> None:
    for plant in (words(12), ids("vocab.json", 11), ids("added_tokens.json", 11)):
        plant(model)
    assert check(model).findings == ()
    model.write("vocab.txt", "t\n" * 12 + "\n \n")
    model.write("vocab.json", json.dumps({"english": {"t": 99}, "no": True}))
    assert check(model).findings == ()


def test_rows_that_were_zero_before_are_no_fault(model: Repo) -> None:
    put(UP, emptied)(model)
    rules = CheckRules()
    assert [(one.rule, one.tensor) for one in check(model, rules=rules).findings] == [("zero", UP)]
    assert "8 rows are zero" in check(model, rules=rules).findings[0].message
    model.theta("commit", "-aqm", "zeros")
    assert check(model, rules=rules).findings == ()
    assert check(model, "HEAD", rules=rules).findings[0].rule == "zero"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e8m0fnu])
@pytest.mark.parametrize("length", [1, 3, 8, 40])
def test_rows_of_zeros_are_found_in_chunks_of_all_lengths(dtype: Any, length: int) -> None:
    array = np.ones((9, 2, 4), np.float32).astype(dtype)
    if has_zero := dtype is not ml_dtypes.float8_e8m0fnu:
        array[[0, 3, 4, 8]] = 0.0
        array[3, 1] = -0.0
        array[5, 1, 3], array[6, 0, 0] = 0.0, 0.0
    content, size = array.tobytes(), length * array.itemsize
    found = ZeroRows(Value(name_of(array.dtype), array.shape, lambda: iter(())))
    for start in range(0, len(content), size):
        found.add(content[start : start + size])
    assert found.rows == ([0, 3, 4, 8] if has_zero else [])


def test_a_revision_is_compared_with_its_parent(model: Repo) -> None:
    put(EMBED, element(0.5))(model)
    model.theta("commit", "-q", "-am", "tuned")
    assert {one.rule for one in check(model).findings} == {"tie"}
    found = check(model, "HEAD")
    assert {(one.rule, one.tensor) for one in found.findings} == {
        ("frozen", EMBED),
        ("tie", "lm_head.weight"),
    }
    assert check(model, "HEAD", rules=CheckRules(size=10)).findings[-1].rule == "size"
    assert check(model, "HEAD~").findings == ()


def test_rules_of_the_file_and_of_the_line_count_together(model: Repo) -> None:
    put(EMBED, element(0.5))(model)
    model.write(
        ".theta.toml", '[check]\nfrozen = ["*embed*"]\nmax-change = {"*" = 0.5}\nignore = {tie = ["*"]}\n'
    )
    done = model.theta("check", code=1)
    assert done.stdout.startswith(f"frozen     {MODEL}: {EMBED}: ")
    assert "1 checkpoint, 17 tensors" in done.stdout
    assert "1 finding" in done.stdout
    model.theta("check", "--ignore", f"frozen={EMBED}")
    model.theta("check", "--ignore", "frozen", MODEL)
    model.write(".theta.toml", '[check]\nfrosen = []\nmax-change = 3\nignore = {nonsense = ["*"]}\n')
    refused(model.theta("check", code=None), 2, "frosen", "max-change", "ignore")
    for text, hint in {
        "frosen = []": "did you mean frozen?",
        'ignore = {ti = ["*"]}': "did you mean tie?",
        "frozen = 3": "'theta help checking' has the form",
        'max-size = "10 GigaB"': "say a number of bytes, or such as 500MB or 5GB",
    }.items():
        model.write(".theta.toml", f"[check]\n{text}\n")
        assert f"hint: {hint}\n" in model.theta("check", code=2).stderr
    model.write(".theta.toml", '[check]\nmax-size = "10 GB"\n')
    model.theta("check", "HEAD~1")
    model.write(".theta.toml", "[check\n")
    refused(model.theta("check", code=None), 2, ".theta.toml")


def test_findings_are_written_for_services(model: Repo) -> None:
    put(UP, element(np.nan))(model)
    done = model.theta("check", "--json", "--sarif", "out.sarif", "--junit", "out.xml", code=1)
    report = json.loads(done.stdout)["theta.check/v1"]
    assert [one["rule"] for one in report["findings"]] == ["nan"]
    sarif = json.loads((model.path / "out.sarif").read_text())
    result = sarif["runs"][0]["results"][0]
    assert sarif["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "nan"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == MODEL
    suite = ElementTree.parse(model.path / "out.xml").getroot()[0]
    assert suite.attrib["failures"] == "1"
    assert [case.attrib["name"] for case in suite if len(case)] == ["nan"]


def test_files_are_checked_outside_of_repositories(tmp_path: Path, model: Repo) -> None:
    outside = Repo(tmp_path / "outside")
    outside.path.mkdir()
    tensors = sound()
    tensors[UP][0, 0] = np.nan
    make_model(outside.path / MODEL, tensors)
    assert outside.theta("check", MODEL, code=1).stdout.startswith("nan ")
    refused(outside.theta("check", code=None), 2, "name the files")
    refused(model.theta("check", "nowhere", code=None), 13, "nowhere")


def test_pickles_of_a_commit_are_found_in_all_folders(model: Repo) -> None:
    dangerous_elsewhere(model)
    model.git("commit", "-q", "-m", "state of the optimizer")
    line = "pickle     training/state/optimizer.pt: loading training/state/optimizer.pt would call"
    for words in ((), ("HEAD",)):
        done = model.theta("check", *words, "--sarif", "../found.sarif", code=1)
        assert line in done.stdout
        assert "1 checkpoint," in done.stdout
    model.theta("check", MODEL)
    model.theta("check", "--ignore", "pickle=training/*")


def test_a_pickle_in_conflict_is_told_once(model: Repo) -> None:
    """The index has an entry of it for each side."""
    name, sides = "training/state/optimizer.pt", []
    for tag in "ab":
        model.git("checkout", "-q", "--detach", "main")
        model.write(name, pickle.dumps({tag: Calls()}))
        model.git("add", "training")
        model.git("commit", "-q", "-m", tag)
        sides.append(model.git("rev-parse", "HEAD"))
    assert model.try_git("merge", sides[0]).returncode
    assert model.git("ls-files", "-u").count(name) == 2
    assert model.theta("check", code=1).stdout.count(f"{name}: loading") == 1


def test_a_folder_in_which_nothing_is_checked_is_refused(model: Repo) -> None:
    """It would pass a gate, whatever is in it."""
    make_model(model.path / "more" / MODEL, sound())
    refused(model.theta("check", "more", code=None), 13, "no checkpoint below more is tracked")
    assert "1 checkpoint," in model.theta("check", f"more/{MODEL}").stdout


def test_a_file_is_read_once(model: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties are compared by digests that are taken on the way."""
    from theta.store.files.file_source import FileSource

    tensors = random_tensors({"model.embed_tokens.weight": (4096, 64), "lm_head.weight": (4096, 64)}, 1)
    write(model, tensors)
    read: list[int] = []
    real = FileSource.read

    def counted(self: FileSource, start: int, length: int) -> bytes:
        read.append(length)
        return bytes(real(self, start, length))

    monkeypatch.setattr(FileSource, "read", counted)
    assert "tie" in {one.rule for one in check(model, MODEL).findings}
    assert sum(read) <= 1.1 * (model.path / MODEL).stat().st_size


def test_the_real_model_has_no_findings(real_model: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).symlink_to(real_model)
    found = gate.check(None, CheckRequest((MODEL,)), tmp_path)
    assert found.findings == ()
    assert found.tensors > 100


def test_reports_overwrite_nothing_of_others(model: Repo) -> None:
    """A SARIF file took the place of a model."""
    before = (model.path / MODEL).read_bytes()
    for option in ("--sarif", "--junit"):
        refused(model.theta("check", option, MODEL, code=None), 14, MODEL, "already")
        refused(model.theta("check", option, "no/where", code=None), 13, "no folder")
        model.theta("check", option, "report")
        model.theta("check", option, "report")
    assert (model.path / MODEL).read_bytes() == before


def test_a_file_in_another_order_is_compared_with_the_one_before(repo: Repo) -> None:
    """Chunks of a transposed array end elsewhere."""
    values = np.random.default_rng(1).normal(size=(3, 700, 1100)).astype(np.float32)
    repo.theta("track", "*.npy")
    np.save(repo.path / "a.npy", values)
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "c order")
    np.save(repo.path / "a.npy", np.asfortranarray(values))
    assert check(repo, rules=CheckRules(frozen=("*",))).findings == ()
    np.save(repo.path / "a.npy", np.asfortranarray(values * np.float32(1.01)))
    assert [one.rule for one in check(repo, rules=CheckRules(frozen=("*",))).findings] == ["frozen"]


def test_shards_and_an_index_stand_for_their_model(model: Repo) -> None:
    """pre-commit names files one by one; each shard was told to lack the others."""
    folder = model.path / "s"
    folder.mkdir()
    names = list(SHAPES)
    tensors = sound()
    shards = {f"model-0000{k + 1}-of-00003.safetensors": names[k::3] for k in range(3)}
    for shard, some in shards.items():
        make_model(folder / shard, {name: tensors[name] for name in some})
    index = {"metadata": {}, "weight_map": {name: shard for shard, some in shards.items() for name in some}}
    model.write("s/model.safetensors.index.json", json.dumps(index))
    model.write("s/config.json", json.dumps(CONFIG))
    found = check(model, *(f"s/{shard}" for shard in shards), "s/model.safetensors.index.json")
    assert (found.findings, found.paths) == ((), ("s/model.safetensors",))
    assert found.files == {"s/model.safetensors": "s/model-00001-of-00003.safetensors"}
    model.theta("add", ".")
    assert check(model, "s").paths == ("s/model.safetensors",)


def test_a_frozen_model_does_not_change_by_another_name(model: Repo) -> None:
    rules = CheckRules(frozen=("*",))
    model.theta("mv", MODEL, "other.safetensors")
    assert check(model, rules=rules).findings == ()
    tensors = sound()
    tensors[UP] = tensors[UP] + 1
    make_model(model.path / "other.safetensors", tensors, metadata={"format": "pt", "author": "x"})
    assert [(one.rule, one.tensor) for one in check(model, rules=rules).findings] == [("frozen", UP)]
    model.theta("rm", "-q", "-f", "other.safetensors")
    assert [(one.rule, one.path) for one in check(model, rules=rules).findings] == [("missing", MODEL)]


def test_what_could_not_be_checked_is_told(model: Repo, tmp_path: Path) -> None:
    done = model.theta("check", "--frozen", "*nrom*", "--max-size", "1B")
    assert "no tensor is called *nrom*" in done.stderr
    assert "theta check REV" in done.stderr
    model.write(".theta.toml", "[chek]\n")
    refused(model.theta("check", code=None), 2, "'chek'")
    (model.path / ".theta.toml").unlink()
    model.theta("commit", "-q", "--allow-empty", "-m", "next")
    model.git("clone", "-q", "--depth", "1", f"file://{model.path}", str(tmp_path / "shallow"))
    done = Repo(tmp_path / "shallow").theta("check", "HEAD")
    assert "shallow" in done.stderr


def test_the_smaller_of_two_budgets_counts(model: Repo) -> None:
    one, other = CheckRules(budgets={"*": 0.01}), CheckRules(budgets={"*": 9.0})
    assert one.joined(other).budgets == other.joined(one).budgets == {"*": 0.01}


def test_names_that_are_no_text_are_written_for_services(model: Repo) -> None:
    (model.path / os.fsdecode(b"bad\xff.safetensors")).write_bytes(b"nothing")
    model.theta(
        "check", os.fsdecode(b"bad\xff.safetensors"), "--sarif", "o.sarif", "--junit", "o.xml", code=1
    )
    uri = json.loads((model.path / "o.sarif").read_text())["runs"][0]["results"][0]["locations"][0]
    assert uri["physicalLocation"]["artifactLocation"]["uri"] == "bad%FF.safetensors"
    ElementTree.parse(model.path / "o.xml")


def unfiltered(repo: Repo, content: bytes) -> None:
    """Commit ``content`` as the checkpoint, twice, by a git without theta."""
    (repo.path / MODEL).write_bytes(content)
    for message in ("one", "two"):
        oid = repo.git("hash-object", "-w", "--no-filters", MODEL)
        repo.git("update-index", "--cacheinfo", f"100644,{oid},{MODEL}")
        # The hooks are settings for a git of 2.54 or later, which the path of hooks has no part in.
        no_hooks = ("-c", "core.hooksPath=/dev/null")
        repo.git(*no_hooks, "commit", "-q", "--no-verify", "--allow-empty", "-m", message)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
MALFORMED = b"theta checkpoint v1\nthere is nothing else\n"


@pytest.mark.parametrize("revision", [(), ("HEAD",)])
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "plain bytes"), (POINTER, ""), (MALFORMED, "")],
    ids=["plain bytes", "a pointer", "half a manifest"],
)
def test_what_stands_for_a_checkpoint_does_not_pass_unread(
    model: Repo, content: bytes | None, said: str, revision: tuple[str, ...]
) -> None:
    """The version before has none either, so that nothing is missing: a gate that reads nothing passed."""
    unfiltered(model, (model.path / MODEL).read_bytes() if content is None else content)
    found = check(model, *revision).findings
    assert [(one.rule, one.path) for one in found] == [("unreadable", MODEL)]
    assert said in found[0].message


def test_a_checkpoint_in_conflict_is_told_as_that(model: Repo) -> None:
    model.git("branch", "other")
    put(UP, lambda old: old * 1.01)(model)
    model.theta("commit", "-q", "-a", "-m", "ours")
    model.theta("checkout", "-q", "other")
    put(UP, lambda old: old * 0.99)(model)
    model.theta("commit", "-q", "-a", "-m", "theirs")
    model.theta("merge", "main", code=1)
    assert [(one.rule, one.message) for one in check(model).findings] == [
        ("unreadable", "it is in conflict; 'theta resolve' settles it")
    ]
