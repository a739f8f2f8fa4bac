"""The repository that these tests start from, and the edits that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support import Repo, make_model, mutate, random_tensors, sha256
from tests.support.repos import Done

MODEL: Final = "model.safetensors"
TENSOR: Final = "layer.1.weight"
"""The one that ``forked`` is about."""
LAYERS: Final = ("layer.0.weight", "layer.1.weight", "layer.2.weight")
"""Those that the branches of ``contested`` are about."""
_EVENTS: Final = (
    *("pre-commit", "prepare-commit-msg", "post-commit", "pre-merge-commit", "post-merge", "post-checkout"),
    *("post-applypatch", "post-rewrite", "post-index-change", "pre-push"),
)
NO_HOOKS: Final = (
    *("-c", "core.hooksPath=/dev/null"),
    *(word for event in _EVENTS for word in ("-c", f"hook.theta-{event}.enabled=false")),
)
"""Options of git without hooks, whether theta's are files or, from git 2.54 on, settings."""
SHAPES: Final = {
    "embed.weight": (64, 32),
    "layer.0.weight": (32, 32),
    "layer.1.weight": (32, 32),
    "layer.2.weight": (32, 32),
    "head.weight": (32, 64),
}


def new_model(repo: Repo, path: str = MODEL, seed: int = 0) -> str:
    """Write a new checkpoint of a few tensors; return its sha256."""
    return sha256(make_model(repo.path / path, random_tensors(SHAPES, seed)))


def edit(repo: Repo, tensor: str, by: float = 1.0, path: str = MODEL) -> str:
    """Add ``by`` to a tensor of a checkpoint in the worktree; return the file's new sha256."""
    mutate(repo.path / path, tensor, lambda old: (old + by).astype(old.dtype))
    return sha256(repo.path / path)


def commit(repo: Repo, tensor: str, by: float = 1.0, path: str = MODEL) -> str:
    """Edit a tensor and commit that with plain git; return the file's new sha256."""
    digest = edit(repo, tensor, by, path)
    repo.git("commit", "-q", "-am", f"{tensor} of {path}")
    return digest


def own_hook_of(repo: Repo, event: str) -> str:
    """The place of the user's hook beside theta's, which is a file or, from git 2.54 on, a setting."""
    is_setting = repo.try_git("config", f"hook.theta-{event}.event").returncode == 0
    return f".git/hooks/{event}{'' if is_setting else '.before-theta'}"


def digest(repo: Repo, path: str = MODEL) -> str:
    """The sha256 of a file in the worktree."""
    return sha256(repo.path / path)


def combined(repo: Repo, scratch: Path, *changes: tuple[str, float]) -> str:
    """The sha256 of the first model with ``changes`` (tensor, by) made to it."""
    place = Repo(scratch)
    new_model(place, "combined.safetensors")
    for tensor, by in changes:
        edit(place, tensor, by, "combined.safetensors")
    return digest(place, "combined.safetensors")


def run_either(repo: Repo, program: str, *args: str) -> Done:
    """Run ``git ARGS`` or ``theta ARGS``, which may fail."""
    return repo.try_git(*args) if program == "git" else repo.theta(*args, code=None)
