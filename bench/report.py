"""The results of bench/run.py as JSON and as Markdown: medians, spreads, and ratios of medians."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

YARDSTICKS = ("git-lfs", "floor", "theta")
"""The contestants whose figures the others are divided by."""


@dataclass(frozen=True)
class Sample:
    """One step of one contestant, once."""

    workload: str
    step: str
    contestant: str
    cache: str
    round: int
    wall: float
    processor: float
    resident: float
    bytes: int
    compiled: int


def machine() -> dict[str, Any]:
    """Return the machine and the versions that the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def as_json(facts: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """Every sample, none left out."""
    return {**facts, "samples": [asdict(sample) for sample in samples]}


def as_markdown(facts: dict[str, Any], about: dict[str, str], samples: Sequence[Sample]) -> str:
    """One table for each workload and state of the page cache."""
    lines = [f"- {key}: {value}" for key, value in facts["machine"].items()]
    lines += [f"- {name}: {version}" for name, version in facts["contestants"].items()]
    lines += [
        f"- command: `{facts['command']}`, {facts['date']}",
        "",
        "Medians of all runs, in brackets the least and the most. Processor seconds are those of all",
        "processes; memory is that of the largest, and never under that of the measuring program, 21 MB.",
        "`.git` is the whole repository after the step.",
        "Ratios are of the medians of wall seconds, and of processor seconds.",
    ]
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.workload, sample.cache].append(sample)
    for (workload, cache), members in groups.items():
        lines += ["", f"## {workload}: {about[workload]}, page cache {cache}", "", *_table(members)]
    return "\n".join(lines) + "\n"


def _table(samples: Sequence[Sample]) -> Iterator[str]:
    names = [name for name in YARDSTICKS if any(sample.contestant == name for sample in samples)]
    heads = ["step", "tool", "runs", "wall s", "processor s", "MB", "`.git` MB", *(f"/ {n}" for n in names)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * 2}{'---:|' * (len(heads) - 2)}"
    rows: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        rows[sample.step][sample.contestant].append(sample)
    for step, tools in rows.items():
        for tool, runs in tools.items():
            over = [_ratio(runs, tools.get(name, []), tool == name) for name in names]
            yield f"| {step} | {tool} | {len(runs)} | {' | '.join([*_figures(runs), *over])} |"


def _figures(runs: Sequence[Sample]) -> Iterator[str]:
    for values in ([run.wall for run in runs], [run.processor for run in runs]):
        yield f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
    yield f"{max(run.resident for run in runs):.0f}"
    yield f"{median(run.bytes for run in runs) / 1e6:.1f}" if runs[0].bytes else ""


def _ratio(runs: Sequence[Sample], others: Sequence[Sample], same: bool) -> str:
    if same or not others:
        return ""
    walls, seconds = (
        median(getattr(run, what) for run in runs) / max(1e-3, median(getattr(run, what) for run in others))
        for what in ("wall", "processor")
    )
    return f"{walls:.2f}, {seconds:.2f}"


def notes(samples: Sequence[Sample]) -> Iterator[str]:
    """Steps that compiled kernels though the cache was warm: their seconds tell something else."""
    for sample in samples:
        if sample.compiled and "empty" not in sample.step:
            yield f"{sample.workload}: {sample.contestant} compiled in '{sample.step}', round {sample.round}"
