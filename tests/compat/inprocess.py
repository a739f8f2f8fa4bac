"""Running theta inside the test's own process: a tenth of the time of a new one."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.compat.story import LAYERS, MODEL, SHAPES, edit, new_model
from tests.support import Repo, random_tensors, read_model
from tests.support.environment import dated


@dataclass(frozen=True)
class Ran:
    """The output of a command of theta (without that of git), and its exit code."""

    code: int
    out: str
    err: str


def theta(
    repo: Repo, *args: str, code: int | None = 0, cwd: str = ".", env: Mapping[str, str] | None = None
) -> Ran:
    """Run ``theta ARGS`` in ``repo``; it must end with ``code`` (``None``: any)."""
    from theta.cli.app import run  # a conftest imports this module before the user's environment is left

    repo.ticks += 1
    before = dict(os.environ)
    out, err = io.StringIO(), io.StringIO()
    try:
        os.environ.update(dated(repo.ticks) | dict(env or {}))
        with (
            contextlib.chdir(repo.path / cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            found = run(args)
    finally:
        os.environ.clear()
        os.environ.update(before)
    done = Ran(found, out.getvalue(), err.getvalue())
    assert code is None or found == code, f"theta {' '.join(args)}: {done}"
    return done


def committed(repo: Repo, *changes: tuple[str, float], path: str = MODEL) -> str:
    """Edit tensors and commit that with theta; return the commit."""
    for tensor, by in changes:
        edit(repo, tensor, by, path)
    theta(repo, "commit", "-q", "-am", ", ".join(tensor for tensor, _ in changes))
    return repo.git("rev-parse", "HEAD")


def started(place: Path) -> Repo:
    """A repository with a tracked checkpoint, as ``template`` of the fixtures, in less time."""
    repo = Repo.create(place)
    theta(repo, "track", "*.safetensors")
    new_model(repo)
    theta(repo, "add", ".")
    theta(repo, "commit", "-q", "-m", "first model")
    return repo


def branched(repo: Repo, **branches: Sequence[tuple[str, float]]) -> None:
    """Branches off main, each with its changes in one commit; main is checked out."""
    for name, changes in branches.items():
        theta(repo, "switch", "-q", "-c", name, "main")
        committed(repo, *changes)
    theta(repo, "switch", "-q", "main")


def contested(place: Path, **more: Sequence[tuple[str, float]]) -> Repo:
    """Branches ours, checked out, and side changed the three layers, by 1 and by 3; ``more`` branches."""
    repo = started(place)
    ours, side = ([(name, by) for name in LAYERS] for by in (1.0, 3.0))
    branched(repo, ours=ours, side=side, **more)
    theta(repo, "switch", "-q", "ours")
    return repo


def copied(repo: Repo, place: Path) -> Repo:
    """A copy that a test may change."""
    found = repo.copy(place)
    theta(found, "status")
    return found


def merge_recipe(repo: Repo, recipe: str, *options: str, code: int = 0) -> str:
    """Merge by a recipe, which is written beside ``repo``; return what theta said."""
    place = repo.path.parent / "recipe.yml"
    place.write_text(recipe)
    done = theta(repo, "merge", "--recipe", str(place), *options, code=code)
    return done.out + done.err


def shift(repo: Repo, tensor: str) -> float:
    """By how much the values of a tensor in the worktree are above those of the first model."""
    difference = read_model(repo.path / MODEL)[tensor] - random_tensors(SHAPES)[tensor]
    assert np.ptp(difference) < 1e-5
    return round(float(difference.mean()), 4)
