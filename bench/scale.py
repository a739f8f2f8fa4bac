"""How long add, push, clone and merge of models take that no machine here holds: a simulation, and its check.

    python -m bench.scale measure rates.json     measure this machine, then check the simulation on it
    python -m bench.scale plan rates.json        tables of 7B, 70B and 1T models on 1 to 64 workers
    python -m bench.scale draw rates.json scale.svg

Each operation costs processor seconds: so many for itself, a gigabyte and a tensor.  ``measure`` finds these
by runs with three models of different sizes, and then compares what is simulated for a fourth one, which has
another size and another number of tensors, with a run of that.  The rest is arithmetic: parts of work as
``theta.engine.rounds`` cuts them, dealt to workers longest first, none faster than the storage that they
share; and bytes over a network, in pushes that the host takes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from bench import measure
from theta.engine import rounds

MODEL: Final = "model.safetensors"
OPERATIONS: Final = ("add", "tune", "merge", "push", "clone", "restore")
SPREAD: Final = ("add", "tune", "merge")
"""The operations whose work on tensors is done by the workers of an engine."""
WORKERS: Final = (1, 2, 4, 8, 16, 32, 64)
ALLOWED: Final = 0.20
"""The largest share by which a simulated run may miss the measured one."""
CHUNK: Final = 4 << 20


@dataclass(frozen=True)
class Rate:
    """Processor seconds of one operation: of itself, of a gigabyte (10^9 raw bytes), and of a tensor."""

    fixed: float
    gigabyte: float
    tensor: float

    def seconds(self, nbytes: float, tensors: float) -> float:
        """Return the processor seconds for so much."""
        return self.fixed + self.gigabyte * nbytes / 1e9 + self.tensor * tensors


@dataclass(frozen=True)
class ModelSize:
    """A model: raw bytes, tensors, and the bytes of its largest tensor."""

    name: str
    nbytes: float
    tensors: int
    largest: float

    @property
    def chunks(self) -> float:
        """Chunks of 4 MiB, at least one a tensor."""
        return max(self.nbytes / CHUNK, 1) + self.tensors / 2


MODELS: Final = (
    ModelSize("7B", 15.2e9, 339, 1.1e9),
    ModelSize("70B", 141e9, 723, 2.1e9),
    ModelSize("1T", 2.05e12, 70_500, 2.4e9),
)
"""Shapes of Qwen2.5-7B, Llama-3-70B and of a mixture of 384 experts in 61 layers, in bf16."""


@dataclass(frozen=True)
class Site:
    """A place where it runs, in bytes a second.

    Attributes:
        storage: bytes a second, read and written together.
        network: bytes a second to and from the host.
        push_limit: bytes of one push; 0 when there is no limit.
        push_overhead: seconds that each push takes besides.
        cores: of the machine that the command is started on.
    """

    name: str
    storage: float
    network: float
    push_limit: float
    push_overhead: float = 2.0
    cores: int = 8


SITES: Final = (
    Site("one machine, 1 Gbit/s, GitHub", 2e9, 0.115e9, 2 * 2**30),
    Site("cluster, 10 Gbit/s, own host", 20e9, 1.15e9, 0, cores=16),
)


@dataclass(frozen=True)
class Rates:
    """All that was measured: the rate of each operation, and stored bytes over raw ones."""

    rates: Mapping[str, Rate]
    stored_new: float
    stored_tuned: float


def spread(lengths: Sequence[float], workers: int, second_of: float) -> float:
    """Return the seconds until the last of some workers is done, who take the longest part that is left."""
    free = [0.0] * workers
    for length in sorted(lengths, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + length * second_of)
    return max(free)


def parts(model: ModelSize) -> list[float]:
    """Return the raw bytes of each part: whole tensors, as the engine cuts them."""
    most = rounds.part_bytes(int(model.nbytes))
    large = [model.largest] if model.largest > most else []
    rest = model.nbytes - sum(large)
    count = max(1, round(rest / most))
    return [*large, *[rest / count] * count]


def simulated(operation: str, model: ModelSize, site: Site, workers: int, found: Rates) -> float:
    """Return the wall seconds of one operation."""
    rate = found.rates[operation]
    stored = model.nbytes * (found.stored_tuned if operation in ("tune", "merge") else found.stored_new)
    serial = rate.fixed + rate.tensor * model.tensors
    if operation in SPREAD:
        moved = model.nbytes * (3 if operation == "merge" else 1) + stored
        return serial + max(spread(parts(model), workers, rate.gigabyte / 1e9), moved / site.storage)
    if operation == "restore":
        return serial + max(
            rate.gigabyte * model.nbytes / 1e9 / site.cores, (stored + model.nbytes) / site.storage
        )
    pushes = max(1, -(-stored // site.push_limit)) if operation == "push" and site.push_limit else 1
    work = serial + rate.gigabyte * model.nbytes / 1e9
    return pushes * site.push_overhead + max(work, stored / site.network)


# -- measuring ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A model to measure with: square matrices, and small tensors beside them."""

    matrices: int
    small: int
    side: int = 1448

    @property
    def nbytes(self) -> int:
        """Raw bytes."""
        return self.matrices * self.side * self.side * 2 + self.small * 4096

    @property
    def tensors(self) -> int:
        """The number of tensors."""
        return self.matrices + self.small

    def write(self, place: Path, steps: Sequence[int]) -> None:
        """Write the model after steps of fine-tuning, which are named by seeds."""
        rng = np.random.default_rng(0)
        found = {}
        for number in range(self.tensors):
            shape = (self.side, self.side) if number < self.matrices else (32, 64)
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            for seed in steps:
                noise = np.random.default_rng((seed, number)).standard_normal(shape, dtype=np.float32)
                values += noise * np.float32(3e-4)
            found[f"layers.{number}.w"] = values.astype(ml_dtypes.bfloat16)
        save_file(found, place)


SAMPLES: Final = (Sample(6, 20), Sample(30, 20), Sample(6, 1500))
CHECKED: Final = Sample(18, 700)


def cpu(command: Sequence[str], place: Path) -> float:
    """Run a command; return its processor seconds, those of what it starts included."""
    return measure.run(command, place).processor


def measured(sample: Sample, theta: str) -> tuple[dict[str, float], float, float]:
    """Run all operations; return their processor seconds, and the stored share of a new and a tuned model."""
    with tempfile.TemporaryDirectory() as scratch:
        place, host = Path(scratch) / "r", Path(scratch) / "host.git"
        subprocess.run(["git", "init", "-q", "-b", "main", str(place)], check=True)
        subprocess.run(["git", "init", "-q", "--bare", str(host)], check=True)
        for words in (["user.name", "a"], ["user.email", "a@b"], ["gc.auto", "0"]):
            subprocess.run(["git", "config", *words], cwd=place, check=True)
        subprocess.run([theta, "track", "*.safetensors"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        found = dict(_operations(sample, theta, place, host))
        return found, found.pop("stored new"), found.pop("stored tuned")


def _operations(sample: Sample, theta: str, place: Path, host: Path) -> Iterator[tuple[str, float]]:
    model = place / MODEL
    sample.write(model, ())
    add = cpu([theta, "add", "."], place)
    yield "add", add + cpu([theta, "commit", "-q", "-m", "base"], place)
    size = _stored(place)
    yield "stored new", size / sample.nbytes
    yield "push", cpu([theta, "push", "-q", str(host), "main"], place)
    yield "clone", cpu(["git", "clone", "-q", "--bare", f"file://{host}", "copy.git"], host.parent)
    model.unlink()
    yield "restore", cpu([theta, "restore", MODEL], place)
    for branch, step in (("one", 1), ("two", 2)):
        cpu([theta, "switch", "-q", "-c", branch, "main"], place)
        sample.write(model, (step,))
        tune = cpu([theta, "commit", "-q", "-a", "-m", branch], place)
        if branch == "one":
            yield "stored tuned", (_stored(place) - size) / sample.nbytes
    yield "tune", tune
    yield "merge", cpu([theta, "merge", "-q", "-X", "linear:weight=0.5", "one"], place)


def _stored(place: Path) -> int:
    return measure.size(place / ".git" / "objects")


def fitted(rows: Sequence[tuple[Sample, float]]) -> Rate:
    """Return the rate that goes through the runs."""
    ones = np.array([(1, sample.nbytes / 1e9, sample.tensors) for sample, _ in rows])
    fixed, gigabyte, tensor = np.linalg.solve(ones, np.array([seconds for _, seconds in rows]))
    return Rate(max(float(fixed), 0), max(float(gigabyte), 0), max(float(tensor), 0))


def best(sample: Sample, theta: str, runs: int) -> tuple[dict[str, float], float, float]:
    """Return the least processor seconds of some runs."""
    made = []
    for _ in range(runs):
        made.append(measured(sample, theta))
        print(
            f"{sample.nbytes / 1e6:.0f} MB, {sample.tensors} tensors: {made[-1]}", file=sys.stderr, flush=True
        )
    return {key: min(run[0][key] for run in made) for key in OPERATIONS}, made[0][1], made[0][2]


def checked(target: Path, theta: str, runs: int) -> bool:
    """Measure, write what was found, and print the check; return whether it holds."""
    made = [(sample, best(sample, theta, runs)) for sample in SAMPLES]
    rates = {key: fitted([(sample, run[0][key]) for sample, run in made]) for key in OPERATIONS}
    found = Rates(rates, made[1][1][1], made[1][1][2])
    seconds, _, _ = best(CHECKED, theta, runs)
    target.write_text(json.dumps(asdict(found) | {"measured": seconds}, indent=1) + "\n")
    holds = True
    print(f"{CHECKED.nbytes / 1e6:.0f} MB, {CHECKED.tensors} tensors, processor seconds")
    print("| | a GB | 1,000 tensors | simulated | measured | ratio |\n|---|---|---|---|---|---|")
    for key, rate in rates.items():
        ratio = rate.seconds(CHECKED.nbytes, CHECKED.tensors) / seconds[key]
        holds &= abs(ratio - 1) <= ALLOWED
        told = (rate.gigabyte, rate.tensor * 1000, ratio * seconds[key], seconds[key], ratio)
        print(f"| {key} | " + " | ".join(f"{number:.2f}" for number in told) + " |")
    return holds


def load(place: Path) -> Rates:
    """Read what was measured."""
    text = json.loads(place.read_text())
    rates = {key: Rate(**rate) for key, rate in text["rates"].items()}
    return Rates(rates, text["stored_new"], text["stored_tuned"])


# -- telling -----------------------------------------------------------------------------------


def told(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plan(found: Rates) -> Iterator[str]:
    """Yield the rows of a table for each site."""
    for site in SITES:
        yield f"\n{site.name}\n"
        yield "| | " + " | ".join(f"{count} workers" for count in (1, 8, 64)) + " |\n|---|---|---|---|"
        for model in MODELS:
            for operation in OPERATIONS:
                row = [told(simulated(operation, model, site, count, found)) for count in (1, 8, 64)]
                row = row if operation in SPREAD else [row[0], "", ""]
                yield f"| {model.name}, {operation} | " + " | ".join(row) + " |"


PANEL: Final = (300, 210)
COLOURS: Final = ("#4477aa", "#cc6677", "#228833")
LOWEST, HIGHEST = 1.0, 1e5
GREY: Final = 'fill="#555555"'


def draw(found: Rates) -> str:
    """Return the curves as SVG: wall time over workers, one panel an operation and a site."""
    width, height = PANEL[0] * 3 + 70, PANEL[1] * 2 + 90
    body = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for row, site in enumerate(SITES):
        for column, operation in enumerate(("add", "merge", "push")):
            body += _panel(50 + column * (PANEL[0] + 5), 40 + row * (PANEL[1] + 20), site, operation, found)
    body += _legend(height)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="11">', *body, "</svg>"]) + "\n"


def _panel(left: float, top: float, site: Site, operation: str, found: Rates) -> Iterator[str]:
    inner_width, inner_height = PANEL[0] - 45, PANEL[1] - 45

    def at(workers: float, seconds: float) -> str:
        x = left + inner_width * np.log2(workers) / 6
        share = np.log(min(max(seconds, LOWEST), HIGHEST) / LOWEST) / np.log(HIGHEST / LOWEST)
        return f"{x:.1f},{top + inner_height * (1 - share):.1f}"

    yield f'<text x="{left}" y="{top - 8}" font-weight="bold">{operation}: {site.name}</text>'
    for seconds, label in (
        (1, "1 s"),
        (10, "10 s"),
        (60, "1 min"),
        (600, "10 min"),
        (3600, "1 h"),
        (36000, "10 h"),
    ):
        start, end = at(1, seconds), at(64, seconds)
        yield f'<polyline points="{start} {end}" stroke="#dddddd" fill="none"/>'
        y = float(start.split(",")[1]) + 4
        yield f'<text x="{left - 4}" y="{y}" text-anchor="end" {GREY}>{label}</text>'
    for count in WORKERS:
        x = at(count, 1).split(",")[0]
        yield f'<text x="{x}" y="{top + inner_height + 14}" text-anchor="middle" {GREY}>{count}</text>'
    for model, colour in zip(MODELS, COLOURS, strict=True):
        points = [at(count, simulated(operation, model, site, count, found)) for count in WORKERS]
        yield f'<polyline points="{" ".join(points)}" stroke="{colour}" stroke-width="2" fill="none"/>'


def _legend(height: float) -> Iterator[str]:
    for number, (model, colour) in enumerate(zip(MODELS, COLOURS, strict=True)):
        x, y = 50 + number * 110, height - 12
        yield f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colour}"/>'
        yield f'<text x="{x + 24}" y="{y - 3}">{model.name}, {model.nbytes / 1e9:.0f} GB</text>'
    said = "wall time over workers; simulated by bench/scale.py"
    yield f'<text x="400" y="{height - 15}" {GREY}>{said}</text>'


def main() -> int:
    """Measure, tell or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["measure", "plan", "draw"])
    parser.add_argument("rates", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--theta", default=shutil.which("theta", path=Path(sys.executable).parent) or "theta")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    if asked.what == "measure":
        return 0 if checked(asked.rates, asked.theta, asked.runs) else 1
    found = load(asked.rates)
    if asked.what == "plan":
        print("\n".join(plan(found)))
    else:
        (asked.target or Path("scale.svg")).write_text(draw(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
