"""The cost of commits: theta itself commits every case in a real repository.

    python bench/commits.py PAIRS [--only TEXT]

PAIRS is the directory that bench/finetunes.py wrote.  A figure is the growth of the repository's
packs and loose objects (chunks, factors, ``@tensor``, trees, manifest, skeleton, commit) over the raw
bytes of the tensors that changed; beside it what it must be at most, and the aim.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from measure import stored

from theta.formats import TensorSpec, safetensors

NUMPY = {"f32": np.dtype("<f4"), "bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype("<f2")}
DTYPES = {dtype: name for name, dtype in NUMPY.items()}
SIDE = 2048
Model = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Two versions of a checkpoint, or one; ``bring`` is the adapter that makes the second."""

    name: str
    must: float
    aim: float
    versions: Callable[[], list[Model]]
    bring: Callable[[Path], tuple[str, Path, int]] | None = None


# -- files ----------------------------------------------------------------------------------


def load(path: Path) -> dict[str, np.ndarray]:
    """The f32 tensors of a safetensors file."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            kind = {"F32": NUMPY["f32"], "BF16": NUMPY["bf16"]}[entry["dtype"]]
            found[name] = np.frombuffer(raw[start:stop], kind).reshape(entry["shape"])
    return found


def save(path: Path, model: Model) -> None:
    """Write a safetensors file."""
    specs = [TensorSpec(name, DTYPES[array.dtype], array.shape) for name, array in model.items()]
    header, order = safetensors.plan(specs, None)
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            file.write(model[name].tobytes())


def cast(model: Model, dtype: str) -> dict[str, np.ndarray]:
    """Every tensor in ``dtype``, rounded to nearest even."""
    return {name: array.astype(NUMPY[dtype]) for name, array in model.items()}


# -- cases ----------------------------------------------------------------------------------


def weights(dtype: str, seed: int = 0) -> np.ndarray:
    """A matrix of normal weights."""
    return np.random.default_rng(seed).normal(0, 0.02, (SIDE, SIDE)).astype(np.float32).astype(NUMPY[dtype])


def _pair(folder: Path, before: str, after: str, dtype: str) -> Callable[[], list[Model]]:
    return lambda: [cast(load(folder / f"{name}.safetensors"), dtype) for name in (before, after)]


def _lora(dtype: str, rank: int = 16) -> list[Model]:
    base, rng = weights(dtype), np.random.default_rng(1)
    size = 0.0018 / rank**0.5
    up, down = rng.normal(0, 1, (SIDE, rank)), rng.normal(0, size, (rank, SIDE))
    update = (up.astype(np.float32) @ down.astype(np.float32)).astype(np.float32)
    return [{"w": base}, {"w": (base.astype(np.float32) + update).astype(base.dtype)}]


def _some_new() -> list[Model]:
    base, rng = weights("bf16"), np.random.default_rng(1)
    new = base.copy()
    places = rng.choice(new.size, new.size // 100, replace=False)
    new.reshape(-1)[places] = rng.normal(0, 0.02, places.size).astype(np.float32).astype(new.dtype)
    return [{"w": base}, {"w": new}]


def _ia3(dtype: str, axis: int) -> list[Model]:
    base = weights(dtype)
    scale = (1 + np.random.default_rng(1).normal(0, 0.05, SIDE)).astype(np.float32)
    spread = scale[:, None] if axis == 0 else scale[None, :]
    return [{"w": base}, {"w": (base.astype(np.float32) * spread).astype(base.dtype)}]


def _embedding(folder: Path) -> np.ndarray:
    model = cast(load(folder / "base.safetensors"), "bf16")
    return next(array for name, array in model.items() if name.endswith("word_embeddings.weight"))


def _trimmed(folder: Path) -> list[Model]:
    whole = _embedding(folder)
    kept = np.sort(np.random.default_rng(1).permutation(len(whole))[len(whole) // 100 :])
    return [{"w": whole}, {"w": whole[kept]}]


def _appended(folder: Path) -> list[Model]:
    whole = _embedding(folder)
    new = np.random.default_rng(1).normal(0, 0.02, (len(whole) // 100, whole.shape[1]))
    return [{"w": whole}, {"w": np.concatenate([whole, new.astype(np.float32).astype(whole.dtype)])}]


def _casts(folder: Path, before: str, after: str) -> list[Model]:
    first = cast(load(folder / "base.safetensors"), before)
    return [first, cast(first, after)]


def _adapter(base: Model, place: Path, rank: int = 8) -> tuple[str, Path, int]:
    """A PEFT adapter for query and value of every layer; its type, place, and bytes of factors."""
    rng, factors = np.random.default_rng(2), {}
    for name, array in base.items():
        if name.endswith(("query.weight", "value.weight")):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = array.shape
            factors[f"{module}.lora_A.weight"] = rng.normal(0, 0.05, (rank, columns)).astype("<f4")
            factors[f"{module}.lora_B.weight"] = rng.normal(0, 0.01, (rows, rank)).astype("<f4")
    place.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16}
    (place / "adapter_config.json").write_text(json.dumps(config))
    save(place / "adapter_model.safetensors", factors)
    return "low-rank", place, sum(array.nbytes for array in factors.values())


def cases(folder: Path) -> Iterator[Case]:
    """The rows of the table."""
    yield Case("full fine-tune, bf16", 0.094, 0.083, _pair(folder, "base", "full", "bf16"))
    yield Case("30 more steps, bf16", 0.081, 0.070, _pair(folder, "full", "full-more", "bf16"))
    yield Case("full fine-tune, f16", 0.181, 0.167, _pair(folder, "base", "full", "f16"))
    yield Case("full fine-tune, f32", 0.360, 0.340, _pair(folder, "base", "full", "f32"))
    yield Case("last layer only, bf16", 0.235, 0.22, _pair(folder, "base", "last", "bf16"))
    yield Case("LoRA r8 merged, 384 wide, bf16", 0.053, 0.044, _pair(folder, "base", "lora-bf16", "bf16"))
    yield Case("LoRA r8 merged, 384 wide, f32", 0.049, 0.047, _pair(folder, "base", "lora-f32", "f32"))
    yield Case("LoRA r16 merged, 2048 wide, bf16", 0.026, 0.02, partial(_lora, "bf16"))
    yield Case("LoRA r16 merged, 2048 wide, f32", 0.0345, 0.033, partial(_lora, "f32"))
    base = load(folder / "base.safetensors")
    for dtype in ("f32", "bf16"):
        model = cast(base, dtype)
        name = f"LoRA r8 f32 brought, {dtype}, over factors"
        yield Case(name, 1.02, 1.0, partial(list[Model], [model]), partial(_adapter, model))
    yield Case("1 % of elements new, bf16", 0.0125, 0.0119, _some_new)
    for dtype in ("bf16", "f16", "f32"):
        for axis, what in enumerate(("rows", "columns")):
            yield Case(f"IA3, {what}, {dtype}", 0.002, 0.001, partial(_ia3, dtype, axis))
    yield Case("1 % of rows trimmed, bf16", 0.002, 0.002, partial(_trimmed, folder))
    yield Case("1 % of rows appended, bf16", 0.0075, 0.0067, partial(_appended, folder))
    yield Case("model cast f32 -> bf16", 0.003, 0.001, partial(_casts, folder, "f32", "bf16"))
    yield Case("model cast bf16 -> f32", 0.003, 0.001, partial(_casts, folder, "bf16", "f32"))
    for dtype, must, aim in (("bf16", 0.667, 0.66), ("f16", 0.849, 0.845), ("f32", 0.825, 0.82)):
        yield Case(f"first commit, {dtype}", must, aim, partial(list[Model], [cast(base, dtype)]))
    clean = cast(cast(base, "bf16"), "f32")
    yield Case("f32 that holds bf16", 0.335, 0.33, partial(list[Model], [clean]))


# -- committing -----------------------------------------------------------------------------


def run(folder: Path, *command: str) -> None:
    """Run a command in the repository; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def theta(folder: Path, *args: str) -> None:
    """Run ``theta ARGS``."""
    run(folder, sys.executable, "-m", "theta", *args)


def changed(old: Model, new: Model) -> int:
    """Raw bytes of the tensors of ``new`` that are not in ``old``."""
    kept = {
        name: name in old
        and (old[name].dtype, old[name].shape) == (array.dtype, array.shape)
        and old[name].tobytes() == array.tobytes()
        for name, array in new.items()
    }
    return sum(array.nbytes for name, array in new.items() if not kept[name])


def measure(case: Case, folder: Path) -> tuple[float, float, int]:
    """The last commit's stored bytes over raw bytes, its seconds, and its stored bytes."""
    run(folder, "git", "init", "-q")
    for key, value in (("user.name", "bench"), ("user.email", "bench@example.com"), ("gc.auto", "0")):
        run(folder, "git", "config", key, value)
    theta(folder, "track", "*.safetensors")
    theta(folder, "commit", "-q", "-m", "track")
    before, raw, seconds = stored(folder), 0, 0.0
    old: Model = {}
    for number, model in enumerate(case.versions()):
        save(folder / "m.safetensors", model)
        before, raw = stored(folder), changed(old, model)
        begin = time.perf_counter()
        theta(folder, "add", "m.safetensors")
        theta(folder, "commit", "-q", "-m", str(number))
        seconds, old = time.perf_counter() - begin, dict(model)
    if case.bring is not None:
        kind, place, raw = case.bring(folder / ".git" / "adapter")
        before, begin = stored(folder), time.perf_counter()
        theta(folder, "add", "--update-type", kind, "--update-data", str(place), "m.safetensors")
        theta(folder, "commit", "-q", "-m", "update")
        seconds = time.perf_counter() - begin
    size = stored(folder) - before
    return size / raw, seconds, size


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description="What commits cost.")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    print(f"{'case':44} {'stored/raw':>10} {'must':>7} {'aim':>7}   stored bytes   seconds")
    for case in cases(options.pairs):
        if options.only in case.name:
            with tempfile.TemporaryDirectory() as folder:
                ratio, seconds, size = measure(case, Path(folder))
            verdict = "" if ratio <= case.must else "MISSED"
            figures = f"{ratio:10.5f} {case.must:7} {case.aim:7} {size:14,} {seconds:9.1f}"
            print(f"{case.name:44} {figures} {verdict}", flush=True)


if __name__ == "__main__":
    main()
