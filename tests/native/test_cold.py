"""A first run on a machine: no kernel is compiled yet, and threads want them at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOUR_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from theta.codecs import dense

gate = threading.Barrier(4)

def both_ways(job):
    dtype, kind = job
    raw = np.random.default_rng(7).standard_normal(100_000).astype(kind).tobytes()
    gate.wait()
    return dense.decode(dense.encode(raw, dtype), dtype, len(raw)) == raw

jobs = [("f32", "f4"), ("f16", "f2")] * 2
with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(both_ways, jobs))
"""


def cold(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    return subprocess.run(
        [sys.executable, "-W", "error", *command], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_c1_a_codec_on_four_threads_with_an_empty_cache(tmp_path: Path) -> None:
    done = cold(tmp_path, "-c", FOUR_THREADS)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "kernels").rglob("*.nbc"))


@pytest.mark.campaign
@pytest.mark.parametrize("suite", ["codecs", "native", "merging"])
def test_c1_campaign_suites_on_four_threads_with_an_empty_cache_and_bounds_checks(
    tmp_path: Path, suite: str
) -> None:
    done = cold(tmp_path, "-m", "pytest", "-q", "-p", "tests.support.four_threads", f"tests/{suite}")
    assert done.returncode == 0, done.stdout + done.stderr
