"""``theta extract-lora``: an adapter that gives the fine-tune back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import copied, theta
from tests.support import Repo, make_model, random_tensors, read_model
from theta.porcelain.tensors import tied_weights
from theta.porcelain.workspace.session import Session

SHAPES = {
    "layers.0.q.weight": (24, 16),
    "layers.0.norm.weight": (16,),
    "embed.weight": (8, 16),
    "same.weight": (4, 4),
}
PREFIX = "base_model.model."


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Tag v1, and v2 with a change of rank 2, a new norm and a new embedding."""
    repo = Repo.create(tmp_path_factory.mktemp("lora") / "repo")
    tensors = random_tensors(SHAPES)
    theta(repo, "track", "*.safetensors")
    make_model(repo.path / "m.safetensors", tensors)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "base")
    repo.git("tag", "v1")
    rng = np.random.default_rng(1)
    update = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 16))
    tensors["layers.0.q.weight"] = (tensors["layers.0.q.weight"] + update).astype(np.float32)
    for name in ("layers.0.norm.weight", "embed.weight"):
        tensors[name] = tensors[name] + np.float32(1)
    make_model(repo.path / "m.safetensors", tensors)
    theta(repo, "commit", "-q", "-am", "tuned")
    return repo


def test_a_committed_adapter_tells_its_origins_and_replays(repo: Repo, tmp_path: Path) -> None:
    own = copied(repo, tmp_path / "own")
    theta(own, "extract-lora", "v1..HEAD", "-r", "2", "-o", "lora", "--whole", "embed*", "--commit")
    line = own.git("show", "-s", "--format=%(trailers:key=Theta-Extract-Lora,valueonly)").strip()
    ends = [own.git("rev-parse", name) for name in ("v1", "HEAD~1")]
    model = "m.safetensors"
    assert line == f"--rank 2 --whole 'embed*' -o lora -- {ends[0]} {model} {ends[1]} {model}"
    assert own.git("status", "--porcelain") == ""
    theta(own, "extract-lora", "v1..HEAD~1", "-r", "2", "--whole", "embed*", "-o", str(tmp_path / "out"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (own.path / "lora" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert "the same adapter" in theta(own, "extract-lora", "--replay", "HEAD").out
    told = json.loads(theta(own, "lineage", "lora/adapter_model.safetensors", "--json").out)
    (node,) = told["theta.lineage/v1"]["versions"]
    assert (node["deed"], node["detail"]) == ("extracted", "LoRA of rank 2")
    assert [one["commit"] for one in node["origins"]] == ends
    theta(own, "undo")
    assert not (own.path / "lora").exists()


@pytest.mark.parametrize(
    "line",
    ["", "--rank", "--rank x -o y -- a b c d", "--rank 2 -- a b c d", "--rank 1e999 -o a -- b c d e f", "'"],
)
def test_a_malformed_record_is_told(repo: Repo, tmp_path: Path, line: str) -> None:
    own = copied(repo, tmp_path / "own")
    own.git("commit", "-q", "--allow-empty", "-m", f"said\n\nTheta-Extract-Lora: {line}")
    done = theta(own, "extract-lora", "--replay", "HEAD", code=2)
    assert "malformed" in done.err or "extracted none" in done.err


def test_an_adapter_outside_of_the_repository_is_not_committed(repo: Repo, tmp_path: Path) -> None:
    done = theta(repo, "extract-lora", "v1..HEAD", "-r", "2", "-o", str(tmp_path / "x"), "--commit", code=2)
    assert "outside of the repository" in done.err


def test_the_adapter_gives_the_fine_tune_back(repo: Repo, tmp_path: Path) -> None:
    told = theta(repo, "extract-lora", "v1..HEAD", "--rank", "2", "-o", str(tmp_path / "out"))
    assert "1 modules in low rank, 2 in full" in told.out
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 2, ["layers.0.q"])
    found = read_model(tmp_path / "out/adapter_model.safetensors")
    tuned = read_model(repo.path / "m.safetensors")
    factors = [found[f"{PREFIX}layers.0.q.lora_{side}.weight"] for side in "BA"]
    base = random_tensors(SHAPES)["layers.0.q.weight"]
    assert np.abs(base + factors[0] @ factors[1] - tuned["layers.0.q.weight"]).max() < 1e-5
    assert np.array_equal(found[f"{PREFIX}layers.0.norm.weight"], tuned["layers.0.norm.weight"])
    assert not any("same" in name for name in found)
    theta(repo, "extract-lora", "v1..HEAD", "--rank", "2", "-o", str(tmp_path / "out"), code=14)
    theta(
        repo, "extract-lora", "v1..HEAD", "m.safetensors", "-r", "1", "-o", str(tmp_path / "out"), "--force"
    )
    assert read_model(tmp_path / "out/adapter_model.safetensors")[
        f"{PREFIX}layers.0.q.lora_A.weight"
    ].shape == (1, 16)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["v1", "-r", "2"], 2),
        (["v1..nothere", "-r", "2"], 13),
        (["v1..HEAD", "-r", "0"], 2),
        (["HEAD~1..v1", "-r", "2"], 2),
    ],
)
def test_what_cannot_be_extracted(repo: Repo, tmp_path: Path, args: list[str], code: int) -> None:
    theta(repo, "extract-lora", *args, "-o", str(tmp_path / "out"), code=code)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Tag v1, and v2 with four tokens more; ``config.json`` says that they are tied, and later that not."""
    repo = Repo.create(tmp_path_factory.mktemp("tied") / "repo")
    tensors = random_tensors({"model.embed_tokens.weight": (8, 16), "model.q.weight": (16, 12)})
    theta(repo, "track", "*.safetensors")
    (repo.path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    make_model(repo.path / "m.safetensors", tensors)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "base")
    repo.git("tag", "v1")
    tensors = random_tensors({"model.embed_tokens.weight": (12, 16), "model.q.weight": (16, 12)}, 1)
    make_model(repo.path / "m.safetensors", tensors)
    theta(repo, "commit", "-q", "-am", "tuned")
    repo.git("tag", "v2")
    (repo.path / "config.json").write_text(json.dumps({"tie_word_embeddings": False}))
    theta(repo, "commit", "-q", "-am", "untied")
    return repo


def test_a5_a6_b5_what_is_said_of_a_tied_vocabulary_that_grew(tied: Repo, tmp_path: Path) -> None:
    """The error, the head's copy, and the line that PEFT needs first."""
    told = theta(tied, "extract-lora", "v1..v2", "-r", "12", "-o", str(tmp_path / "out"))
    assert "the adapter reproduces the tuned model to max |d| = " in told.out
    assert "base_model.resize_token_embeddings(12)" in told.err
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["modules_to_save"] == ["lm_head", "model.embed_tokens"]
    found = read_model(tmp_path / "out/adapter_model.safetensors")
    wanted = read_model(tied.path / "m.safetensors")["model.embed_tokens.weight"]
    for module in ("lm_head", "model.embed_tokens"):
        assert np.array_equal(found[f"{PREFIX}{module}.weight"], wanted)
    rough = theta(tied, "extract-lora", "v1..v2", "-r", "1", "-o", str(tmp_path / "rough"))
    errors = [float(text.split("max |d| = ")[1].split()[0]) for text in (told.out, rough.out)]
    assert errors[0] < 1e-6 < 1e-3 < errors[1]
    assert "(model.q.weight)" in rough.out


def test_a5_a_configuration_that_is_not_here_yet_is_fetched(tied: Repo, tmp_path: Path) -> None:
    """A partial clone has the blobs of its checkout only."""
    for key in ("allowFilter", "allowAnySHA1InWant"):
        tied.git("config", f"uploadpack.{key}", "true")
    clone = tied.clone(tmp_path / "clone", "--filter=blob:none")
    assert tied_weights.beside(Session.here(clone.path), "m.safetensors", "v2") == {
        "tie_word_embeddings": True
    }


def test_a5_where_no_configuration_says_it_the_user_is_told(repo: Repo, tmp_path: Path) -> None:
    make_model(repo.path / "m.safetensors", random_tensors(SHAPES | {"embed_tokens.weight": (8, 16)}))
    theta(repo, "commit", "-q", "-am", "another")
    repo.git("tag", "v3")
    make_model(repo.path / "m.safetensors", random_tensors(SHAPES | {"embed_tokens.weight": (8, 16)}, 5))
    theta(repo, "commit", "-q", "-am", "tuned")
    told = theta(repo, "extract-lora", "v3..HEAD", "-r", "2", "-o", str(tmp_path / "out"))
    assert "no config.json says whether the head is tied" in told.err


def test_c8_the_base_and_the_task_are_named(tied: Repo, tmp_path: Path) -> None:
    """PEFT finds the base by its name; the task is what config.json says unless one is given."""
    config = {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}
    (tied.path / "config.json").write_text(json.dumps(config))
    theta(tied, "commit", "-q", "-am", "a class")
    command = ("extract-lora", "v1..HEAD", "-r", "2", "--base-model", "org/base")
    for args, task in (((), "CAUSAL_LM"), (("--task-type", "FEATURE_EXTRACTION"), "FEATURE_EXTRACTION")):
        theta(tied, *command, *args, "-o", str(tmp_path / task))
        found = json.loads((tmp_path / task / "adapter_config.json").read_text())
        assert (found["base_model_name_or_path"], found["task_type"]) == ("org/base", task)
    told = theta(tied, *command, "--task-type", "CHESS", "-o", str(tmp_path / "x"), code=2)
    assert "one of CAUSAL_LM" in told.err
