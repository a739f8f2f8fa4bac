"""Saving from memory: how long it stops the program, what memory it holds, what steps cost as they add up.

python bench/saving.py blocking [MODEL.safetensors]    save(wait=False) over np.copyto into fresh memory
python bench/saving.py memory [MEGABYTES]              the most memory above the arrays, in copies of them
python bench/saving.py steps [COUNT]                   a run that keeps five: time per step, bytes after gc
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import theta

State = dict[str, Any]
SIDE = 2048
RATIO, COPIES, BYTES = 1.3, 2.0, 1.2
"""The most that is right: of blocking time, of memory, of the bytes of the steps that stay."""


def synthetic(megabytes: int, seed: int = 0) -> State:
    """Normal bf16 matrices of 8 MB."""
    random = np.random.default_rng(seed)
    kind = ml_dtypes.bfloat16
    return {
        f"layers.{n}.weight": random.standard_normal((SIDE, SIDE), np.float32).astype(kind)
        for n in range(max(megabytes * 1_000_000 // (2 * SIDE * SIDE), 1))
    }


def read_state(path: Path) -> State:
    """The tensors of a safetensors file."""
    from safetensors.numpy import load_file

    found: State = load_file(path)
    return found


def nbytes(state: State) -> int:
    """Bytes of all arrays."""
    return sum(int(array.nbytes) for array in state.values())


def trained(state: State) -> None:
    """Move some words of each array, in place."""
    for array in state.values():
        flat = array.reshape(-1)[::50]
        flat *= flat.dtype.type(1.01)


@contextmanager
def repository() -> Iterator[tuple[Path, theta.Repository]]:
    """A new repository, as git and as theta have it."""
    with tempfile.TemporaryDirectory() as folder:
        for words in (("init", "-q"), ("config", "user.name", "bench"), ("config", "user.email", "b@e")):
            subprocess.run(["git", "-C", folder, *words], check=True)
        with theta.open(folder) as repo:
            yield Path(folder), repo


def forget() -> None:
    """Give the system back what was freed, so that the next to ask gets fresh memory."""
    ctypes.CDLL(None).malloc_trim(0)


def copied(state: State) -> float:
    """Seconds of a plain copy into fresh memory."""
    forget()
    began = time.perf_counter()
    kept = []
    for array in state.values():
        kept.append(np.empty_like(array))
        np.copyto(kept[-1], array)
    return time.perf_counter() - began


def saved(repo: theta.Repository, state: State, step: int) -> float:
    """Seconds that a save stops the program, with nothing else going on behind it."""
    forget()
    began = time.perf_counter()
    repo.save({"model.safetensors": state}, ref="run", step=step)
    took = time.perf_counter() - began
    repo.wait()
    return took


def blocking(label: str, state: State, pairs: int) -> None:
    """Print the median of the ratios of saves to copies, one of which is made before each save and one after.

    What slows the machine down for a while slows both down: the geometric mean of the two copies stands for
    one at the time of the save.
    """
    ratios, plain = [], []
    with repository() as (_, repo):
        saved(repo, state, 0)  # kernels are loaded, and the first step is dense
        for step in range(1, pairs + 1):
            trained(state)
            before = copied(state)
            block = saved(repo, state, step)
            after = copied(state)
            plain.append((before * after) ** 0.5)
            ratios.append(block / plain[-1])
    ratio = statistics.median(ratios)
    low, high = statistics.quantiles(ratios, n=4)[::2]
    verdict = "right" if ratio <= RATIO else "WRONG"
    said = f"copy {statistics.median(plain) * 1e3:.0f} ms, save over copy {ratio:.2f} in {pairs} pairs"
    print(f"{label}: {nbytes(state) / 1e6:.0f} MB, {said} (half of them {low:.2f} to {high:.2f}) {verdict}")


def anonymous() -> int:
    """Bytes of this process's own memory: mapped files are the system's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def memory(megabytes: int) -> None:
    """Print the most memory of saves that come faster than they are stored, in copies of the state."""
    state, most, ended = synthetic(megabytes), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], anonymous())

    with repository() as (_, repo):
        warm = synthetic(0)
        for _ in range(2):  # kernels are loaded: those of a first step, and of one on top of it
            trained(warm)
            repo.save({"model.safetensors": warm}, ref="warm", wait=True)
        forget()
        before = anonymous()
        watcher = threading.Thread(target=watch)
        watcher.start()
        for step in range(8):
            trained(state)
            repo.save({"model.safetensors": state}, ref="run", step=step)
            time.sleep(0.5)
        repo.wait()
        ended.set()
        watcher.join()
    copies = (most[0] - before) / nbytes(state)
    verdict = "right" if copies <= COPIES else "WRONG"
    over = (most[0] - before) / 1e6 - 2 * nbytes(state) / 1e6
    said = f"{copies:.3f} copies of {nbytes(state) / 1e6:.0f} MB above the arrays: two and {over:.0f} MB"
    print(f"memory: {said} {verdict}")


def stored(folder: Path) -> int:
    """Bytes of all objects."""
    return sum(path.stat().st_size for path in (folder / ".git" / "objects").rglob("*") if path.is_file())


def steps(count: int) -> None:
    """Print the time of steps at the beginning and at the end, and the bytes after gc beside a clone."""
    random = np.random.default_rng(0)
    state = {f"layers.{n}.weight": random.standard_normal((256, 384)).astype(np.float32) for n in range(8)}
    times = []
    with repository() as (folder, repo):
        run = theta.Run(repo, "r1", keep=theta.last(3) | theta.best("loss", 2))
        for step in range(count):
            for array in state.values():
                array += random.standard_normal(array.shape, np.float32) * np.float32(1e-3)
            began = time.process_time()
            run.save(step, {"model.safetensors": state}, {"loss": float(random.random())}).result()
            times.append(time.process_time() - began)
        before = stored(folder)
        subprocess.run(["git", "-C", str(folder), "gc", "-q", "--prune=now"], check=True)
        left, after = len(run.steps()), stored(folder)
        with tempfile.TemporaryDirectory() as clone:
            subprocess.run(["git", "init", "-q", clone], check=True)
            fetch = ["fetch", "-q", "--no-auto-maintenance", folder.as_uri(), f"{run.ref}:{run.ref}"]
            subprocess.run(["git", "-C", clone, *fetch], check=True)
            subprocess.run(["git", "-C", clone, "gc", "-q"], check=True)
            ratio = after / stored(Path(clone))
    part = max(count // 10, 1)
    first, last = statistics.median(times[5 : 5 + part]), statistics.median(times[-part:])
    verdict = "right" if ratio <= BYTES else "WRONG"
    pace = f"processor ms a step {first * 1e3:.0f} at first, {last * 1e3:.0f} at last"
    print(f"steps: {count}, {left} stay; {pace}")
    said = f"{before / 1e6:.1f} MB before gc, {after / 1e6:.1f} after"
    print(f"bytes: {said}, {ratio:.3f} of a clone of the steps that stay {verdict}")


def main() -> None:
    """Measure what the command line asks for."""
    what, *more = sys.argv[1:] or ["blocking"]
    if what == "blocking":
        if more:
            blocking("model", read_state(Path(more[0])), 15)
        else:
            blocking("synthetic", synthetic(90), 15)
        blocking("synthetic", synthetic(1000), 7)
    elif what == "memory":
        memory(int(more[0]) if more else 1000)
    else:
        steps(int(more[0]) if more else 1000)


if __name__ == "__main__":
    main()
