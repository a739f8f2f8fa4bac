"""A checkpoint of 5 GB with 20,000 tensors, in a sparse file: memory does not grow with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from theta import formats
from theta.store.files.file_source import FileSource

ROOT = Path(__file__).parents[2]
COUNT, LENGTH = 20_000, 262_144

CHILD = """
import resource, sys
from pathlib import Path
from theta import formats
from theta.store import snapshot
from theta.store.files.file_source import FileSource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with FileSource(Path(sys.argv[1])) as source:
    found = snapshot.scan(source, None, None)
print(len(found.layout.tensors), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def sparse(path: Path) -> Path:
    """A safetensors file of zeros that takes little room on disk."""
    header = {
        f"model.layers.{number}.weight": {
            "dtype": "BF16",
            "shape": [256, 512],
            "data_offsets": [number * LENGTH, (number + 1) * LENGTH],
        }
        for number in range(COUNT)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + COUNT * LENGTH)
    return path


def test_reading_where_the_tensors_lie_reads_the_header_only(tmp_path: Path) -> None:
    path = sparse(tmp_path / "big.safetensors")
    with FileSource(path) as source:
        reads: list[int] = []
        plain = source.read

        def counted(offset: int, length: int) -> bytes:
            reads.append(length)
            return plain(offset, length)

        source.read = counted  # type: ignore[method-assign]
        layout = formats.scan(source)
    assert source.size > 5 * 10**9 and len(layout.tensors) == COUNT
    assert sum(reads) < 4 * 2**20


@pytest.mark.campaign
def test_hashing_all_of_it_takes_bounded_memory(tmp_path: Path) -> None:
    path = sparse(tmp_path / "big.safetensors")
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == COUNT
    assert megabytes < 200
