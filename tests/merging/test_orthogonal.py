"""``theta merge --align orthogonal``: what a Llama computes stays; one that was turned comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.inprocess import theta
from tests.support import Repo, make_model, read_model

Array = NDArray[Any]
Model = dict[str, Array]
MODEL = "m.safetensors"
TOKENS, WIDTH, INNER, LAYERS, HEADS, KEYS, SIZE = 13, 16, 20, 2, 4, 2, 4
CONFIG = {"model_type": "llama", "num_attention_heads": HEADS, "num_key_value_heads": KEYS}


def llama(seed: int) -> Model:
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (TOKENS, WIDTH), "lm_head": (TOKENS, WIDTH)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        shapes |= {
            f"{block}.self_attn.q_proj": (HEADS * SIZE, WIDTH),
            f"{block}.self_attn.k_proj": (KEYS * SIZE, WIDTH),
            f"{block}.self_attn.v_proj": (KEYS * SIZE, WIDTH),
            f"{block}.self_attn.o_proj": (WIDTH, HEADS * SIZE),
            f"{block}.mlp.gate_proj": (INNER, WIDTH),
            f"{block}.mlp.up_proj": (INNER, WIDTH),
            f"{block}.mlp.down_proj": (WIDTH, INNER),
        }
    found = {f"{name}.weight": random.normal(size=shape) * 0.3 for name, shape in shapes.items()}
    norms = [f"model.layers.{n}.{k}_layernorm" for n in range(LAYERS) for k in ("input", "post_attention")]
    found |= {f"{name}.weight": random.uniform(0.5, 2, WIDTH) for name in ("model.norm", *norms)}
    return {name: one.astype("<f4") for name, one in found.items()}


def norm(values: Array, gains: Array) -> Array:
    found: Array = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-6) * gains
    return found


def rotated(values: Array) -> Array:
    """Positions turn value n with value n + SIZE / 2, as in transformers; shape (..., length, SIZE)."""
    angles = np.arange(values.shape[-2])[:, None] / 10.0 ** np.arange(SIZE // 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    first, second = values[..., : SIZE // 2], values[..., SIZE // 2 :]
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], -1)


def computed(model: Model, tokens: Array) -> Array:
    """The scores of a Llama, as transformers computes them."""
    weights = {name.removesuffix(".weight"): one.astype(np.float64) for name, one in model.items()}
    stream, length = weights["model.embed_tokens"][tokens], len(tokens)
    for layer in range(LAYERS):
        own = {key.partition(f"layers.{layer}.")[2]: one for key, one in weights.items()}
        values = norm(stream, own["input_layernorm"])
        parts = [
            (values @ own[f"self_attn.{one}_proj"].T).reshape(length, -1, SIZE).swapaxes(0, 1)
            for one in "qkv"
        ]
        query, key, value = (np.repeat(one, HEADS // len(one), 0) for one in parts)
        scores = rotated(query) @ rotated(key).swapaxes(1, 2) / SIZE**0.5
        scores += np.triu(np.full((length, length), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        stream = stream + mixed.swapaxes(0, 1).reshape(length, -1) @ own["self_attn.o_proj"].T
        values = norm(stream, own["post_attention_layernorm"])
        gate = values @ own["mlp.gate_proj"].T
        inner = gate / (1 + np.exp(-gate)) * (values @ own["mlp.up_proj"].T)
        stream = stream + inner @ own["mlp.down_proj"].T
    found: Array = norm(stream, weights["model.norm"]) @ weights["lm_head"].T
    return found


def orthogonal(random: np.random.Generator, size: int) -> Array:
    found: Array = np.linalg.qr(random.normal(size=(size, size)))[0]
    return found


def turned(model: Model, seed: int) -> Model:
    """The same function in other directions: stream, heads, values, units, signs and gains."""
    random = np.random.default_rng(seed)
    found = {name: one.astype(np.float64) for name, one in model.items()}
    stream = orthogonal(random, WIDTH)

    def behind(norm_name: str, *names: str) -> None:
        gains = random.uniform(0.5, 2, WIDTH)
        for name in names:
            found[name] = found[name] * found[norm_name] @ stream.T / gains
        found[norm_name] = gains

    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        query, key, value, output = (f"{block}.self_attn.{one}_proj.weight" for one in "qkvo")
        gate, up, down = (f"{block}.mlp.{one}_proj.weight" for one in ("gate", "up", "down"))
        found[output], found[down] = stream @ found[output], stream @ found[down]
        behind(f"{block}.input_layernorm.weight", query, key, value)
        behind(f"{block}.post_attention_layernorm.weight", gate, up)
        units, signs = random.permutation(INNER), random.choice([-1, 1], INNER)
        found[gate], found[up] = found[gate][units], found[up][units] * signs[:, None]
        found[down] = found[down][:, units] * signs
        angle, inside = random.uniform(-1, 1, SIZE // 2), orthogonal(random, SIZE)
        cosines, sines = np.diag(np.cos(angle)), np.diag(np.sin(angle))
        spin = np.block([[cosines, -sines], [sines, cosines]])
        heads = random.permutation(KEYS)
        for name, turn in ((key, spin), (value, inside)):
            found[name] = (turn @ found[name].reshape(KEYS, SIZE, WIDTH))[heads].reshape(-1, WIDTH)
        groups = (KEYS, HEADS // KEYS, SIZE, WIDTH)
        found[query] = (spin @ found[query].reshape(groups))[heads][:, ::-1].reshape(-1, WIDTH)
        found[output] = (inside @ found[output].T.reshape(groups))[heads][:, ::-1].reshape(-1, WIDTH).T
    behind("model.norm.weight", "lm_head.weight")
    found["model.embed_tokens.weight"] = found["model.embed_tokens.weight"] @ stream.T
    return {name: np.ascontiguousarray(one.astype("<f4")) for name, one in found.items()}


def merged(place: Path, ours: Model, theirs: Model, *options: str, **config: Any) -> Repo:
    repo = Repo.create(place / "repo")
    theta(repo, "track", "*.safetensors")
    repo.write("config.json", json.dumps({**CONFIG, **config}))
    for branch, model in (("base", ours), ("other", theirs)):
        repo.git("switch", "-q", "-c", branch)
        make_model(repo.path / MODEL, model)
        theta(repo, "add", ".")
        theta(repo, "commit", "-qm", branch)
    repo.git("switch", "-q", "base")
    make_model(repo.path / MODEL, {name: one * np.float32(1.0001) for name, one in ours.items()})
    theta(repo, "commit", "-qam", "ours")
    theta(repo, "merge", "other", "--align", "orthogonal", *options, code=None)
    return repo


TEXT = np.array([1, 5, 3, 3, 12, 0, 7])


def test_the_turned_model_computes_the_same(tmp_path: Path) -> None:
    """The helpers of this test are right: the model in other directions has the same scores."""
    model = llama(0)
    assert np.abs(computed(turned(model, 1), TEXT) - computed(model, TEXT)).max() < 1e-4


def test_a_model_that_was_only_turned_comes_back(tmp_path: Path) -> None:
    ours = llama(0)
    repo = merged(tmp_path, ours, turned(ours, 1), "-X", "average")
    found = read_model(repo.path / MODEL)
    assert max(np.abs(found[name] - ours[name]).max() for name in ours) < 2e-3
    theta(repo, "merge", "--replay", "HEAD")
    assert "--align orthogonal" in repo.git("log", "-1", "--format=%B")


def test_what_another_model_computes_is_left_as_it_is(tmp_path: Path) -> None:
    ours, theirs = llama(0), llama(1)
    repo = merged(tmp_path, ours, theirs, "-X", "theirs")
    found = read_model(repo.path / MODEL)
    assert np.abs(computed(found, TEXT) - computed(theirs, TEXT)).max() < 1e-4
    assert np.allclose(found["model.norm.weight"], ours["model.norm.weight"], rtol=1e-3)
    own, before, after = (
        np.concatenate([one[n].ravel() for n in sorted(ours)]) for one in (ours, theirs, found)
    )
    assert own @ after / np.linalg.norm(after) > own @ before / np.linalg.norm(before)


@pytest.mark.parametrize(
    ("change", "config", "told"),
    [
        ({}, {"model_type": "gemma"}, "model_type llama or mistral"),
        ({}, {"num_attention_heads": 3, "num_key_value_heads": 3}, "not the shapes of a Llama"),
        (
            {"model.layers.0.self_attn.q_proj.bias": np.ones(16, "<f4")},
            {},
            "no model.layers.0.self_attn.q_proj.bias",
        ),
        ({"lm_head.weight": None}, {}, "no tied weights"),
        ({"model.layers.1.mlp.up_proj.weight": None}, {}, "is missing"),
        ({"model.norm.weight": np.zeros(WIDTH, "<f4")}, {}, "gain of a norm of ours is zero"),
        ({"lm_head.weight": np.full((TOKENS, WIDTH), np.nan, "<f4")}, {}, "no number"),
    ],
)
def test_other_models_are_refused(
    tmp_path: Path, change: dict[str, Any], config: dict[str, Any], told: str
) -> None:
    ours, theirs = (
        {name: one for name, one in {**llama(n), **change}.items() if one is not None} for n in (0, 1)
    )
    repo = merged(tmp_path, ours, theirs, "-X", "average", **config)
    done = theta(repo, "merge", "other", "--align", "orthogonal", "-X", "average", code=None)
    assert done.code not in (0, 1)
    assert told in done.err
