"""theta average along a history beside a plain mean of numpy over loaded arrays.

Makes a bf16 model (8 MB by default) and commits of small fine-tuning steps of it, then times

    theta      ``theta average RANGE -o FILE``: process start to file
    numpy      the float64 mean of the same versions, which are in memory already, rounded to bf16

and prints seconds and milliseconds a version, whether both means are the same bytes, and how many bytes of
objects below ``.theta/`` the mean reads beside those that the range stores.

    python bench/averaging.py DIRECTORY --versions 100
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
from measure import run
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from theta.porcelain.lineage import averaging
from theta.porcelain.lineage.averaging import AverageRequest
from theta.porcelain.workspace.session import Session
from theta.store.odb.objects import Objects

Array = NDArray[Any]
BF16 = np.dtype(ml_dtypes.bfloat16)


def steps(count: int, rows: int) -> list[dict[str, Array]]:
    """Return the versions of a training: every weight moves by about half a percent a step."""
    random = np.random.default_rng(0)
    wide = {f"layers.{n}.weight": random.normal(size=(rows, 1024)).astype(np.float32) for n in range(4)}
    found = []
    for _ in range(count):
        for values in wide.values():
            values += 0.005 * random.normal(size=values.shape).astype(np.float32)
        found.append({name: values.astype(BF16) for name, values in wide.items()})
    return found


def repository(place: Path, theta: str, versions: list[dict[str, Array]]) -> None:
    """Commit the versions, one after the other."""
    place.mkdir(parents=True)
    for words in (
        ["git", "init", "-q", "-b", "main"],
        [theta, "track", "*.safetensors"],
        [theta, "add", "."],
    ):
        run(words, place)
    for number, version in enumerate(versions):
        save_file(version, place / "model.safetensors")
        run([theta, "add", "model.safetensors"], place)
        run([theta, "commit", "-q", "-m", f"step {number}"], place)


def stored(place: Path) -> int:
    """Return the bytes of all objects below ``.theta/`` that the branch reaches."""
    listed = subprocess.run(
        ["git", "rev-list", "--objects", "main", "--", ".theta"], cwd=place, capture_output=True, check=True
    )
    rows = [row.split(b" ") for row in listed.stdout.split(b"\n")]
    named = b"\n".join(row[0] for row in rows if len(row) > 1 and row[1].startswith(b".theta/"))
    check = ["git", "cat-file", "--batch-check=%(objecttype) %(objectsize)"]
    told = subprocess.run(check, cwd=place, input=named, capture_output=True, check=True).stdout
    return sum(int(row.split()[1]) for row in told.split(b"\n") if row.startswith(b"blob"))


def bytes_read(place: Path, revisions: list[str], out: Path) -> int:
    """Return the bytes of the objects that an average in this process reads, each as often as it is read."""
    found = 0
    before = Objects.chunk

    def noted(self: Objects, oid: str, *args: int) -> bytes | memoryview:
        nonlocal found
        data = before(self, oid, *args)
        found += len(data)
        return data

    with mock.patch.object(Objects, "chunk", noted):
        session = Session.here(place)
        averaging.write(session, averaging.plan(session, AverageRequest(revisions)), out, force=True)
    return found


def numpy_mean(versions: list[dict[str, Array]]) -> tuple[float, dict[str, Array]]:
    """Return the seconds that the mean takes, and the mean."""
    start, mean = time.perf_counter(), {}
    for name in versions[0]:
        total = np.zeros(versions[0][name].shape, np.float64)
        for version in versions:
            total += version[name].astype(np.float64)
        mean[name] = (total / len(versions)).astype(np.float32).astype(BF16)
    return time.perf_counter() - start, mean


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--theta", default="theta")
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1024)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    versions, place = steps(options.versions, options.rows), options.directory / "repo"
    repository(place, options.theta, versions)
    raw = sum(array.nbytes for array in versions[0].values())
    first = f"main~{options.versions - 1}"
    words = [
        options.theta,
        "average",
        first,
        f"{first}..main",
        "-o",
        str(options.directory / "mean.safetensors"),
    ]
    timed = run(words, place)
    read = bytes_read(place, words[2:4], options.directory / "mean.safetensors")
    seconds, mean = numpy_mean(versions)
    made = load_file(options.directory / "mean.safetensors")
    report = {
        "versions": options.versions,
        "raw": raw,
        "theta": {
            "wall": timed.wall,
            "processor": timed.processor,
            "ms a version": 1000 * timed.wall / options.versions,
        },
        "numpy": {"wall": seconds, "ms a version": 1000 * seconds / options.versions},
        "ratio": timed.wall / seconds,
        "read": read,
        "stored": stored(place),
        "same": all(made[name].tobytes() == values.tobytes() for name, values in mean.items()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
