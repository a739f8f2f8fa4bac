"""The tensor that an adapter's factors go to, their layout, and factors that must not be added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.errors import UsageError
from theta.porcelain.stage import update_files, updating
from theta.porcelain.stage.fitting import Step, plan
from theta.porcelain.stage.staging import Added
from theta.porcelain.stage.updates import LowRank, Scale, Whole
from theta.porcelain.tensors import tied_weights
from theta.porcelain.tensors.tied_weights import TiedWeights
from theta.porcelain.workspace.session import Session
from theta.store.format.manifest import Line, Manifest

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def lora(module: str, rows: int, columns: int, seed: int = 0) -> dict[str, Array]:
    """Factors for the ``(rows, columns)`` = (out, in) of ``module``."""
    return {
        f"{module}.lora_A.weight": noise(2, columns, seed=seed),
        f"{module}.lora_B.weight": noise(rows, 2, seed=seed + 1),
    }


def adapter(place: Path, tensors: Mapping[str, Array], **config: Any) -> Path:
    """A directory as PEFT writes it."""
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(LORA | config))
    make_model(
        place / "adapter_model.safetensors", {f"base_model.model.{name}": t for name, t in tensors.items()}
    )
    return place


def steps(
    place: Path, base: Shapes, tensors: Mapping[str, Array], tied: TiedWeights | None = None, **config: Any
) -> dict[str, Step]:
    """Return the steps that a checkpoint of these shapes would go through."""
    dtypes = config.pop("dtypes", {})
    lines = [Line(name, dtypes.get(name, "f32"), shape, "0" * 64, "0" * 40) for name, shape in base.items()]
    manifest = Manifest("safetensors", "m", "0" * 40, tuple(lines))
    brought = update_files.read(adapter(place / "adapter", tensors, **config), None)
    return {step.line.name: step for step in plan(manifest, brought, tied or TiedWeights()).steps}


def added(step: Step) -> Array:
    """Return the array that a low-rank step adds to its tensor."""
    (item,) = step.updates
    assert isinstance(item, LowRank)
    return item.u @ item.v.T


# -- A2: orientation ----------------------------------------------------------------------------

GPT2: Shapes = {
    "h.0.attn.c_attn.weight": (8, 24),
    "h.0.attn.c_attn.bias": (24,),
    "h.0.attn.c_proj.weight": (8, 8),
    "h.0.attn.c_proj.bias": (8,),
    "h.0.mlp.c_proj.weight": (32, 8),
    "h.0.mlp.c_proj.bias": (8,),
    "lm_head.weight": (40, 8),
}
LLAMA: Shapes = {
    "layers.0.q_proj.weight": (8, 8),
    "layers.0.up_proj.weight": (24, 8),
    "layers.0.down_proj.weight": (8, 24),
}


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("others", [(), ("lm_head",), ("h.0.attn.c_attn", "lm_head")])
def test_a2_a_square_conv1d_follows_its_likes(tmp_path: Path, flag: bool, others: tuple[str, ...]) -> None:
    """PEFT's one flag is false in a model with GPT-2's matrices and a head, and says nothing of each."""
    sizes = {"lm_head": (40, 8), "h.0.attn.c_attn": (24, 8)}
    square = lora("h.0.attn.c_proj", 8, 8, seed=4)
    tensors = square | {k: t for name in others for k, t in lora(name, *sizes[name]).items()}
    found = steps(tmp_path, GPT2, tensors, fan_in_fan_out=flag)
    a, b = square["h.0.attn.c_proj.lora_A.weight"], square["h.0.attn.c_proj.lora_B.weight"]
    np.testing.assert_allclose(added(found["h.0.attn.c_proj.weight"]), (b @ a).T, atol=1e-5)
    for name in others:
        b, a = tensors[f"{name}.lora_B.weight"], tensors[f"{name}.lora_A.weight"]
        product = b @ a if name == "lm_head" else (b @ a).T
        np.testing.assert_allclose(added(found[f"{name}.weight"]), product, atol=1e-5)


@pytest.mark.parametrize("flag", [True, False])
def test_a2_a_square_linear_layer_follows_its_likes(tmp_path: Path, flag: bool) -> None:
    tensors = lora("layers.0.q_proj", 8, 8) | lora("layers.0.up_proj", 24, 8, seed=6)
    found = steps(tmp_path, LLAMA, tensors, fan_in_fan_out=flag)
    b, a = tensors["layers.0.q_proj.lora_B.weight"], tensors["layers.0.q_proj.lora_A.weight"]
    np.testing.assert_allclose(added(found["layers.0.q_proj.weight"]), b @ a, atol=1e-5)


@pytest.mark.parametrize("flag", [True, False])
def test_a2_where_nothing_else_tells_the_flag_does(tmp_path: Path, flag: bool) -> None:
    tensors = lora("layers.0.q_proj", 8, 8)
    b, a = tensors["layers.0.q_proj.lora_B.weight"], tensors["layers.0.q_proj.lora_A.weight"]
    found = steps(tmp_path, LLAMA, tensors, fan_in_fan_out=flag)
    np.testing.assert_allclose(
        added(found["layers.0.q_proj.weight"]), (b @ a).T if flag else b @ a, atol=1e-5
    )


def test_a2_a_square_matrix_among_both_kinds_is_refused_by_name(tmp_path: Path) -> None:
    base = LLAMA | {"a.b.mix.weight": (8, 8), "c.turned.weight": (8, 24)}
    tensors = lora("a.b.mix", 8, 8) | lora("layers.0.up_proj", 24, 8) | lora("c.turned", 24, 8)
    with pytest.raises(UsageError, match=r"a\.b\.mix\.weight is square"):
        steps(tmp_path, base, tensors)


def test_a2_scales_are_turned_too(tmp_path: Path) -> None:
    rows, columns = noise(8, 1), noise(1, 8)
    tensors = {"h.0.attn.c_proj.ia3_l": rows, "h.0.mlp.c_proj.ia3_l": noise(1, 32)}
    found = steps(tmp_path, GPT2, tensors, peft_type="IA3", r=None, lora_alpha=None)
    (item,) = found["h.0.attn.c_proj.weight"].updates
    assert isinstance(item, Scale)
    assert item.factors.shape == columns.shape
    (bias,) = found["h.0.attn.c_proj.bias"].updates
    assert isinstance(bias, Scale)
    np.testing.assert_array_equal(bias.factors, rows[:, 0].astype(np.float64))


# -- A4: codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weight_scale_inv", "weight_scale", "SCB"])
def test_a4_nothing_is_added_to_codes(tmp_path: Path, name: str) -> None:
    base: Shapes = {"l.q.weight": (8, 6), f"l.q.{name}": (8,), "l.up.weight": (8, 6)}
    dtypes = {"l.q.weight": "f8_e4m3"}
    with pytest.raises(UsageError, match=rf"l\.q\.weight cannot be updated: .* in l\.q\.{name}"):
        steps(tmp_path, base, lora("l.q", 8, 6), dtypes=dtypes)
    (tmp_path / "more").mkdir()
    with pytest.raises(UsageError, match=r"l\.q\.weight cannot be updated"):
        steps(tmp_path / "more", base, {"l.q.weight": noise(8, 6)} | lora("l.up", 8, 6), dtypes=dtypes)
    (tmp_path / "plain").mkdir()
    assert steps(tmp_path / "plain", base, lora("l.up", 8, 6), dtypes=dtypes)


# -- A5: ties -----------------------------------------------------------------------------------

TIED: Shapes = {"model.embed_tokens.weight": (20, 8), "model.layers.0.q.weight": (8, 8)}
UNTIED = TIED | {"lm_head.weight": (20, 8)}
EMBEDDING = {"model.embed_tokens.weight": noise(20, 8, seed=8)}
TABLE = {
    "model.embed_tokens.lora_embedding_A": noise(2, 20, seed=1),
    "model.embed_tokens.lora_embedding_B": noise(8, 2, seed=2),
}
HEAD_ALIKE = {
    "lm_head.lora_A.weight": np.ascontiguousarray(TABLE["model.embed_tokens.lora_embedding_B"].T),
    "lm_head.lora_B.weight": np.ascontiguousarray(TABLE["model.embed_tokens.lora_embedding_A"].T),
}
OTHER_HEAD = {"lm_head.weight": noise(20, 8, seed=9)}
CONFIG = {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize("config", [CONFIG, {"text_config": CONFIG}, {"architectures": ["GPT2LMHeadModel"]}])
def test_a5_config_json_says_what_is_tied(config: dict[str, Any]) -> None:
    found = tied_weights.find(config, TIED)
    assert found == TiedWeights(("model.embed_tokens", "lm_head"), certain=True)


def test_a5_what_is_not_tied_and_what_nobody_knows() -> None:
    assert tied_weights.find({"tie_word_embeddings": False}, TIED).modules == ()
    assert tied_weights.find({}, UNTIED).modules == ()
    assert tied_weights.find({"architectures": ["LlamaModel"]}, TIED).modules in ((), ("model.embed_tokens",))
    assert tied_weights.find({}, TIED) == TiedWeights(("model.embed_tokens", "lm_head"), certain=False)
    assert tied_weights.find({}, {"q.weight"}) == TiedWeights()
    assert tied_weights.find(CONFIG, UNTIED).modules == ("model.embed_tokens", "lm_head")


def test_a5_the_shared_embedding_of_t5() -> None:
    names = ["shared.weight", "encoder.block.0.q.weight"]
    copies = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    assert tied_weights.find({"tie_word_embeddings": False}, [*names, "lm_head.weight"]).modules == copies
    assert tied_weights.find({"architectures": ["T5ForConditionalGeneration"]}, names).modules == (
        *copies,
        "lm_head",
    )


@pytest.mark.parametrize("base", [TIED, UNTIED])
@pytest.mark.parametrize(
    "tensors", [EMBEDDING, TABLE, HEAD_ALIKE, EMBEDDING | {"lm_head.weight": noise(20, 8, seed=9)}]
)
def test_a5_one_of_two_tied_modules_is_not_changed_alone(
    tmp_path: Path, base: Shapes, tensors: Mapping[str, Array]
) -> None:
    """A loader would tie them again, and change both or lose the change."""
    with pytest.raises(UsageError, match=r"model\.embed_tokens and lm_head are tied"):
        steps(tmp_path, base, dict(tensors) | lora("model.layers.0.q", 8, 8), tied_weights.find(CONFIG, base))


def test_a5_equal_changes_of_both_are_one(tmp_path: Path) -> None:
    whole = steps(
        tmp_path,
        TIED,
        EMBEDDING | {"lm_head.weight": noise(20, 8, seed=8)} | lora("model.layers.0.q", 8, 8),
        tied_weights.find(CONFIG, TIED),
    )
    assert isinstance(whole["model.embed_tokens.weight"].updates[0], Whole)
    (tmp_path / "more").mkdir()
    thin = steps(tmp_path / "more", TIED, TABLE | HEAD_ALIKE, tied_weights.find(CONFIG, TIED))
    assert sorted(thin) == ["model.embed_tokens.weight"]


def test_a5_an_adapter_that_keeps_the_tie_is_for_both(tmp_path: Path) -> None:
    tensors = EMBEDDING | lora("model.layers.0.q", 8, 8)
    found = steps(tmp_path, TIED, tensors, tied_weights.find(CONFIG, TIED), ensure_weight_tying=True)
    assert "model.embed_tokens.weight" in found


def test_b4_experts_that_no_target_names_are_refused(tmp_path: Path) -> None:
    base: Shapes = {
        "l.block_sparse_moe.gate.weight": (4, 8),
        "l.block_sparse_moe.experts.0.w1.weight": (6, 8),
    }
    tensors = lora("l.mlp.gate", 4, 8) | lora("l.mlp.experts.base_layer", 6, 8)
    with pytest.raises(
        UsageError, match=r"l\.mlp\.experts.* names no tensor \(experts and routers"
    ) as caught:
        steps(tmp_path, base, tensors)
    assert "l.mlp.gate" not in str(caught.value)


# -- in a repository -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A tied model with its configuration, and one with a head."""
    repo = Repo.create(tmp_path_factory.mktemp("fitting") / "repo")
    repo.theta("track", "*.safetensors")
    for folder, shapes in (("tied", TIED), ("untied", UNTIED), ("unsaid", TIED)):
        make_model(repo.path / folder / "model.safetensors", model(shapes))
    (repo.path / "tied/config.json").write_text(json.dumps(CONFIG))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "models")
    return repo


def model(shapes: Shapes) -> dict[str, Array]:
    return {name: noise(*shape, seed=number) for number, (name, shape) in enumerate(shapes.items())}


def bring(repo: Repo, folder: str, place: Path) -> Added:
    return updating.update(Session.here(repo.path), f"{folder}/model.safetensors", None, place)


@pytest.mark.parametrize("retrained", [False, True])
def test_b1_a_head_in_low_rank_on_the_head_that_peft_saves_too(
    repo: Repo, tmp_path: Path, retrained: bool
) -> None:
    """PEFT saves the layer below as well: the new value first, and then the factors."""
    below = noise(20, 8, seed=30) if retrained else model(UNTIED)["lm_head.weight"]
    factors = lora("lm_head", 20, 8, seed=20)
    place = adapter(tmp_path / "a", factors | {"lm_head.base_layer.weight": below})
    done = bring(repo, "untied", place)
    found = read_model(repo.path / "untied/model.safetensors")["lm_head.weight"]
    wanted = below + factors["lm_head.lora_B.weight"] @ factors["lm_head.lora_A.weight"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert done.new == ("lm_head.weight",)
    repo.git("reset", "-q", "--hard")


def test_a5_the_configuration_beside_the_file_is_read(repo: Repo, tmp_path: Path) -> None:
    place = adapter(tmp_path / "a", EMBEDDING | lora("model.layers.0.q", 8, 8))
    before = (repo.path / "tied/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="are tied"):
        bring(repo, "tied", place)
    assert (repo.path / "tied/model.safetensors").read_bytes() == before
    assert repo.git("status", "--porcelain") == ""


def test_a5_where_no_configuration_says_it_the_user_is_told(repo: Repo, tmp_path: Path) -> None:
    place = adapter(tmp_path / "a", EMBEDDING | lora("model.layers.0.q", 8, 8))
    told = repo.theta("add", "--update-data", str(place), "unsaid/model.safetensors")
    assert "no config.json says whether the head is tied" in told.stderr
    repo.git("reset", "-q", "--hard")
