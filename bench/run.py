"""theta beside git-lfs, plain git and the floor: the same steps in turn, in the same minutes.

    python bench/run.py [--theta PATH [--theta PATH]] [--only llama,fresh] [-n 5] [--tools theta,git-lfs]
    python bench/run.py --compare main~20 [--compare main]

PATH is a ``theta`` command, or a clone of this repository at the revision to measure; two of them are
compared.  ``--compare`` clones a revision of this repository; a single one is compared with the files
here.  In each round every tool begins with an empty repository, and each step is done by all tools,
one after the other, before the next step; the order turns with the rounds.  Before that, theta compiles
all its kernels, and does the workload once on a small model.  The floor (bench/floor.py) reads the
files, hashes and writes as many bytes as the first theta wrote, and waits for the disk.

The 90 MB model and its fine-tunes come from bench/finetunes.py: ``--pairs DIRECTORY``.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import measure
import report
from contestants import Contestant, Floor, Git, Lfs, PlainGit, Step, Theta
from report import Sample
from workloads import WORKLOADS, Workload, chosen

TOOLS = ("theta", "filter", "git-lfs", "git", "floor")
WARM_UP, COLD = "warm-up", "cold"
SMALL = 0.02
"""The scale of the models of a warm-up."""
SETTLE = 1.1
"""Seconds until git trusts the time of a file (racy-git in git's documentation)."""


HERE = Path(__file__).resolve().parent.parent
"""The clone that this program belongs to."""


def _named(revision: str) -> str:
    """Return the id of a revision of this clone."""
    command = ["git", "-C", str(HERE), "rev-parse", "--verify", f"{revision}^{{commit}}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@dataclass(frozen=True)
class Place:
    """A contestant and its repository of this round."""

    contestant: Contestant
    repository: Path


class Round:
    """All steps of a workload, once, by every contestant."""

    def __init__(self, workload: tuple[str, Workload], models: Path, cache: str, number: int) -> None:
        self.name, self.workload = workload
        self.models, self.cache, self.number = models, cache, number
        self.samples: list[Sample] = []
        self.places: list[Place] = []
        self.floor: Floor | None = None

    def run(self, scale: float, repetitions: int) -> list[Sample]:
        """Do every step; returns what was measured."""
        for place in self.places:
            place.contestant.prepare(place.repository)
        steps = self.workload.steps(scale)
        for again, group in itertools.groupby(steps, lambda step: step.again):
            members = list(group)
            for turn in range(repetitions if again and self.workload.once else 1):
                for step in members:
                    self._step(step, turn)
        return self.samples

    def _step(self, step: Step, turn: int) -> None:
        wrote, shift = 0, (self.number + turn) % max(1, len(self.places))
        for place in self.places[shift:] + self.places[:shift]:
            before = place.contestant.bytes(place.repository)
            self._one(place, step, turn)
            if place.contestant.name == "theta":
                wrote = place.contestant.bytes(place.repository) - before
        if self.floor:
            self._floor(self.floor, step, wrote, turn)

    def _one(self, place: Place, step: Step, turn: int) -> None:
        contestant, repository = place.contestant, place.repository
        paths = self._put(step, repository)
        if not (commands := contestant.commands(step, paths)):
            return
        if step.kind == "status":
            time.sleep(SETTLE)
            measure.run(commands[0], repository, contestant.env)
        contestant.choose_cache(empty=step.empty)
        compiled = contestant.compiled()
        self._pages([repository / path for path in paths], repository)
        spent = sum((measure.run(c, repository, contestant.env) for c in commands), measure.NOTHING)
        size, kernels = contestant.bytes(repository), contestant.compiled() - compiled
        self._note(step, contestant.name, turn, spent, size, kernels)
        if step.kind == "commit":
            contestant.do("git", "tag", step.version, where=repository)

    def _floor(self, floor: Floor, step: Step, wrote: int, turn: int) -> None:
        sources = self._files(step.version) if step.version else []
        if commands := floor.commands(step, sources, wrote):
            self._pages(sources, *sources)
            spent = measure.run(commands[0], floor.folder, floor.env)
            self._note(step, floor.name, turn, spent, 0, 0)

    def _files(self, version: str) -> list[Path]:
        return sorted(path for path in (self.models / version).iterdir() if path.is_file())

    def _put(self, step: Step, repository: Path) -> list[str]:
        """Put the files of a version to be committed into the worktree, and settle the disk."""
        files = self._files(step.version) if step.version else []
        if step.kind == "commit":
            for path in files:
                shutil.copyfile(path, repository / path.name)
        return [path.name for path in files]

    def _pages(self, files: Sequence[Path], *places: Path) -> None:
        if self.cache == COLD:
            measure.forget_pages(places)
        else:
            measure.warm([file for file in files if file.exists()])

    def _note(self, step: Step, tool: str, turn: int, spent: measure.Timed, size: int, compiled: int) -> None:
        figures = (round(spent.wall, 4), round(spent.processor, 4), round(spent.resident, 1))
        number = self.number + turn
        self.samples.append(Sample(self.name, step.name, tool, self.cache, number, *figures, size, compiled))
        print(f"{self.name:8} {self.cache:7} {number} {step.name:41} {tool:10} {spent}", flush=True)


class Bench:
    """The contestants, and a scratch folder."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.tools = options.tools.split(",")
        self.contestants = list(self._contestants())

    def _contestants(self) -> Iterator[Contestant]:
        paths = [*self.options.theta, *map(self._clone, self.options.compare)]
        if self.options.compare and len(paths) == 1:
            paths.insert(0, HERE)
        paths = paths or [Path(shutil.which("theta") or sys.exit("no theta is installed"))]
        for number, path in enumerate(paths):
            end = "" if number == 0 else f" {number + 1}"
            for tool, kind in (("theta", Theta), ("filter", PlainGit)):
                if tool in self.tools:
                    yield kind(f"{tool}{end}", self.scratch / f"{tool}{number}", path)
        for tool, plain in (("git-lfs", Lfs), ("git", Git)):
            if tool in self.tools:
                yield plain(tool, self.scratch / tool)

    def _clone(self, revision: str) -> Path:
        """Return a clone of this repository at ``revision``."""
        place = self.scratch / f"revision-{revision.replace('/', '-')}"
        for command in (
            ["git", "clone", "-q", "--no-checkout", str(HERE), str(place)],
            ["git", "-C", str(place), "checkout", "-q", _named(revision)],
        ):
            subprocess.run(command, check=True)
        return place

    def models(self, name: str, workload: Workload, scale: float) -> Path:
        """Return the folder of a workload's models; they are made when they are first needed."""
        folder: Path = (self.options.models or self.scratch / "models") / f"{name}-{scale:g}"
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            workload.make(folder.resolve(), scale, self.options.pairs)
            (folder / "made").touch()
        return folder.resolve()

    def round(self, named: tuple[str, Workload], scale: float, cache: str, number: int) -> Round:
        """A round with a new repository for every contestant; a warm-up is theta's alone."""
        found = Round(named, self.models(*named, scale), cache, number)
        repositories = self.scratch / "repositories"
        shutil.rmtree(repositories, ignore_errors=True)
        repositories.mkdir()
        found.places = [
            Place(tool, repositories / tool.name.replace(" ", "-"))
            for tool in self.contestants
            if isinstance(tool, Theta) or cache != WARM_UP
        ]
        if "floor" in self.tools and cache != WARM_UP:
            found.floor = Floor(repositories)
        return found

    def run(self, named: tuple[str, Workload]) -> Iterator[Sample]:
        """All rounds of a workload, those with a cold page cache behind the others."""
        scale, runs = self.options.scale, self.options.repetitions
        small = scale if named[1].real else min(scale, SMALL)
        self.round(named, small, WARM_UP, 0).run(small, 1)
        for cache in self.options.cache.split(","):
            for number in range(1 if named[1].once else runs):
                yield from self.round(named, scale, cache, number).run(scale, runs)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--theta", type=Path, action="append", default=[], help="a command or a clone; twice to compare"
    )
    parser.add_argument(
        "--compare", action="append", default=[], metavar="REV", help="a revision to measure; twice for two"
    )
    parser.add_argument("--only", default="", help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--tools", default=",".join(TOOLS), help="some of %(default)s")
    parser.add_argument("-n", "--repetitions", type=int, default=5)
    parser.add_argument("--cache", default="warm", help="warm, cold, or warm,cold")
    parser.add_argument("--scale", type=float, default=1.0, help="smaller models: 0.1 is a tenth")
    parser.add_argument("--pairs", type=Path, help="what bench/finetunes.py wrote")
    parser.add_argument("--models", type=Path, help="where models are kept for the next run")
    parser.add_argument(
        "--scratch", type=Path, help="the folder for repositories: it decides which disk is used"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def save(options: argparse.Namespace, bench: Bench, samples: list[Sample]) -> None:
    """Write what was measured so far."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["bench/run.py", *sys.argv[1:]]),
        "machine": report.machine(),
        "contestants": {tool.name: tool.version() for tool in bench.contestants},
    }
    about = {name: workload.about for name, workload in WORKLOADS.items()}
    if options.json:
        options.json.write_text(json.dumps(report.as_json(facts, samples), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.as_markdown(facts, about, samples))


def main() -> None:
    """Run the chosen workloads; what was measured is written after each."""
    options = parse()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="theta-bench-") as scratch:
        bench = Bench(options, Path(scratch))
        for tool in bench.contestants:
            if isinstance(tool, Theta):
                tool.warm()
        for named in chosen(options.only, options.pairs):
            samples += bench.run(named)
            save(options, bench, samples)
    for line in report.notes(samples):
        print(line)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
