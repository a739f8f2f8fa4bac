"""Mutated files of the main formats, in child processes; the guard itself is tested first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats import fuzzing

ROOT = Path(__file__).parents[2]


def child(*code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000, check=False)


def campaign(name: str, seed: int, count: int) -> int:
    """Run one child; the number of files that it read as tensors."""
    done = child("-m", "tests.formats.fuzzing", name, str(seed), str(count))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("bytearray(80 * 2**20)", "MemoryError"),
        ("import antigravity_is_not_there", "ModuleNotFoundError"),
        ("eval('1')", "compile"),
        ("open('/dev/null')", "open"),
    ],
)
def test_the_guard_sees(code: str, expected: str) -> None:
    text = f"from tests.formats.fuzzing import guard\nseen = guard()\n{code}\nraise SystemExit(str(seen))"
    assert expected in child("-c", text).stderr


@pytest.mark.parametrize("name", fuzzing.FORMATS)
def test_mutated_files(name: str) -> None:
    assert campaign(name, 1, 400) > 4


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("name", fuzzing.FORMATS)
def test_mutated_files_at_length(name: str, seed: int) -> None:
    """Two times 60,000 files of each of the four main formats, and of the others together."""
    assert campaign(name, seed, 60_000) > 600
