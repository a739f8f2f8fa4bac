"""theta merge beside mergekit on the same bf16 models, process start to result.

Makes a base and two dense fine-tunes of it (Llama layout, 0.75 GB by default), then times

    mergekit   ``mergekit-yaml`` from two model directories to a third
    theta      ``theta merge`` of two branches: the merged file in the worktree, and the commit

Prints the wall, the processor seconds of all processes, the peak resident memory of the largest, and
how far the results lie apart in units of the last place of bf16.  (TIES differs where elements equal the
cut: mergekit keeps any of these, theta the first; and mergekit computes in bf16 here.  With ``dtype:
float32`` and ``out_dtype: bfloat16`` in its recipe, nothing else differs.)  mergekit has an environment of
its own:

    python -m venv MK && MK/bin/pip install mergekit==0.1.5
    python bench/merge.py DIRECTORY --mergekit MK/bin/mergekit-yaml --theta theta
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
from measure import Timed, apart, run
from numpy.typing import NDArray

METHODS = {
    "linear": ("average", "{}", {"weight": 0.5}),
    "slerp": ("slerp:t=0.3", "{t: 0.3}", {}),
    "ties": ("ties:density=0.5", "{normalize: true}", {"weight": 1.0, "density": 0.5}),
}
"""Method -> theta's strategy, mergekit's parameters of all, and of each model."""


def config(layers: int) -> dict[str, Any]:
    """Return the configuration of the model for mergekit."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }


def write_model(directory: Path, layers: int, seed: int, base: Path | None = None) -> None:
    """Write a model in bf16; with ``base`` a fine-tune of it, in which every weight moves by about 2 %."""
    models.write_llama(directory / "model.safetensors", models.shapes(layers), seed, base)
    (directory / "config.json").write_text(json.dumps(config(layers)))


def distance(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> tuple[int, float]:
    """The largest difference in steps of bf16, and the share of values that are not equal."""
    worst, differ, total = 0, 0, 0
    for name, values in one.items():
        words = [np.asarray(v).view(np.int16).astype(np.int32).reshape(-1) for v in (values, other[name])]
        ordered = [np.where(w < 0, -(w & 0x7FFF), w) for w in words]
        steps = np.abs(ordered[0] - ordered[1])
        worst, differ = max(worst, int(steps.max())), differ + int(np.count_nonzero(steps))
        total += steps.size
    return worst, differ / total


COMPARE = """
one, other = (merge.models.read_model(Path(argument)) for argument in sys.argv[1:])
worst, share = merge.distance(one, other)
print(f"at most {worst} steps of bf16 apart, {share:.4%} of the values differ")
"""
WRITE = """
directory, layers, seed, base = sys.argv[1:]
merge.write_model(Path(directory), int(layers), int(seed), Path(base) if base else None)
"""


def recipe(directory: Path, method: str) -> Path:
    """The configuration of the same merge for mergekit."""
    _, shared, own = METHODS[method]
    lines = [f"merge_method: {method}", f"parameters: {shared}", "dtype: bfloat16"]
    if method != "linear":
        lines.append(f"base_model: {directory / ('a' if method == 'slerp' else 'base')}")
    lines.append("models:")
    for name in ("a", "b"):
        lines += [f"  - model: {directory / name}", f"    parameters: {json.dumps(own)}"]
    path = directory / f"{method}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def with_mergekit(directory: Path, tool: str, method: str) -> Timed:
    """One merge from directory to directory."""
    out = directory / f"mergekit-{method}"
    shutil.rmtree(out, ignore_errors=True)
    return run([tool, str(recipe(directory, method)), str(out), "--no-copy-tokenizer"], directory)


def repository(directory: Path, theta: str) -> Path:
    """The base on main, each fine-tune on a branch of its own."""
    repo = directory / "repository"
    if repo.exists():
        return repo
    repo.mkdir()

    def step(*command: str) -> None:
        run(list(command), repo)

    step("git", "init", "-q", "-b", "main")
    step("git", "config", "user.name", "Ada Bench")
    step("git", "config", "user.email", "ada@example.com")
    step(theta, "track", "*.safetensors")
    for name, branch in (("base", "main"), ("a", "a"), ("b", "b")):
        if name != "base":
            step(theta, "switch", "main")
            step(theta, "switch", "-c", branch)
        shutil.copyfile(directory / name / "model.safetensors", repo / "model.safetensors")
        step(theta, "add", "-A")
        step(theta, "commit", "-m", name)
    return repo


def with_theta(directory: Path, theta: str, method: str) -> Timed:
    """One merge of branch b into a fresh branch at a."""
    repo = repository(directory, theta)
    for command in (["reset", "--hard"], ["switch", "a"], ["branch", "-f", f"merged-{method}"]):
        run([theta, *command], repo)
    run([theta, "switch", f"merged-{method}"], repo)
    strategy = METHODS[method][0]
    return run([theta, "merge", "-X", strategy, "-m", method, "--no-prompt", "b"], repo)


def main() -> None:
    """Make the models if they are not there, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mergekit", help="path of mergekit-yaml; without it only theta runs")
    parser.add_argument("--theta", default="theta", help="path of theta")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--methods", default="linear,slerp,ties")
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    theta = str(Path(shutil.which(options.theta) or options.theta).absolute())
    for seed, name in enumerate(("base", "a", "b")):
        if not (directory / name).exists():
            apart("merge", WRITE, directory / name, options.layers, seed, directory / "base" if seed else "")
    for method in options.methods.split(","):
        ours = with_theta(directory, theta, method)
        print(f"{method:8} theta     {ours}", flush=True)
        if not options.mergekit:
            continue
        theirs = with_mergekit(directory, str(Path(options.mergekit).absolute()), method)
        print(f"{method:8} mergekit  {theirs}", flush=True)
        print(f"{method:8} theta / mergekit {ours.wall / theirs.wall:.2f} of the wall", flush=True)
        files = directory / "repository" / "model.safetensors", directory / f"mergekit-{method}"
        print(f"{method:8} {apart('merge', COMPARE, *files)}", flush=True)


if __name__ == "__main__":
    main()
