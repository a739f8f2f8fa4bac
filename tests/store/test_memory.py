"""Memory: a checkpoint of a gigabyte commits, and restores, within 600 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import Repo, sha256

LIMIT = 600 << 20
MEGABYTE = 1 << 20


def large_model(path: Path, megabytes: int, seed: int = 0) -> None:
    """Float32 tensors of 64 MB; one block of random values, shifted, stands for them all."""
    block = (np.random.default_rng(seed).standard_normal(4 * MEGABYTE) * 0.02).astype(np.float32)
    count = megabytes // 64
    size = 64 * MEGABYTE
    entries = {
        f"layers.{n}.w": {"dtype": "F32", "shape": [16384, 1024], "data_offsets": [n * size, (n + 1) * size]}
        for n in range(count)
    }
    text = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number in range(count * 4):
            file.write(np.roll(block, number * 12345).tobytes())


# A process of its own: a child's peak begins with that of the process that forked it, and tests grow.
MEASURE = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "theta", *sys.argv[2:]])
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as report:
    report.write(str(usage.ru_maxrss))
sys.exit(child.returncode)
"""


def peak(repo: Repo, *args: str) -> int:
    """The most memory that ``theta ARGS`` held, children included, in bytes."""
    report = repo.path.parent / "peak"
    subprocess.run([sys.executable, "-c", MEASURE, str(report), *args], cwd=repo.path, check=True)
    return int(report.read_text()) * 1024


@pytest.mark.slow
def test_a_gigabyte_in_600_megabytes(repo: Repo) -> None:
    repo.theta("track", "*.safetensors")
    path = repo.path / "m.safetensors"
    large_model(path, 1024)
    wanted = sha256(path)
    used = {"add": peak(repo, "add", "m.safetensors")}
    used["commit"] = peak(repo, "commit", "-m", "large")
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\1" * MEGABYTE)
    changed = sha256(path)
    used["commit -a"] = peak(repo, "commit", "-a", "-m", "changed")
    path.unlink()
    used["restore"] = peak(repo, "restore", "m.safetensors")
    assert sha256(path) == changed
    used["restore --source"] = peak(repo, "restore", "--source", "HEAD^", "m.safetensors")
    assert sha256(path) == wanted
    used["status"] = peak(repo, "status")
    print({name: size >> 20 for name, size in used.items()})
    assert max(used.values()) < LIMIT
