"""The model of ``theta demo``: transformer-shaped, made from a seed, changed as people change models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theta import _fs
from theta._numpy import np
from theta.formats import TensorSpec, safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[Any]]

VOCABULARY, WIDTH, HIDDEN, LAYERS, SPARE = 6000, 384, 1024, 4, 400


def make(seed: int = 7) -> Weights:
    """Return about 23 MB of bf16 weights, scaled as initialisers and training leave them."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for part in "qkvo":
            shapes[f"{prefix}.self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (HIDDEN, WIDTH)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        shapes[f"{prefix}.input_layernorm.weight"] = (WIDTH,)
    return {name: _bf16(rng.normal(1.0 if len(s) == 1 else 0.0, 0.02, s)) for name, s in shapes.items()}


def _bf16(values: NDArray[np.floating[Any]]) -> NDArray[Any]:
    import ml_dtypes

    return values.astype("f4").astype(ml_dtypes.bfloat16)


def with_lora(weights: Weights, rank: int = 8, seed: int = 11) -> Weights:
    """Merge a rank-``rank`` LoRA on the query and value projections into the weights."""
    rng = np.random.default_rng(seed)

    def merged(value: NDArray[Any]) -> NDArray[Any]:
        up, down = rng.normal(0, 0.02, (value.shape[0], rank)), rng.normal(0, 0.02, (rank, value.shape[1]))
        return _bf16(value.astype("f4") + (up @ down).astype("f4"))

    return _changed(weights, lambda name: name.endswith(("q_proj.weight", "v_proj.weight")), merged)


def fine_tuned(weights: Weights, seed: int, part: str = "") -> Weights:
    """Fine-tune densely: a small step in every weight whose name contains ``part``."""
    rng = np.random.default_rng(seed)

    def stepped(value: NDArray[Any]) -> NDArray[Any]:
        return _bf16(value.astype("f4") + rng.normal(0, 2e-5, value.shape).astype("f4"))

    return _changed(weights, lambda name: part in name, stepped)


def trimmed(weights: Weights) -> Weights:
    """Return ``weights`` without the last embedding rows, which no token uses."""
    return _changed(weights, lambda name: "embed_tokens" in name, lambda value: value[: VOCABULARY - SPARE])


def _changed(
    weights: Weights, chosen: Callable[[str], bool], change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Weights:
    return {name: change(value) if chosen(name) else value for name, value in weights.items()}


def save(path: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write ``weights`` as a safetensors file, as its own library lays one out."""
    specs = [TensorSpec(name, "bf16", value.shape) for name, value in weights.items()]
    header, order = safetensors.plan(specs, {"format": "pt"})
    with _fs.AtomicFile(path, durable=False) as file:
        file.write(header)
        for name in order:
            file.write(weights[name].tobytes())
