"""Programs that train with a framework, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parents[1] / "frameworks"


def need(*names: str) -> None:
    """Skip the test unless the modules ``names`` are installed; with ``CI=true`` it fails."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def start(program: str, *args: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the program of that name beside the tests, and return how it ended and what it printed."""
    # sums depend on the number of threads
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, *launcher, str(PROGRAMS / program), *map(str, args)]
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(words, capture_output=True, text=True, env=environment)


def printed(program: str, *args: object, launcher: tuple[str, ...] = ()) -> str:
    """Run the program, which must end well, and return the last line that it printed."""
    done = start(program, *args, launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]
