"""Processes of a Dask cluster beside the threads of one process: the same model stored, and merged.

    python bench/cluster.py [--gigabytes 3] [--workers 2] [--theta PATH]

Prints the wall seconds of each, one after the other, and their ratio, and what passes between theta and the
scheduler.  Both must make the same tree.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

MODEL = "model.safetensors"
_CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def make(place: Path, gigabytes: float, seed: int, base: Path | None = None) -> None:
    """Write a bf16 model of layers 2048 wide, or a fine-tune of ``base``."""
    rng = np.random.default_rng(seed)
    before = dict(_read(base)) if base else {}
    arrays = {}
    for layer in range(max(1, round(gigabytes * 1e9 / (2 * 2048 * 2048 * 6)))):
        for name in ("q", "k", "v", "o", "up", "down"):
            key = f"layers.{layer}.{name}"
            step = rng.standard_normal((2048, 2048), dtype=np.float32)
            values = before[key] + step * np.float32(4e-4) if base else step * np.float32(0.02)
            arrays[key] = values.astype(ml_dtypes.bfloat16)
    save_file(arrays, place)


def _read(place: Path) -> Iterator[tuple[str, np.ndarray]]:
    from safetensors import safe_open

    with safe_open(place, framework="numpy") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            yield name, opened.get_tensor(name).astype(np.float32)


@contextlib.contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """Start a scheduler and its workers; yield the address."""
    program = folder / "cluster.py"
    program.write_text(_CLUSTER)
    command = [sys.executable, str(program), str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip().removeprefix("tcp://")
        running.communicate("")


class Counted:
    """A port that passes on to ``address`` whatever comes, and counts the bytes of both directions."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = host, int(port)
        self._port = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._port.getsockname()[1]}"
        self.nbytes = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            ours, _ = self._port.accept()
            theirs = socket.create_connection(self._target)
            for ends in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.nbytes += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def timed(command: list[str], place: Path) -> float:
    """Run ``command``; return its wall seconds."""
    began = time.perf_counter()
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def history(theta: str, folder: Path, engine: str, models: list[Path]) -> tuple[float, float, str]:
    """Add the first model, commit two fine-tunes, and merge them; return the seconds of add and merge."""
    repository = folder / engine.partition(":")[0]
    subprocess.run([theta, "init", "-q", str(repository)], check=True)
    subprocess.run([theta, "track", "*.safetensors"], cwd=repository, check=True, stdout=subprocess.DEVNULL)
    with_engine = [theta, "--engine", engine]
    shutil.copyfile(models[0], repository / MODEL)
    add = timed([*with_engine, "add", MODEL], repository)
    timed([theta, "commit", "-qm", "base"], repository)
    for branch, model in zip(("one", "two"), models[1:], strict=True):
        timed([theta, "switch", "-q", "-c", branch, "HEAD" if branch == "one" else "HEAD~1"], repository)
        shutil.copyfile(model, repository / MODEL)
        timed([theta, "commit", "-qam", branch], repository)
    merge = timed([*with_engine, "merge", "-q", "-X", "linear:weight=0.5", "one"], repository)
    tree = subprocess.run(
        ["git", "rev-parse", "HEAD^{tree}"], cwd=repository, check=True, capture_output=True, text=True
    )
    shutil.rmtree(repository)
    return add, merge, tree.stdout.strip()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--theta", default=str(Path(sys.executable).with_name("theta")))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = [folder / f"{name}.safetensors" for name in ("base", "one", "two")]
        make(models[0], asked.gigabytes, 1)
        for seed, model in enumerate(models[1:], 2):
            make(model, asked.gigabytes, seed, models[0])
        threads = history(asked.theta, folder, "threads", models)
        with cluster(asked.workers, folder) as address:
            counted = Counted(address)
            dask = history(asked.theta, folder, f"dask://{counted.address}", models)
    assert threads[2] == dask[2], "the engines made different trees"
    print(f"| {asked.gigabytes} GB | threads, s | {asked.workers} workers, s | ratio |\n|---|---|---|---|")
    for name, one, other in zip(("add", "merge"), threads[:2], dask[:2], strict=True):
        print(f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |")
    print(f"\n{counted.nbytes / 1e3:.0f} kB passed between theta and the scheduler")


if __name__ == "__main__":
    main()
