"""Measure git's commands on an index of very many entries below ``.theta/``, in processor time.

    python bench/index_size.py [--entries 500000] [--tensors 5000] [--git PROGRAM] [--runs 3]

Builds a repository of two commits that differ in every entry, as two models do, and one file of code.  Prints
a table: for each setting of git the bytes of the index, and the least processor seconds of some runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import measure

SETTINGS: dict[str, list[list[str]]] = {
    "as git has it": [],
    "index v4": [["config", "index.version", "4"], ["update-index", "--index-version", "4"]],
    "untracked cache": [["config", "core.untrackedCache", "true"], ["update-index", "--untracked-cache"]],
    "fsmonitor": [["config", "core.fsmonitor", ".git/monitor"], ["update-index", "--fsmonitor"]],
    "split index": [["config", "core.splitIndex", "true"], ["update-index", "--split-index"]],
    "sparse index": [["sparse-checkout", "set", "--cone", "--sparse-index"]],
}
_MONITOR = '#!/bin/sh\nprintf "token\\0"\n'


class Clone:
    """A repository, and a git that runs in it."""

    def __init__(self, place: Path, git: str) -> None:
        self.place, self.git = place, git
        self._environment = os.environ | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        if (Path(git).parent / "git-remote-http").exists() or (Path(git).parent / "git-sh-setup").exists():
            self._environment["GIT_EXEC_PATH"] = str(Path(git).parent)

    def run(self, *words: str, text: str | None = None) -> str:
        """Run git; return what it prints."""
        done = subprocess.run(
            [self.git, *words],
            cwd=self.place,
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env=self._environment,
        )
        return done.stdout.strip()

    def seconds(self, *words: str) -> float:
        """Run git; return its processor seconds."""
        return measure.run([self.git, *words], self.place, self._environment).processor


def build(place: Path, git: str, entries: int, tensors: int) -> Clone:
    """Make a repository whose two commits have ``entries`` entries below ``.theta/`` in ``tensors`` trees."""
    subprocess.run([git, "init", "-q", "-b", "main", str(place)], check=True)
    clone = Clone(place, git)
    for key, value in (("user.name", "a"), ("user.email", "a@b"), ("gc.auto", "0")):
        clone.run("config", key, value)
    clone.run("sparse-checkout", "init", "--no-cone")
    clone.run("sparse-checkout", "set", "--no-cone", "/*", "!/.theta/")
    for version in ("one", "two"):
        blob = clone.run("hash-object", "-w", "--stdin", text=version)
        names = (f".theta/m/layers/{n // 50}/part{n % 50}" for n in range(tensors))
        files = ["@tensor", *(f"0.{n:04d}" for n in range(entries // tensors - 1))]
        rows = (f"100644 {blob}\t{name}/{file}\n" for name in names for file in files)
        clone.run("update-index", "--index-info", text="".join(rows))
        (place / "code.py").write_text(version)
        clone.run("add", "code.py")
        clone.run("commit", "-q", "-m", version)
        clone.run("sparse-checkout", "reapply")
    return clone


def measured(clone: Clone, runs: int) -> list[float]:
    """Return the least processor seconds of status, add, commit, and of a change to the other commit."""

    def changed() -> None:
        (clone.place / "code.py").write_text(os.urandom(8).hex())

    def commands() -> list[float]:
        changed()
        found = [clone.seconds("status", "--porcelain")]
        found.append(clone.seconds("add", "code.py"))
        found.append(clone.seconds("commit", "-q", "-m", "code"))
        clone.run("reset", "-q", "--soft", "HEAD~1")
        clone.run("checkout", "-q", "HEAD", "--", "code.py")
        found.append(clone.seconds("checkout", "-q", "main~1"))
        clone.run("checkout", "-q", "main")
        return found

    return [min(column) for column in zip(*(commands() for _ in range(runs)), strict=True)]


def apply(clone: Clone, setting: str) -> None:
    """Set git as ``setting`` says."""
    if setting == "fsmonitor":
        monitor = clone.place / ".git/monitor"
        monitor.write_text(_MONITOR)
        monitor.chmod(0o755)
    for words in SETTINGS[setting]:
        clone.run(*words)


def undo(clone: Clone) -> None:
    """Set git as it was."""
    for key in ("index.version", "core.untrackedCache", "core.fsmonitor", "core.splitIndex", "index.sparse"):
        subprocess.run([clone.git, "config", "--unset-all", key], cwd=clone.place, check=False)
    options: list[list[str]] = [["--no-untracked-cache"], ["--no-fsmonitor"], ["--no-split-index"]]
    for words in (*options, ["--index-version", "2"]):
        clone.run("update-index", *words)
    for shared in (clone.place / ".git").glob("sharedindex.*"):
        shared.unlink()
    clone.run("sparse-checkout", "set", "--no-cone", "/*", "!/.theta/")


def index_bytes(place: Path) -> int:
    """Return the bytes of the index and of what it shares."""
    return sum(file.stat().st_size for file in (place / ".git").glob("*index*") if file.is_file())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--tensors", type=int, default=5_000)
    parser.add_argument("--git", default="git")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=[*SETTINGS])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clone = build(Path(scratch) / "r", asked.git, asked.entries, asked.tensors)
        version = clone.run("version")
        print(f"{version}, {asked.entries} entries in {asked.tensors} trees, processor seconds")
        print("| | index, MB | status | add | commit | checkout |\n|---|---|---|---|---|---|", flush=True)
        tell: Callable[[float], str] = "{:.2f}".format
        for setting in [asked.only] if asked.only else SETTINGS:
            apply(clone, setting)
            found = measured(clone, asked.runs)
            size = index_bytes(clone.place) / 1e6
            print(f"| {setting} | {size:.1f} | {' | '.join(map(tell, found))} |", flush=True)
            undo(clone)


if __name__ == "__main__":
    main()
