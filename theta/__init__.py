"""theta: version control for machine-learning checkpoints on ordinary Git repositories.

    repo = theta.open(".")
    weights = repo["main~2:model.safetensors"]
    weights["lm_head.weight"][:128].numpy()

``theta help python`` tells more.  ``import theta`` is cheap: what a name needs is imported when the name is
used first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from theta import errors
from theta._version import __version__
from theta.errors import ThetaError

if TYPE_CHECKING:
    import os

    from theta.api.checkpoint import Checkpoint
    from theta.api.lazy_tensor import LazyTensor
    from theta.api.policies import best, last, preempted, seconds, steps
    from theta.api.replication import follow
    from theta.api.repo import Repository
    from theta.api.training_run import Resumed, Run
    from theta.porcelain.commands.additions import AddResult
    from theta.porcelain.commands.commits import CommitResult
    from theta.porcelain.commands.merge_request import Ending, MergeResult, TensorOptions
    from theta.porcelain.commands.restoration import RestoreResult
    from theta.porcelain.look.diffing import Compared, Numbers
    from theta.porcelain.look.overview import Report
    from theta.porcelain.look.version_changes import Summary
    from theta.porcelain.replicas.applying import AppliedFile, ApplyResult
    from theta.porcelain.replicas.following import Followed
    from theta.porcelain.stage.run_steps import RunStep
    from theta.porcelain.stage.saving import SaveResult
    from theta.store.changes import Change, Changes

__all__ = [
    "AddResult",
    "AppliedFile",
    "ApplyResult",
    "Change",
    "Changes",
    "Checkpoint",
    "CommitResult",
    "Compared",
    "Ending",
    "Followed",
    "LazyTensor",
    "MergeResult",
    "Numbers",
    "Report",
    "Repository",
    "RestoreResult",
    "Resumed",
    "Run",
    "RunStep",
    "SaveResult",
    "Summary",
    "TensorOptions",
    "ThetaError",
    "__version__",
    "best",
    "errors",
    "follow",
    "last",
    "open",
    "preempted",
    "seconds",
    "steps",
]

_HOOKS: Final = ("hf", "jax", "keras", "lightning", "torch")
"""The packages for those who train with a framework; each imports it."""

_HOMES: Final = {
    "AddResult": "theta.porcelain.commands.additions",
    "AppliedFile": "theta.porcelain.replicas.applying",
    "ApplyResult": "theta.porcelain.replicas.applying",
    "CommitResult": "theta.porcelain.commands.commits",
    "Ending": "theta.porcelain.commands.merge_request",
    "MergeResult": "theta.porcelain.commands.merge_request",
    "RestoreResult": "theta.porcelain.commands.restoration",
    "SaveResult": "theta.porcelain.stage.saving",
    "RunStep": "theta.porcelain.stage.run_steps",
    "TensorOptions": "theta.porcelain.commands.merge_request",
    "Change": "theta.store.changes",
    "Changes": "theta.store.changes",
    "Checkpoint": "theta.api.checkpoint",
    "Compared": "theta.porcelain.look.diffing",
    "Followed": "theta.porcelain.replicas.following",
    "LazyTensor": "theta.api.lazy_tensor",
    "Numbers": "theta.porcelain.look.diffing",
    "Report": "theta.porcelain.look.overview",
    "Repository": "theta.api.repo",
    "Resumed": "theta.api.training_run",
    "Run": "theta.api.training_run",
    "best": "theta.api.policies",
    "follow": "theta.api.replication",
    "last": "theta.api.policies",
    "preempted": "theta.api.policies",
    "seconds": "theta.api.policies",
    "steps": "theta.api.policies",
    "Summary": "theta.porcelain.look.version_changes",
}


def open(path_or_url: str | os.PathLike[str] = ".") -> Repository:  # noqa: A001 - it is theta.open
    """Open the Git repository around a path, or behind a URL.

    A path may lie anywhere in a repository.  A URL (whatever ``git clone`` takes: ``https://``, ``ssh://``,
    ``git@host:path``, ``file://``) is cloned, bare and without files (``--filter=blob:none``), into a
    temporary directory: history first, and tensors when they are read.  ``close()``, the end of a ``with``
    block or of the process removes it.  To keep what was fetched, clone with ``theta clone
    --filter=blob:none`` and open that.  A remote that cannot leave out files sends all of them.  Git asks
    for no passwords here; credential helpers and keys work.

    Args:
        path_or_url: where the repository is; by default around the current directory, which is not needed
            any more once it is open.

    Returns:
        The repository, which is its own context manager.

    Raises:
        theta.errors.NotARepositoryError: there is none around the path.
        theta.errors.UnsupportedRepositoryError: it uses a feature of Git that theta lacks.
        theta.errors.UntrustedOwnerError: it belongs to another user.
        theta.errors.ThetaError: git could not clone the URL; the line is git's.
    """
    from theta.api.repo import open_repository

    return open_repository(path_or_url)


def __getattr__(name: str) -> Any:
    """Import and return the class ``name`` of the API, or the hooks into framework ``name``."""
    import importlib

    if name in _HOOKS:
        return importlib.import_module(f"theta.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'theta' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
