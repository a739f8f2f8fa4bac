"""theta average along a history beside a plain mean of numpy over loaded arrays.

Makes a bf16 model (8 MB by default) and commits of small fine-tuning steps of it, then times

    theta      ``theta average RANGE -o FILE``: process start to file
    numpy      the float64 mean of the same versions, which are in memory already, rounded to bf16

and prints seconds and milliseconds a version, and whether both means are the same bytes.  (A test counts
what the mean reads of the repository: tests/merging/test_averages.py.)

    python bench/averaging.py DIRECTORY --versions 100
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from measure import run
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

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
        "same": all(made[name].tobytes() == values.tobytes() for name, values in mean.items()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
