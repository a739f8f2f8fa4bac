"""Large numbers: what theta's commands cost for very many tensors, chunks and shards, and for a sparse file.

    python bench/large.py tensors 10000 30000 100000
    python bench/large.py chunks 50000 150000 500000
    python bench/large.py shards 5 50
    python bench/large.py sparse 20 200

Prints processor seconds and the peak of memory (MB) of each command.  ``chunks`` cuts values into chunks of
1 KiB instead of 4 MiB, so that half a million fit here; ``sparse`` is so many gigabytes, mostly holes.
Files are written by other processes: what this one holds would count as memory of those that it starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np
from models import NUMPY, header
from safetensors.numpy import save_file

MODEL = "model.safetensors"
SMALL_CHUNK = 1 << 10
_CUT = "import theta.store.format.tensor_tree as t; t.CHUNK = {}; from theta.__main__ import main; main()"


class Bench:
    """A repository in which theta's commands are measured."""

    def __init__(self, place: Path, chunk: int | None = None) -> None:
        self.place = place
        program = ["-m", "theta"] if chunk is None else ["-c", _CUT.format(chunk)]
        self._theta = [sys.executable, *program]
        subprocess.run(["git", "init", "-q", "-b", "main", str(place)], check=True)
        for key, value in (("user.name", "a"), ("user.email", "a@b")):
            subprocess.run(["git", "config", key, value], cwd=place, check=True)
        self.run("track", "*.safetensors")

    def run(self, *words: str) -> measure.Timed:
        """Run theta."""
        return measure.run([*self._theta, *words], self.place)

    def note(self, label: str, *words: str) -> None:
        """Measure a command, and print it."""
        used = self.run(*words)
        print(f"  {label}: {used.processor:.2f} s, {used.resident:.0f} MB", flush=True)


def tensors(place: Path, count: int, seed: int = 1, changed: int = 0) -> None:
    """Write ``count`` tensors of 64 bytes; some of them differ."""
    values = np.random.default_rng(seed).standard_normal((count, 16), dtype=np.float32)
    values[:changed] += 1
    save_file({_name(number): values[number] for number in range(count)}, place)


def chunks(place: Path, count: int, seed: int = 1, changed: int = 0) -> None:
    """Write as many KiB as there are to be chunks, in tensors of 2,000; some of them differ."""
    each = 2_000 if count >= 2_000 else count
    values = np.random.default_rng(seed).standard_normal((count // each, each, 256), dtype=np.float32)
    values[:, :changed] += 1
    save_file({_name(number): value for number, value in enumerate(values)}, place)


def sparse(place: Path, gigabytes: int, changed: int = 0) -> None:
    """Write a file of bf16 matrices that is holes, with a constant matrix and a random one."""
    shape = (8192, 16384)
    size = NUMPY["BF16"].itemsize * shape[0] * shape[1]
    count = max(3, round(gigabytes * 1e9 / size))
    with place.open("wb") as file:
        file.write(header({_name(number): shape for number in range(count)}, "BF16"))
        file.truncate(file.tell() + count * size)
        file.write(b"\x80\x3f" * (size // 2))
        file.write(np.random.default_rng(changed).bytes(size))


def _name(number: int) -> str:
    return f"model.layers.{number // 50}.part{number % 50}.weight"


def write(what: str, place: Path, count: int, changed: int) -> list[Path]:
    """Write the files of one version, in a process of its own; return their paths."""
    todo: list[tuple[Callable[..., None], tuple[object, ...]]]
    if what == "shards":
        names = [f"model-{shard + 1:05d}-of-{count:05d}.safetensors" for shard in range(count)]
        todo = [(tensors, (place / name, 400, n, 0 if n else changed)) for n, name in enumerate(names)]
    elif what == "sparse":
        todo = [(sparse, (place / MODEL, count, changed))]
    else:
        todo = [(tensors if what == "tensors" else chunks, (place / MODEL, count, 1, changed))]
    for function, arguments in todo:
        child = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
        child.start()
        child.join()
        assert child.exitcode == 0
    return [arguments[0] for _, arguments in todo if isinstance(arguments[0], Path)]


def life(bench: Bench, what: str, count: int) -> None:
    """Measure one checkpoint's life: a first version, a small change, looking, going back."""
    files = write(what, bench.place, count, 0)
    bench.note("add", "add", ".")
    bench.note("commit", "commit", "-q", "-m", "one")
    bench.note("status", "status")
    write(what, bench.place, count, 10)
    bench.note("status, changed", "status")
    bench.note("commit -a, 10 changed", "commit", "-q", "-a", "-m", "two")
    bench.note("diff HEAD~1", "diff", "HEAD~1")
    bench.note("log --stat", "log", "--stat", "-2")
    if sum(file.stat().st_size for file in files) < shutil.disk_usage(bench.place).free // 2:
        bench.note("switch to HEAD~1", "switch", "-q", "--detach", "HEAD~1")
        bench.note("restore", "restore", "--source", "main", *(file.name for file in files))
    bench.note("fsck --read-data", "fsck", "--read-data")
    entries = subprocess.run(["git", "ls-files"], cwd=bench.place, check=True, capture_output=True).stdout
    print(f"  entries of the index: {len(entries.splitlines())}", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["tensors", "chunks", "shards", "sparse"])
    parser.add_argument("counts", type=int, nargs="+")
    asked = parser.parse_args()
    for count in asked.counts:
        print(f"{asked.what}: {count}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            life(
                Bench(Path(scratch) / "r", SMALL_CHUNK if asked.what == "chunks" else None), asked.what, count
            )


if __name__ == "__main__":
    main()
