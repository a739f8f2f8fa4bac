"""The models of bench/run.py and bench/merge.py, written as safetensors files.

A model is written tensor by tensor, so that none is held whole in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BF16 = np.dtype(ml_dtypes.bfloat16)
NUMPY = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BF16}
SIDE, WORDS = 1024, 32000
Shapes = Mapping[str, tuple[int, ...]]
Array = NDArray[Any]


# -- files ----------------------------------------------------------------------------------


def header(specs: Shapes, dtype: str) -> bytes:
    """Return what a safetensors file has before its tensors, which come one after the other."""
    found: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in specs.items():
        end = position + NUMPY[dtype].itemsize * int(np.prod(shape))
        found[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(found).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def stream(path: Path, specs: Shapes, dtype: str, values: Iterable[Array]) -> None:
    """Write a safetensors file whose tensors come one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(header(specs, dtype))
        for array in values:
            out.write(array.astype(NUMPY[dtype]).tobytes())


def read_model(path: Path) -> dict[str, Array]:
    """The tensors of a model, from one file or from shards; mapped."""
    found: dict[str, Array] = {}
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        data = np.memmap(file, np.uint8, "r")
        size = int(data[:8].view("<u8")[0])
        for name, entry in json.loads(data[8 : 8 + size].tobytes()).items():
            if name != "__metadata__":
                start, end = (8 + size + offset for offset in entry["data_offsets"])
                found[name] = data[start:end].view(NUMPY[entry["dtype"]]).reshape(entry["shape"])
    return found


# -- a small Llama --------------------------------------------------------------------------


def shapes(layers: int, side: int = SIDE, words: int = WORDS) -> dict[str, tuple[int, ...]]:
    """The tensors of a small Llama: 24 layers are 375 million parameters."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, side)}
    wide = side * 11 // 4
    for number in range(layers):
        stem = f"model.layers.{number}."
        for name in ("q", "k", "v", "o"):
            found[f"{stem}self_attn.{name}_proj.weight"] = (side, side)
        for name, shape in (("gate", (wide, side)), ("up", (wide, side)), ("down", (side, wide))):
            found[f"{stem}mlp.{name}_proj.weight"] = shape
        found[f"{stem}input_layernorm.weight"] = (side,)
        found[f"{stem}post_attention_layernorm.weight"] = (side,)
    return found | {"model.norm.weight": (side,), "lm_head.weight": (words, side)}


Change = Callable[[str, Array, np.random.Generator], Array]
"""The update of one tensor, in float32."""


def _full(_: str, before: Array, random: np.random.Generator) -> Array:
    return before.astype(np.float32) + random.standard_normal(before.shape, np.float32) * np.float32(4e-4)


def _lora(name: str, before: Array, random: np.random.Generator) -> Array:
    if not name.endswith(("q_proj.weight", "v_proj.weight")):
        return before
    up = random.standard_normal((before.shape[0], 16), np.float32)
    down = random.standard_normal((16, before.shape[1]), np.float32) * np.float32(4.5e-4)
    return np.asarray(before.astype(np.float32) + up @ down)


def _layer(name: str, before: Array, random: np.random.Generator) -> Array:
    return _full(name, before, random) if name.startswith("model.layers.0.") else before


CHANGES: Mapping[str, Change] = {"full": _full, "lora": _lora, "layer": _layer}
"""A full fine-tune moves every weight by about 2 %; a merged LoRA of rank 16 on q and v; one layer."""


def write_llama(path: Path, specs: Shapes, seed: int, base: Path | None = None, change: str = "full") -> None:
    """Write a model in bf16; with ``base`` a changed version of it."""
    random, before = np.random.default_rng(seed), read_model(base) if base else {}
    stream(
        path,
        specs,
        "BF16",
        (
            CHANGES[change](name, before[name], random)
            if base
            else random.standard_normal(shape, np.float32) * np.float32(0.02)
            for name, shape in specs.items()
        ),
    )


def llamas(folder: Path, layers: int, side: int, words: int, changes: str) -> None:
    """A base, and one model for each of ``changes``, each in a folder with the name of the change.

    What follows a dash in a name tells apart models with the same kind of change.
    """
    specs = shapes(layers, side, words)
    base = folder / "base" / "model.safetensors"
    write_llama(base, specs, 0)
    for seed, name in enumerate(changes.split(), 1):
        target = folder / name / "model.safetensors"
        if name.startswith("new"):
            write_llama(target, specs, seed)
        else:
            write_llama(target, specs, seed, base, name.partition("-")[0])


# -- others ---------------------------------------------------------------------------------


def small_tensors(folder: Path, count: int) -> None:
    """``count`` bf16 tensors of 64 kB, and a version in which one of a hundred is new."""
    specs = {f"layers.{number // 100}.experts.{number % 100}.weight": (128, 256) for number in range(count)}
    for name, step in (("base", 0), ("some", 100)):
        random = np.random.default_rng(0)
        values = (random.standard_normal((128, 256), np.float32) * np.float32(0.02) for _ in specs)
        moved = (
            value * np.float32(1.01) if step and k % step == 0 else value for k, value in enumerate(values)
        )
        stream(folder / name / "model.safetensors", specs, "BF16", moved)


def history(folder: Path, commits: int, side: int) -> None:
    """A matrix that takes ``commits`` steps of training, each version in a folder of its number."""
    from histories import versions

    for number, value in enumerate(versions("walk", side, commits, 2e-5)):
        stream(folder / str(number) / "model.safetensors", {"w": (side, side)}, "BF16", [value])


def adamw(folder: Path, saves: int, layers: int, side: int) -> None:
    """A training folder: bf16 weights, and the f32 moments of AdamW, saved every ten steps."""
    specs, random = shapes(layers, side, 4096), np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape, np.float32) * np.float32(0.02) for name, shape in specs.items()
    }
    first = {name: np.zeros(shape, np.float32) for name, shape in specs.items()}
    second = {name: np.zeros(shape, np.float32) for name, shape in specs.items()}
    for number in range(10 * saves):
        for name, shape in specs.items():
            gradient = random.standard_normal(shape, np.float32) * np.float32(1e-3)
            first[name] = np.float32(0.9) * first[name] + np.float32(0.1) * gradient
            second[name] = np.float32(0.999) * second[name] + np.float32(0.001) * gradient**2
            scale = np.sqrt(second[name] / np.float32(1 - 0.999 ** (number + 1))) + np.float32(1e-8)
            weights[name] -= np.float32(2e-5) * first[name] / np.float32(1 - 0.9 ** (number + 1)) / scale
        if number % 10 == 9:
            place = folder / str(number // 10)
            stream(place / "model.safetensors", specs, "BF16", weights.values())
            moments = {
                f"{kind}.{name}": shape for kind in ("exp_avg", "exp_avg_sq") for name, shape in specs.items()
            }
            stream(place / "optimizer.safetensors", moments, "F32", [*first.values(), *second.values()])
            (place / "trainer_state.json").write_text(json.dumps({"global_step": number + 1}))


def pairs(folder: Path, source: Path) -> None:
    """Copy the models that bench/finetunes.py wrote, each into a folder of its own."""
    for name in ("base", "full", "full-more", "last", "lora-f32"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / f"{name}.safetensors", folder / name / "model.safetensors")
