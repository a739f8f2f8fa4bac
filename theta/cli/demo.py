"""``theta demo``."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta import _fs
from theta._numpy import np
from theta.cli import console
from theta.cli import demo_model as model
from theta.cli.app import run
from theta.cli.args import HELP
from theta.dtypes import numpy_dtype
from theta.errors import CorruptError, ThetaError
from theta.formats import scan
from theta.porcelain.workspace.session import Session
from theta.store.files.file_source import FileSource
from theta.units import human

if TYPE_CHECKING:
    from theta.cli.demo_model import Weights

app = typer.Typer(add_completion=False)

_MODEL = "model.safetensors"


@dataclass
class _Step:
    """One commit of the story."""

    title: str
    commit: str
    sha256: str
    size: int
    stored: int
    seconds: float


@dataclass
class _Story:
    """The repository of the demo, and what each step cost."""

    place: Path
    steps: list[_Step] = field(default_factory=list)
    _size: int = 0
    _clock: float = 0.0

    def say(self, text: str) -> None:
        console.out("", f"# {text}")

    def run(self, *args: str) -> None:
        """Run ``theta ARGS`` as a user would, and stop if it fails."""
        console.out("$ theta " + " ".join(f"'{arg}'" if " " in arg or "*" in arg else arg for arg in args))
        code = run(args)
        if code:
            raise ThetaError(f"theta {args[0]} failed with code {code}")

    def begin(self) -> None:
        """Start the clock and the scales of a step."""
        self._size, self._clock = _directory_size(self.place / ".git"), time.monotonic()

    def end(self, title: str) -> None:
        """Note what the step cost, and what it made."""
        seconds = time.monotonic() - self._clock
        stored = _directory_size(self.place / ".git") - self._size
        size = (self.place / _MODEL).stat().st_size
        head = Session.here(self.place).repo.head() or ""
        self.steps.append(_Step(title, head, _sha256(self.place / _MODEL), size, stored, seconds))
        console.out(f"  -> {human(stored)} stored for a file of {human(size)}, {seconds:.1f} s")


@app.command(context_settings=HELP)
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Work in DIR, which must be new or empty, and keep it.")
    ] = None,
) -> int:
    """Show the whole workflow on a small model: what each command prints and what it costs."""
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ThetaError(f"{keep} is not empty")
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = keep or stack.enter_context(_fs.temporary_directory("theta-demo-"))
        _tell(_Story(place.absolute()))
    console.out(
        "",
        f"The whole story took {time.monotonic() - started:.0f} s." + (f" It is in {keep}." if keep else ""),
    )
    return 0


def _tell(story: _Story) -> None:
    _fs.make_dirs(story.place)
    home = Path.cwd()
    try:
        story.run("init", "--quiet", "--initial-branch=main", str(story.place))
        os.chdir(story.place)
        _identity(story)
        _chapters(story)
        _costs(story)
        _proof(story)
    finally:
        os.chdir(home)


def _identity(story: _Story) -> None:
    git = Session.here(story.place).repo.git()
    for key, value in (("user.name", "theta demo"), ("user.email", "demo@example.invalid")):
        if git.run("config", key, check=False).code:
            git.run("config", key, value)


def _chapters(story: _Story) -> None:
    story.say(f"a transformer of {model.LAYERS} layers in bf16: track it, commit it")
    base = model.make()
    _save(story, base)
    story.begin()
    story.run("track", "*.safetensors")
    story.run("add", _MODEL)
    story.run("commit", "-m", "base model")
    story.end("base model")

    story.say("a rank-8 LoRA, merged into the query and value projections")
    tuned = model.with_lora(base)
    _commit(story, tuned, "LoRA on q and v")

    story.say("on a branch: a dense fine-tune for RTE")
    story.run("switch", "-c", "rte")
    _commit(story, model.fine_tuned(tuned, seed=1), "fine-tune on RTE")

    story.say("on main, meanwhile: a dense fine-tune for ANLI")
    story.run("switch", "main")
    _commit(story, model.fine_tuned(tuned, seed=2), "fine-tune on ANLI")

    story.say("merge by averaging every tensor that both changed")
    story.begin()
    story.run("merge", "rte", "-X", "average")
    story.end("merge of rte, averaged")

    story.say("trim the embedding rows that no token uses")
    _commit(story, model.trimmed(_load(story.place / _MODEL)), "trim unused embedding rows")
    story.run("log", "--oneline", "--graph")


def _commit(story: _Story, weights: Weights, title: str) -> None:
    _save(story, weights)
    story.begin()
    story.run("commit", "-a", "-m", title)
    story.end(title)


def _save(story: _Story, weights: Weights) -> None:
    console.out(f"  (training writes {_MODEL})")
    model.save(story.place / _MODEL, weights)


def _load(path: Path) -> Weights:
    with FileSource(path) as source:
        found = scan(source)
        return {
            t.name: np.frombuffer(source.read(t.offset, t.length), numpy_dtype(t.dtype)).reshape(t.shape)
            for t in found.tensors
        }


def _costs(story: _Story) -> None:
    from rich.table import Table

    from theta.cli import screen

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("commit", "theta stored", "git-lfs would store", "seconds"):
        table.add_column(name, justify="left" if name == "commit" else "right")
    for step in story.steps:
        table.add_row(step.title, human(step.stored), human(step.size), f"{step.seconds:.1f}")
    total, whole = sum(s.stored for s in story.steps), sum(s.size for s in story.steps)
    table.add_row("all", human(total), human(whole), f"{sum(s.seconds for s in story.steps):.1f}")
    story.say("what it cost")
    screen.show(table)


def _proof(story: _Story) -> None:
    story.say("every version, checked out again and compared byte by byte")
    for step in story.steps:
        story.run("checkout", "--quiet", step.commit)
        if _sha256(story.place / _MODEL) != step.sha256:
            raise CorruptError(f"{step.title}: the restored file differs")
        console.out(f"  {step.commit[:10]} {step.title}: same sha256")
    story.run("switch", "--quiet", "main")
    story.run("fsck", "--read-data")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _directory_size(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
