"""How the process of the command line treats memory, and how it ends."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import theta

ARENAS = """
import ctypes, os, threading
if {settled}:
    from theta import _memory
    _memory.one_heap()
library, gate = ctypes.CDLL(None), threading.Barrier(4)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]

def work():
    gate.wait()
    assert library.malloc(100000)
    gate.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have one heap")
@pytest.mark.parametrize("settled", [True, False])
def test_threads_share_a_heap(settled: bool) -> None:
    code = ARENAS.format(settled=settled)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (len(re.findall(r"^Arena \d+:", done.stderr, re.MULTILINE)) == 1) == settled


def test_all_that_is_printed_gets_out_before_the_end(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        subprocess.run([sys.executable, "-m", "theta", "help", "format"], stdout=file, check=True)
    manual = Path(theta.__file__).with_name("docs") / "format.md"
    assert (tmp_path / "out").read_text().rstrip() == manual.read_text().rstrip()


@pytest.mark.parametrize("args", [["--version"], ["help", "design"]])
def test_a_full_disk_behind_standard_output_is_an_error(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "theta", *args], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


A_PROCESS_WITH_NUMPY = """
import os, subprocess, sys
from theta.cli import start
start.begin_no_threads()
import numpy
numpy.ones((400, 400)) @ numpy.ones((400, 400))
print(len(os.listdir("/proc/self/task")))
print(os.environ.get("OPENBLAS_NUM_THREADS"))
environment = dict(os.environ)
command = [sys.executable, "-c", "import os; print(os.environ.get('OPENBLAS_NUM_THREADS'))"]
print(subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of threads")
def test_the_blas_begins_no_threads_and_children_may() -> None:
    usual = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    most = min(2, len(os.sched_getaffinity(0)))
    for given, threads, there in (({}, 1, None), ({"OPENBLAS_NUM_THREADS": "2"}, most, "2")):
        done = subprocess.run(
            [sys.executable, "-c", A_PROCESS_WITH_NUMPY], env=usual | given, capture_output=True, text=True
        )
        assert done.stdout.split() == [str(threads), str(there), str(there)], done.stderr
