"""Recipes with the keys of each file of mergekit's examples, run by ``theta merge --recipe --dry-run``.

Their text is not copied: models, numbers and names are others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.compat.inprocess import merge_recipe, theta
from tests.support import Repo, make_model

MODEL = "model.safetensors"
LAYERS, WIDTH = 4, 4

ACCEPTED = {
    "bio-merge": """
models:
  - model: tuned
    parameters: {density: 0.6, weight: 0.4}
  - model: other
    parameters: {density: 0.7, weight: 0.3}
merge_method: ties
base_model: main
parameters:
  normalize: false
  int8_mask: true
dtype: float16
""",
    "gradient-slerp": """
slices:
  - sources:
      - {model: tuned, layer_range: [0, 4]}
      - {model: other, layer_range: [0, 4]}
merge_method: slerp
base_model: tuned
parameters:
  t:
    - filter: self_attn
      value: [0, 0.4, 1]
    - filter: mlp
      value: [1, 0.6, 0]
    - value: 0.3
dtype: float16
""",
    "linear": """
models:
  - model: main
    parameters: {weight: 1.0}
  - model: tuned
    parameters: {weight: 0.2}
  - model: other
    parameters: {weight: 0.7}
merge_method: linear
dtype: float16
""",
    "mega": """
slices:
  - sources:
      - {model: tuned, layer_range: [0, 4]}
      - {model: other, layer_range: [0, 4]}
merge_method: slerp
base_model: tuned
parameters:
  t:
    - filter: self_attn
      value: [0, 1]
    - value: 0.5
dtype: float16
out_path: ./out/first
---
models:
  - model: ./out/first
    parameters:
      density: [1, 0.6, 0.2]
      weight: 1.0
  - model: third
    parameters:
      density: 0.4
      weight:
        - filter: mlp
          value: 0.6
        - value: 0
merge_method: ties
base_model: main
parameters:
  normalize: true
  int8_mask: true
dtype: float16
out_path: ./out/second
""",
    "orcamini-platy-44layer": """
slices:
  - sources: [{model: tuned, layer_range: [0, 3]}]
  - sources: [{model: other, layer_range: [1, 4]}]
merge_method: passthrough
dtype: float16
""",
    "ties": """
models:
  - model: tuned
    parameters:
      density: [1, 0.6, 0.2]
      weight: 1.0
  - model: other
    parameters:
      density: 0.5
      weight: [0, 0.4, 0.6, 1]
  - model: third
    parameters:
      density: 0.4
      weight:
        - filter: mlp
          value: 0.6
        - value: 0
merge_method: ties
base_model: main
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "arcee_fusion": """
models:
  - model: tuned
  - model: other
merge_method: arcee_fusion
base_model: tuned
dtype: bfloat16
""",
    "gpt2-small": """
slices:
  - sources:
    - {model: main, layer_range: [0, 3]}
merge_method: passthrough
dtype: float16
""",
    "vlm-linear": """
models:
  - model: tuned
    parameters: {weight: 1.0}
  - model: other
    parameters: {weight: 1.0}
merge_method: linear
dtype: float32
""",
    "vlm-ties": """
models:
  - model: tuned
    parameters:
      density: [1, 0.5, 0.2]
      weight: 1.0
  - model: main
    parameters:
      density: 0.5
      weight: [0, 0.4, 0.6, 1]
merge_method: ties
base_model: main
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
}
"""Files of the folder, at any time, whose keys and methods mergekit 0.1.5 has."""

REFUSED = {
    "chipalign": (
        """
models: [{model: tuned}, {model: other}]
merge_method: nuslerp
parameters: {geodesic: true, lambda: 0.4, nuslerp_flatten: true}
tokenizer: {source: union}
dtype: bfloat16
""",
        "nuslerp has no parameter 'geodesic'; nuslerp has no parameter 'lambda'",
    ),
    "cabs": (
        """
models:
  - model: tuned
    parameters: {weight: 0.5, n_val: 4, m_val: 16}
merge_method: cabs
default_n_val: 4
default_m_val: 16
pruning_order: [tuned]
base_model: main
dtype: bfloat16
""",
        "unknown key 'default_n_val'; unknown key 'default_m_val'; unknown key 'pruning_order'; "
        "unknown merge_method 'cabs'",
    ),
    "core_space": (
        "models: [{model: tuned}]\nmerge_method: core_space\n",
        "unknown merge_method 'core_space'",
    ),
    "lrp": ("models: [{model: tuned}]\nmerge_method: lrp\n", "unknown merge_method 'lrp'"),
    "zipit": (
        "models: [{model: tuned}]\nmerge_method: ties\nbase_model: main\nalign_weights: zipit\n",
        "unknown key 'align_weights'",
    ),
    "metrics-small": (
        "models: [{model: tuned}]\nmetric_method: all\nlayer: 1\n",
        "unknown key 'metric_method'; unknown key 'layer'",
    ),
    "whisper-encoder-decoder": (
        "merge_method: encoder_decoder_weighted\n"
        "models: [{model: tuned, parameters: {encoder_weight: 0.5, decoder_weight: 0.4}}]\n",
        "unknown merge_method 'encoder_decoder_weighted'",
    ),
    "whisper-lora-multilingual": (
        "models: [{model: main, lora: a, parameters: {weight: 0.5}}]\nmerge_method: slerp\n",
        "slerp has no parameter 'weight'",
    ),
}
"""Files of branches and other programs: mergekit 0.1.5 has not their methods, or ignores the keys."""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Branches tuned, other and third of a small model with names of Llama."""
    found = Repo.create(tmp_path_factory.mktemp("models") / "repo")
    theta(found, "track", "*.safetensors")
    names = [f"model.layers.{n}.{part}.weight" for n in range(LAYERS) for part in ("self_attn.q", "mlp.up")]
    names += ["model.embed_tokens.weight", "model.norm.weight"]
    for number, branch in enumerate(("main", "tuned", "other", "third")):
        if number:
            theta(found, "switch", "-q", "-c", branch, "main")
        random = np.random.default_rng(number)
        make_model(
            found.path / MODEL,
            {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in names},
        )
        theta(found, "add", ".")
        theta(found, "commit", "-q", "-m", branch)
    theta(found, "switch", "-q", "main")
    return found


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_example_is_run(repo: Repo, name: str) -> None:
    """d_examples: no file of the folder has a key that theta does not follow."""
    told = merge_recipe(repo, ACCEPTED[name], "--dry-run", code=0)
    assert MODEL in told
    assert "unknown" not in told


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_has_not_either_is_refused_all_at_once(repo: Repo, name: str) -> None:
    """d_refused: one error has every key, and nothing is done by halves."""
    recipe, told = REFUSED[name]
    assert told in merge_recipe(repo, recipe, "--dry-run", code=2)
    assert Path(repo.path / MODEL).is_file()
