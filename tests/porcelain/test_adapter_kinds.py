"""Adapters of every kind that PEFT writes, beside the formulas of its merge in numpy.

``bench/peft_check.py`` compares with PEFT itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import Repo, make_model, read_model
from theta.errors import UsageError
from theta.porcelain.stage import updating
from theta.porcelain.stage.staging import Added
from theta.porcelain.workspace.session import Session

Array = NDArray[Any]
WIDTH, INNER, TOKENS, EXPERTS, RANK = 8, 6, 12, 3, 2
LORA: Mapping[str, Any] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 3}
SCALE = 3 / RANK
SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    "model.q.weight": (16, WIDTH),
    "model.q.bias": (16,),
    "model.conv.weight": (4, 3, 3, 3),
    "model.c_attn.weight": (WIDTH, 24),
    "model.c_attn.bias": (24,),
    **{f"model.block_sparse_moe.experts.{n}.w1.weight": (INNER, WIDTH) for n in range(EXPERTS)},
    **{f"model.block_sparse_moe.experts.{n}.w2.weight": (WIDTH, INNER) for n in range(EXPERTS)},
    **{f"model.block_sparse_moe.experts.{n}.w3.weight": (INNER, WIDTH) for n in range(EXPERTS)},
    "model.block_sparse_moe.gate.weight": (EXPERTS, WIDTH),
    "fused.mlp.experts.gate_up_proj": (EXPERTS, WIDTH, 2 * WIDTH),
    "fused.mlp.experts.down_proj": (EXPERTS, WIDTH, WIDTH),
    "lm_head.weight": (TOKENS, WIDTH),
}
"""A model with a bit of everything; of the fused experts, (in, out), the down projection is square."""


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One repository with the model; tests put it back."""
    repo = Repo.create(tmp_path_factory.mktemp("kinds") / "repo")
    repo.theta("track", "*.safetensors")
    tensors = {name: noise(*shape, seed=n) for n, (name, shape) in enumerate(SHAPES.items())}
    make_model(repo.path / "model.safetensors", tensors)
    (repo.path / "config.json").write_text('{"tie_word_embeddings": false}')
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-m", "model")
    return repo


@pytest.fixture
def base(committed: Repo) -> Iterator[Repo]:
    yield committed
    committed.git("reset", "-q", "--hard")


def bring(repo: Repo, place: Path, tensors: Mapping[str, Array], **config: Any) -> Added:
    """Add an adapter as PEFT writes it."""
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(dict(LORA) | config))
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    make_model(place / "adapter_model.safetensors", named)
    return updating.update(Session.here(repo.path), "model.safetensors", None, place)


def changed(repo: Repo, place: Path, tensors: Mapping[str, Array], **config: Any) -> dict[str, Array]:
    """Return the tensors that the adapter changed or added; the staged version restores to the same."""
    file = repo.path / "model.safetensors"
    old = read_model(file)
    bring(repo, place, tensors, **config)
    data, new = file.read_bytes(), read_model(file)
    file.unlink()
    repo.theta("restore", "model.safetensors")
    assert file.read_bytes() == data
    return {
        name: value for name, value in new.items() if value.tobytes() != old.get(name, value[:0]).tobytes()
    }


def before(repo: Repo, name: str) -> Array:
    return noise(*SHAPES[name], seed=list(SHAPES).index(name)).astype(np.float64)


def factors(module: str, rows: int, columns: int, seed: int = 1) -> tuple[dict[str, Array], Array]:
    """Factors as PEFT names them, and their scaled product."""
    a, b = noise(RANK, columns, seed=seed), noise(rows, RANK, seed=seed + 1)
    product = SCALE * b.astype(np.float64) @ a.astype(np.float64)
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}, product


def near(found: Array, wanted: Array) -> None:
    """The wanted values, rounded to f32."""
    np.testing.assert_array_almost_equal_nulp(found, wanted.astype(np.float32), 1)


# -- C6: DoRA, biases, tokens --------------------------------------------------------------------


def test_c6_dora_gives_each_output_its_magnitude(base: Repo, tmp_path: Path) -> None:
    """The sum is ``m (W + s B A) / ||W + s B A||`` per output: DoRA, 2402.09353, equation 5."""
    tensors, product = factors("model.q", 16, WIDTH)
    norms = np.abs(noise(16, seed=5))
    found = changed(base, tmp_path / "a", tensors | {"model.q.lora_magnitude_vector": norms}, use_dora=True)
    total = before(base, "model.q.weight") + product
    near(found["model.q.weight"], norms[:, None] * total / np.linalg.norm(total, axis=1, keepdims=True))
    assert list(found) == ["model.q.weight"]


def test_c6_dora_of_a_transposed_matrix_an_embedding_and_a_convolution(base: Repo, tmp_path: Path) -> None:
    attn, product = factors("model.c_attn", 24, WIDTH)
    a, b = noise(RANK, TOKENS, seed=3), noise(WIDTH, RANK, seed=4)
    c, d = noise(RANK, 3, 3, 3, seed=6), noise(4, RANK, 1, 1, seed=7)
    norms = {24: np.abs(noise(24)), WIDTH: np.abs(noise(WIDTH)), 4: np.abs(noise(4))}
    tensors = attn | {
        "model.c_attn.lora_magnitude_vector": norms[24],
        "model.embed_tokens.lora_embedding_A": a,
        "model.embed_tokens.lora_embedding_B": b,
        "model.embed_tokens.lora_magnitude_vector": norms[WIDTH],
        "model.conv.lora_A.weight": c,
        "model.conv.lora_B.weight": d,
        "model.conv.lora_magnitude_vector": norms[4].reshape(1, 4, 1, 1),
    }
    found = changed(base, tmp_path / "a", tensors, use_dora=True)
    total = before(base, "model.c_attn.weight") + product.T
    near(found["model.c_attn.weight"], norms[24] * total / np.linalg.norm(total, axis=0))
    total = before(base, "model.embed_tokens.weight") + SCALE * a.T.astype("f8") @ b.T
    near(found["model.embed_tokens.weight"], norms[WIDTH] * total / np.linalg.norm(total, axis=0))
    total = before(base, "model.conv.weight").reshape(4, -1) + SCALE * d.reshape(4, RANK).astype("f8") @ (
        c.reshape(RANK, -1)
    )
    scaled = norms[4][:, None] * total / np.linalg.norm(total, axis=1, keepdims=True)
    near(found["model.conv.weight"].reshape(4, -1), scaled)


def test_c6_a_bias_of_lora_b_is_scaled_and_added(base: Repo, tmp_path: Path) -> None:
    tensors, product = factors("model.q", 16, WIDTH)
    bias = noise(16, seed=8)
    found = changed(base, tmp_path / "a", tensors | {"model.q.lora_B.bias": bias}, lora_bias=True)
    near(found["model.q.weight"], before(base, "model.q.weight") + product)
    near(found["model.q.bias"], before(base, "model.q.bias") + SCALE * bias.astype("f8"))


def test_c6_a_bias_that_is_replaced_and_added_to(base: Repo, tmp_path: Path) -> None:
    """``bias="all"`` saves the base's bias, and ``lora_bias`` adds to it."""
    tensors, _ = factors("model.q", 16, WIDTH)
    bias, whole = noise(16, seed=8), noise(16, seed=9)
    tensors |= {"model.q.lora_B.bias": bias, "model.q.base_layer.bias": whole}
    found = changed(base, tmp_path / "a", tensors, lora_bias=True, bias="all")
    near(found["model.q.bias"], whole + SCALE * bias.astype("f8"))


@pytest.mark.parametrize("tokens", [[7, 2], {"embed_tokens": [7, 2]}])
def test_c6_single_tokens_are_replaced(base: Repo, tmp_path: Path, tokens: Any) -> None:
    rows = noise(2, WIDTH, seed=3)
    tensors = {"model.embed_tokens.token_adapter.trainable_tokens_delta": rows}
    found = changed(base, tmp_path / "a", tensors, trainable_token_indices=tokens)
    wanted = before(base, "model.embed_tokens.weight")
    wanted[[7, 2]] = rows
    assert list(found) == ["model.embed_tokens.weight"]
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], wanted.astype(np.float32))


def test_c6_rank_and_alpha_of_single_modules(base: Repo, tmp_path: Path) -> None:
    tensors, product = factors("model.q", 16, WIDTH)
    patterns = {"r": 4, "rank_pattern": {"q": RANK}, "alpha_pattern": {"model.q": 5}, "use_rslora": True}
    found = changed(base, tmp_path / "a", tensors, **patterns)
    near(found["model.q.weight"], before(base, "model.q.weight") + product / SCALE * 5 / RANK**0.5)


# -- B4: experts ---------------------------------------------------------------------------------


def of_experts(module: str, out: int, inner: int, seed: int = 1) -> tuple[dict[str, Array], list[Array]]:
    """Factors of all experts as PEFT stacks them, and the scaled product of each."""
    a, b = noise(EXPERTS * RANK, inner, seed=seed), noise(out, RANK * EXPERTS, seed=seed + 1)
    by_expert = a.reshape(EXPERTS, RANK, inner).astype("f8")
    products = np.einsum("ore,eri->eoi", b.reshape(out, RANK, EXPERTS).astype("f8"), by_expert)
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}, list(SCALE * products)


TARGETS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("inner", [TARGETS, TARGETS[::-1]])
def test_b4_experts_that_a_file_has_one_by_one(base: Repo, tmp_path: Path, inner: list[str]) -> None:
    """Modules in memory join what Mixtral's file has as w1, w3, w2; either wrapper may be the inner one."""
    sizes = {TARGETS[0]: (2 * INNER, WIDTH), TARGETS[1]: (WIDTH, INNER)}
    first, both = of_experts("model.mlp.experts.base_layer", *sizes[inner[0]])
    second, other = of_experts("model.mlp.experts", *sizes[inner[1]], seed=5)
    gate, product = factors("model.mlp.gate", EXPERTS, WIDTH, seed=9)
    targets = [*TARGETS, "mlp.gate.weight"]
    found = changed(base, tmp_path / "a", first | second | gate, target_parameters=targets)
    up, down = (both, other) if inner == TARGETS else (other, both)
    place = "model.block_sparse_moe"
    for number in range(EXPERTS):
        parts = {"w1": up[number][:INNER], "w3": up[number][INNER:], "w2": down[number]}
        for part, added in parts.items():
            name = f"{place}.experts.{number}.{part}.weight"
            near(found[name], before(base, name) + added)
    near(found[f"{place}.gate.weight"], before(base, f"{place}.gate.weight") + product)
    assert len(found) == 3 * EXPERTS + 1


def test_b4_the_renaming_is_shown(base: Repo, tmp_path: Path) -> None:
    tensors, _ = factors("model.mlp.gate", EXPERTS, WIDTH)
    added = bring(base, tmp_path / "a", tensors, target_parameters=["mlp.gate.weight"])
    assert "model.mlp.gate is model.block_sparse_moe.gate.weight" in added.warning


def test_b4_experts_in_one_tensor(base: Repo, tmp_path: Path) -> None:
    """gpt-oss has (in, out); the square down projection lies as the other one does."""
    both, up = of_experts("fused.mlp.experts.base_layer", 2 * WIDTH, WIDTH)
    other, down = of_experts("fused.mlp.experts", WIDTH, WIDTH, seed=5)
    found = changed(base, tmp_path / "a", both | other, target_parameters=TARGETS)
    for name, products in (("gate_up_proj", up), ("down_proj", down)):
        name = f"fused.mlp.experts.{name}"
        near(found[name], before(base, name) + np.swapaxes(np.array(products), 1, 2))


@pytest.mark.parametrize(
    ("count", "targets"),
    [(EXPERTS - 1, TARGETS[:1]), (EXPERTS + 1, TARGETS[:1]), (EXPERTS, ["mlp.experts.other"])],
)
def test_b4_experts_that_do_not_fit_are_refused(
    base: Repo, tmp_path: Path, count: int, targets: list[str]
) -> None:
    tensors = {
        "model.mlp.experts.lora_A.weight": noise(count * RANK, WIDTH),
        "model.mlp.experts.lora_B.weight": noise(2 * INNER, count * RANK),
    }
    with pytest.raises(UsageError, match="fit none of the file"):
        bring(base, tmp_path / "a", tensors, target_parameters=targets)
    assert base.git("status", "--porcelain") == ""


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["_orig_mod.model.q", "module.model.q", "model._fsdp_wrapped_module.q", "model.language_model.q", "q"],
)
def test_names_that_wrappers_changed(base: Repo, tmp_path: Path, name: str) -> None:
    tensors, product = factors(name, 16, WIDTH)
    found = changed(base, tmp_path / "a", tensors)
    near(found["model.q.weight"], before(base, "model.q.weight") + product)


# -- C4, C5: rows and tensors ----------------------------------------------------------------------


def test_c4_more_tokens_than_the_base_has(base: Repo, tmp_path: Path) -> None:
    """PEFT saves resized embeddings in full, and may have factors for them too."""
    rows, head = noise(TOKENS + 2, WIDTH, seed=5), noise(TOKENS + 2, WIDTH, seed=6)
    a, b = noise(RANK, TOKENS + 2, seed=7), noise(WIDTH, RANK, seed=8)
    tensors = {
        "model.embed_tokens.base_layer.weight": rows,
        "model.embed_tokens.lora_embedding_A": a,
        "model.embed_tokens.lora_embedding_B": b,
        "lm_head.weight": head,
    }
    found = changed(base, tmp_path / "a", tensors)
    near(found["model.embed_tokens.weight"], rows + SCALE * a.T.astype("f8") @ b.T)
    np.testing.assert_array_equal(found["lm_head.weight"], head)
    base.theta("commit", "-q", "-m", "grown")
    try:
        base.theta("fsck", "--read-data")
        assert base.git("status", "--porcelain") == ""
    finally:
        base.git("reset", "-q", "--hard", "HEAD~1")


def test_c4_the_configuration_is_named(base: Repo, tmp_path: Path) -> None:
    tensors, _ = factors("model.q", 16, WIDTH)
    tensors["lm_head.weight"] = noise(TOKENS + 2, WIDTH)
    added = bring(base, tmp_path / "b", tensors, modules_to_save=["lm_head"])
    assert f"lm_head.weight has {TOKENS + 2} rows now" in added.warning


def test_c5_a_head_that_the_base_lacks_is_added(base: Repo, tmp_path: Path) -> None:
    tensors, product = factors("model.q", 16, WIDTH)
    head = {"score.weight": noise(2, WIDTH, seed=3), "score.bias": noise(2, seed=4)}
    found = changed(base, tmp_path / "a", tensors | head, modules_to_save=["score"])
    near(found["model.q.weight"], before(base, "model.q.weight") + product)
    for name, value in head.items():
        np.testing.assert_array_equal(found[name], value)
    assert len(found) == 3


def test_c5_a_tensor_that_nothing_says_is_new_is_refused(base: Repo, tmp_path: Path) -> None:
    tensors, _ = factors("model.q", 16, WIDTH)
    with pytest.raises(UsageError, match=r"score\.weight names no tensor"):
        bring(base, tmp_path / "a", tensors | {"score.weight": noise(2, WIDTH)})
    with pytest.raises(UsageError, match=r"model\.q\.bias is \[16\]"):
        bring(base, tmp_path / "b", tensors | {"model.q.bias": noise(17)})


BROKEN: list[tuple[dict[str, Any], dict[str, Array]]] = [
    ({"use_dora": True}, {}),
    ({}, {"model.q.lora_magnitude_vector": noise(16)}),
    ({"use_dora": True}, {"model.q.lora_magnitude_vector": noise(17)}),
    ({"lora_bias": True}, {"model.q.lora_B.bias": noise(15)}),
    (
        {"trainable_token_indices": [1]},
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": noise(2, WIDTH)},
    ),
    (
        {"trainable_token_indices": [TOKENS, 1]},
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": noise(2, WIDTH)},
    ),
    (
        {"trainable_token_indices": [2, 1]},
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": noise(2, WIDTH + 1)},
    ),
]


@pytest.mark.parametrize(("config", "more"), BROKEN)
def test_what_an_adapter_lacks_or_has_too_much_of_is_refused(
    base: Repo, tmp_path: Path, config: dict[str, Any], more: dict[str, Array]
) -> None:
    tensors, _ = factors("model.q", 16, WIDTH)
    with pytest.raises(UsageError):
        bring(base, tmp_path / "a", tensors | more, **config)
    assert base.git("status", "--porcelain") == ""
