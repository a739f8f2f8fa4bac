"""slerp in f32 beside mergekit: how far both are from the exact value, and mergekit from itself.

Merges two random Llamas by theta, and by mergekit with one thread and with two.  The exact value is computed
in long double.  "Units" are of the last place of a tensor's largest element.  Prints in how many tensors

    mergekit differs from itself: with two threads it adds in another order
    theta equals mergekit, is nearer to the exact value, or farther (root of the mean square)

and the largest error of each; the exit code is 1 if an error of theta is a unit or more.

    M/bin/python -P bench/slerp_check.py --theta theta [--hidden 512]  # M: see bench/mergekit_check.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import LlamaConfig, LlamaForCausalLM

Array = NDArray[Any]
Tensors = Mapping[str, Array]
Wide = np.longdouble
T = 0.3
RECIPE = f"merge_method: slerp\nbase_model: a\nmodels: [{{model: a}}, {{model: b}}]\nparameters: {{t: {T}}}\n"
PARALLEL = 0.9995
SIDES = {"mergekit, one thread": "one", "mergekit, two threads": "two", "theta": "repo"}


def models(place: Path, hidden: int) -> None:
    """Write models a and b; their tensors are at angles of about a right one and less."""
    config = LlamaConfig(
        vocab_size=16 * hidden,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    first, second = LlamaForCausalLM(config), LlamaForCausalLM(config)
    with torch.no_grad():
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            if one.dim() == 1:
                one.add_(torch.randn_like(one) / 10)
                other.copy_(one + torch.randn_like(one) / 10)
            else:
                other.add_(0.6 * one)
    first.save_pretrained(place / "a")
    second.save_pretrained(place / "b")


def run(*words: str, at: Path) -> None:
    """Run a command."""
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    env = os.environ | dict.fromkeys(names, "check@example.org")
    env |= {"GIT_CONFIG_GLOBAL": "/dev/null", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=at, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")


def merge(place: Path, theta: str) -> None:
    """Merge by both."""
    recipe = place / "recipe.yml"
    recipe.write_text(RECIPE)
    for threads, out in (("1", "one"), ("2", "two")):
        program = str(Path(sys.executable).parent / "mergekit-yaml")
        run(program, str(recipe), out, "--no-write-model-card", "--quiet", "-j", threads, at=place)
    repo = place / "repo"
    repo.mkdir()
    run(theta, "init", at=repo)
    run(theta, "track", "*.safetensors", at=repo)
    for name in "ab":
        run("git", "switch", "-q", "-c", name, at=repo)
        for file in (place / name).iterdir():
            (repo / file.name).write_bytes(file.read_bytes())
        run(theta, "add", ".", at=repo)
        run(theta, "commit", "-q", "-m", name, at=repo)
    run("git", "switch", "-q", "a", at=repo)
    run(theta, "merge", "--recipe", str(recipe), at=repo)
    run(theta, "merge", "--replay", "HEAD", at=repo)


def exact(one: Array, other: Array) -> Array:
    """Return slerp of two tensors in long double."""
    x, y = one.astype(Wide), other.astype(Wide)
    cosine = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    if abs(cosine) > PARALLEL:
        return (1 - Wide(T)) * x + Wide(T) * y
    angle = np.arccos(cosine)
    found: Array = (np.sin((1 - Wide(T)) * angle) * x + np.sin(Wide(T) * angle) * y) / np.sin(angle)
    return found


def tensors(place: Path) -> dict[str, Array]:
    """Return the tensors of a model."""
    return {name: value for file in place.glob("*.safetensors") for name, value in load_file(file).items()}


def main() -> int:
    """Merge, compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--theta", default="theta")
    parser.add_argument("--hidden", type=int, default=512)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        models(place, args.hidden)
        merge(place, args.theta)
        found = {side: tensors(place / folder) for side, folder in SIDES.items()}
        inputs = [tensors(place / side) for side in "ab"]
    return report(found, inputs)


def report(found: Mapping[str, Tensors], inputs: list[dict[str, Array]]) -> int:
    """Print how the results differ; return 1 if theta is off by a unit."""
    first, second, mine = SIDES
    names = sorted(found[mine])
    largest, means = ({side: dict[str, float]() for side in SIDES} for _ in range(2))
    for name in names:
        right = exact(inputs[0][name], inputs[1][name])
        unit = float(np.abs(right).max()) * 2.0**-23
        for side, own in found.items():
            off = np.abs(own[name].astype(Wide) - right)
            largest[side][name] = float(off.max()) / unit
            means[side][name] = float(np.sqrt((off**2).mean())) / unit
    apart = sum(not np.array_equal(found[first][name], found[second][name]) for name in names)
    print(f"mergekit differs from itself in {apart} of {len(names)} tensors")
    for side in (first, second):
        unlike = [name for name in names if not np.array_equal(found[side][name], found[mine][name])]
        farther = {name: means[mine][name] / means[side][name] for name in unlike}
        worse = [ratio for ratio in farther.values() if ratio > 1]
        told = f", by {max(worse):.3f} at most" if worse else ""
        equal, nearer = len(names) - len(unlike), len(unlike) - len(worse)
        print(f"{side}: theta is equal in {equal}, nearer in {nearer}, farther in {len(worse)}{told}")
    for side, errors in largest.items():
        print(f"{side}: off by {max(errors.values()):.2f} units at most")
    return int(max(largest[mine].values()) >= 1)


if __name__ == "__main__":
    sys.exit(main())
