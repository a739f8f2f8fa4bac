"""Long histories: what a commit costs, and what reading the last version takes.

    python bench/histories.py [--commits 100] [--side 1024]

One bf16 matrix takes many steps of about equal size; every version is stored by theta on the one
before.  ``walk``: steps are independent; ``drift``: nine tenths of each step repeat the one before;
``adapters``: a rank-8 LoRA is merged each time.  Printed: the bytes of a commit over those of its
step from the version before, and what reading the last version takes over reading the first.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from theta.codecs import chooser
from theta.codecs.base import TensorWords
from theta.formats import BytesSource, TensorSpec, safetensors
from theta.git.repository import Repository
from theta.store.files import file_scan
from theta.store.format import skeleton
from theta.store.format.manifest import Manifest
from theta.store.odb.objects import Objects
from theta.store.read.reassembly import Restorer
from theta.store.read.tensor_records import read_record
from theta.store.write.snapshot import Snapshot

BF16 = np.dtype(ml_dtypes.bfloat16)


def versions(kind: str, side: int, commits: int, size: float) -> Iterator[np.ndarray]:
    """A base and ``commits`` steps; training goes on in f32, checkpoints are rounded."""
    rng = np.random.default_rng(0)
    value = rng.normal(0, 0.02, (side, side)).astype(np.float32)
    step = rng.normal(0, size, value.shape).astype(np.float32)
    value = value.astype(BF16).astype(np.float32)
    yield value.astype(BF16)
    for _ in range(commits):
        if kind == "adapters":
            step = (rng.normal(0, 1, (side, 8)) @ rng.normal(0, 6e-4, (8, side))).astype(np.float32)
        else:
            fresh = rng.normal(0, size, value.shape).astype(np.float32)
            step = fresh if kind == "walk" else np.float32(0.9) * step + np.float32(0.19**0.5) * fresh
        value += step
        if kind == "adapters":
            value = value.astype(BF16).astype(np.float32)
        yield value.astype(BF16)


class Store:
    """Stores versions of one matrix, each with the one before as its base."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        self.objects = Objects(Repository.discover(folder))
        self.manifest: Manifest | None = None

    def put(self, array: np.ndarray) -> int:
        """Store ``array``; return the size of the pack."""
        header, _ = safetensors.plan([TensorSpec("w", "bf16", array.shape)], None)
        source, pack = BytesSource(header + array.tobytes()), self.objects.writer()
        kept = skeleton.read(self.objects, self.manifest.skeleton) if self.manifest else None
        found = file_scan.scan(source, self.manifest, kept)
        bases = [self.manifest] if self.manifest else []
        self.manifest = Snapshot(self.objects, pack, bases).store(source, found, "m", self.manifest).manifest
        size = pack.size
        pack.finish()
        self.objects.refresh()
        return size

    def read(self) -> tuple[int, int, float]:
        """Layers, stored bytes and seconds of reading the newest version."""
        assert self.manifest is not None
        record = read_record(self.objects, self.manifest.lines[0].tree)
        begin = time.perf_counter()
        Restorer(self.objects, self.manifest).data()
        seconds = time.perf_counter() - begin
        return len(record.layers), sum(map(self.objects.size, record.files.values())), seconds


def run(kind: str, side: int, commits: int, size: float) -> None:
    """One history."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        costs, steps, reads, layers, begin = [], [], [], "", time.perf_counter()
        before: TensorWords | None = None
        for array in versions(kind, side, commits, size):
            costs.append(store.put(array))
            depth, stored, seconds = store.read()
            layers += str(depth)
            reads.append((stored, seconds))
            new = TensorWords.from_bytes(array.tobytes(), "bf16", array.shape)
            if before is not None:
                steps.append(chooser.price(new, before, ranges(new)))
            before = new
        step, average = float(np.mean(steps)), sum(costs[1:]) / commits
        sizes, times = zip(*reads, strict=True)
        print(f"{kind} {size:g}, {commits} commits of a {side} x {side} bf16 matrix")
        print(f"  a step {step / array.nbytes:.4f} of raw, a commit {average / step:.2f} steps")
        print(f"  bytes read: last {sizes[-1] / sizes[0]:.2f}, most {max(sizes) / sizes[0]:.2f} of the first")
        print(f"  seconds: median of the last ten {np.median(times[-10:]) / times[0]:.2f} of the first")
        print(f"  layers {layers}; {time.perf_counter() - begin:.0f} s in all", flush=True)


def ranges(tensor: TensorWords) -> list[tuple[int, int]]:
    """The chunks of a matrix."""
    step = (4 << 20) // tensor.words.itemsize // tensor.shape[1] * tensor.shape[1]
    return [(at, min(at + step, tensor.words.size)) for at in range(0, tensor.words.size, step)]


def main() -> None:
    """Run all histories."""
    parser = argparse.ArgumentParser(description="What long histories cost.")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for kind, size in (("walk", 2e-5), ("walk", 1e-4), ("drift", 2e-5), ("adapters", 0.0)):
        if options.only in f"{kind} {size:g}":
            run(kind, options.side, options.commits, size)


if __name__ == "__main__":
    main()
