"""The memory of ``theta add`` with a LoRA on all linear layers of a model with the names of a 7B in shards.

    python bench/adapter_memory.py [--width 512] [--limit 700]

Makes a Llama of 32 layers with random bf16 weights of small widths in four shards, and an f32 adapter of
rank 16 on all 224 linear layers.  Prints the bytes of the model, what the command costs, and the stored
bytes; the exit code is 1 if the peak of resident memory is above the limit in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from measure import apart, run, stored

from theta.formats import TensorSpec, safetensors, sharded

LAYERS, SHARDS, RANK = 32, 4, 16
BF16 = np.dtype(ml_dtypes.bfloat16)


def linear(width: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """The names and shapes of all linear layers, as in Llama 2 7B."""
    inner = width * 43 // 16
    shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (width, width))
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            yield f"model.layers.{layer}.self_attn.{name}", shape
        for name, shape in (("gate", (inner, width)), ("up", (inner, width)), ("down", (width, inner))):
            yield f"model.layers.{layer}.mlp.{name}_proj", shape


def save(place: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    names = {BF16: "bf16", np.dtype("<f4"): "f32"}
    specs = [TensorSpec(name, names[value.dtype], value.shape) for name, value in tensors.items()]
    header, order = safetensors.plan(specs, None)
    with place.open("wb") as file:
        file.write(header)
        for name in order:
            file.write(tensors[name].tobytes())


def make(repo: Path, adapter: Path, width: int) -> int:
    """Write the shards with their index, and the adapter; return the bytes of the model."""
    rng = np.random.default_rng(0)
    shapes = {f"{name}.weight": shape for name, shape in linear(width)}
    shapes |= {"model.embed_tokens.weight": (32000, width), "lm_head.weight": (32000, width)}
    names, places, size = list(shapes), {}, 0
    for number, shard in enumerate(sharded.shard_names(SHARDS)):
        part = names[number * len(names) // SHARDS : (number + 1) * len(names) // SHARDS]
        tensors = {name: rng.normal(0, 0.02, shapes[name]).astype(np.float32).astype(BF16) for name in part}
        save(repo / shard, tensors)
        places |= dict.fromkeys(part, shard)
        size += sum(value.nbytes for value in tensors.values())
    (repo / "model.safetensors.index.json").write_bytes(sharded.write_index(places, size))
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    factors = {}
    for name, (rows, columns) in linear(width):
        for letter, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            value = rng.normal(0, 0.01, shape).astype(np.float32)
            factors[f"base_model.model.{name}.lora_{letter}.weight"] = value
    save(adapter / "adapter_model.safetensors", factors)
    return size


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--limit", type=float, default=700.0, help="MB of resident memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repo, adapter = Path(folder) / "repo", Path(folder) / "adapter"
        env = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"}
        who = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
        env |= dict.fromkeys(who, "bench@example.org")

        command = [sys.executable, "-m", "theta"]
        repo.mkdir()
        size = int(
            apart(
                "adapter_memory",
                "print(adapter_memory.make(*map(Path, sys.argv[1:3]), int(sys.argv[3])))",
                repo,
                adapter,
                options.width,
            )
        )
        for args in (("init", "-q"), ("track", "*.safetensors"), ("add", "."), ("commit", "-qm", "model")):
            run([*command, *args], repo, env)
        before = stored(repo)
        used = run([*command, "add", ".", "--update-data", str(adapter)], repo, env)
        print(f"{size / 1e6:.0f} MB, {used}, {(stored(repo) - before) / 1e6:.2f} MB stored")
    return int(used.resident > options.limit)


if __name__ == "__main__":
    sys.exit(main())
